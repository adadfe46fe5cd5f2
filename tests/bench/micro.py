"""Micro benchmarks of single operations, each compared with the NumPy oracle as well.

    pytest tests/bench/micro.py --benchmark-only

They tell whether an edit made something slower, before and after it on the same machine
(--benchmark-save, --benchmark-compare); figures to cite come from bench.run and bench.kernels.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import ternops
from ternops.decoder import Model, Session
from ternops.decoder import reference as decoder_reference
from ternops.kernels import reference

ENCODINGS = ("two_bit", "base3")
#: A square layer of the 1B layout, and one token or a prompt's.
ROWS = COLUMNS = 2048
GEMV, GEMM = 1, 128
PROMPT = 64


def _trits() -> npt.NDArray[np.int8]:
    return np.random.default_rng(0).integers(-1, 2, (ROWS, COLUMNS), np.int8)


@cache
def _model() -> Model:
    """The tiny checkpoint."""
    return Model.from_pretrained(threads=1)


@cache
def _prompt() -> tuple[list[int], npt.NDArray[np.float32]]:
    """Tokens, and the oracle's logits behind each."""
    model = _model()
    random = np.random.default_rng(0)
    tokens = random.integers(2, model.config.vocabulary, PROMPT).tolist()
    return tokens, decoder_reference.logits(model, tokens)


@pytest.mark.parametrize("tokens", [GEMV, GEMM], ids=["gemv", "gemm"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_matmul(benchmark: BenchmarkFixture, encoding: str, tokens: int) -> None:
    """int8 activations times packed weights, on one thread."""
    trits = _trits()
    weights = ternops.pack(trits, encoding=encoding).T
    x = np.random.default_rng(1).integers(-128, 128, (tokens, COLUMNS), np.int8)
    product = benchmark(ternops.matmul, x, weights, threads=1)
    np.testing.assert_array_equal(product, reference.matmul_int32(x, trits), strict=True)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_pack(benchmark: BenchmarkFixture, encoding: str) -> None:
    """Trits to packed weights."""
    trits = _trits()
    packed = benchmark(ternops.pack, trits, encoding=encoding)
    np.testing.assert_array_equal(packed.to_trits(), trits, strict=True)


def test_one_token(benchmark: BenchmarkFixture) -> None:
    """The tiny checkpoint's, behind a prompt."""
    tokens, expected = _prompt()
    session = Session(_model())
    session.read(tokens[:-1])

    def step() -> npt.NDArray[np.float32]:
        session.position = PROMPT - 1
        return session.step(tokens[-1])

    np.testing.assert_array_equal(benchmark(step), expected[-1], strict=True)


def test_prefill(benchmark: BenchmarkFixture) -> None:
    """A prompt of 64 tokens through the tiny checkpoint, in one pass."""
    tokens, expected = _prompt()
    session = Session(_model())

    def read() -> npt.NDArray[np.float32]:
        session.position = 0
        return session.read(tokens)

    np.testing.assert_array_equal(benchmark(read), expected[-1], strict=True)
