"""Every product equals the oracle bit for bit: shapes, batches, threads, scales, extremes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ternops
from ternops.kernels import reference
from ternops.kernels.table import useful_threads
from ternops.quantize import LEAST_ABSMAX
from ternops.team import TEAM
from tests import cases

pytestmark = pytest.mark.usefixtures("eager_threads")


def oracle(x, trits, scale):
    """What `x @ W.T` must be, bit for bit, for int8 or float32 x (m, k)."""
    if x.dtype == np.int8:
        total = reference.matmul_int32(x, trits)
        if scale is None:
            return total
        step = np.ones(len(x), np.float32)
    else:
        quantized, step = reference.quantize_rows(x, LEAST_ABSMAX)
        total = reference.matmul_int32(quantized, trits)
    factor = np.float32(1) if scale is None else np.asarray(scale, np.float32)
    return (total.astype(np.float32) * factor) * step[:, None]


@pytest.mark.parametrize("shape", cases.SHAPES, ids=cases.name)
def test_int8_equals_the_oracle_for_every_batch(shape):
    """Exact int32 for 0 to 17 tokens."""
    trits = cases.trits(*shape)
    matrix = ternops.pack(trits)
    for m in cases.BATCHES:
        x = cases.activations(m, shape[1])
        expected = reference.matmul_int32(x, trits)
        assert cases.same_bits(ternops.matmul(x, matrix.T, threads=1), expected), f"{m} tokens"
        assert cases.same_bits(ternops.matmul(matrix, x.T, threads=1), expected.T), f"{m} tokens"


@pytest.mark.parametrize("shape", cases.SHAPES, ids=cases.name)
def test_int8_equals_the_oracle_for_every_thread_count(shape):
    """The same int32 from one thread and from more threads than cores or rows."""
    trits = cases.trits(*shape)
    matrix = ternops.pack(trits)
    for m in (1, 2, 17):
        x = cases.activations(m, shape[1])
        expected = reference.matmul_int32(x, trits)
        for threads in cases.THREADS:
            result = ternops.matmul(x, matrix.T, threads=threads)
            assert cases.same_bits(result, expected), f"{m} tokens, {threads} threads"


def test_the_thread_counts_are_really_used():
    """With `eager_threads` even a small product starts every worker."""
    matrix = ternops.pack(cases.trits(64, 64))
    ternops.matmul(matrix, cases.activations(64), threads=7)
    assert useful_threads(7, matrix.nbytes) == 7
    assert len(TEAM._threads) >= 6


@pytest.mark.parametrize("kind", ["none", "scalar", "rows"])
@pytest.mark.parametrize("dtype", [np.int8, np.float32], ids=["int8", "float32"])
@pytest.mark.parametrize("shape", cases.SHAPES[::3], ids=cases.name)
def test_scaled_products_equal_the_oracle(shape, dtype, kind):
    """float32 results have the bits of quantise, exact sum, and two roundings."""
    trits, scale = cases.trits(*shape), cases.scales(shape[0])[kind]
    matrix = ternops.pack(trits, scale)
    for m in (0, 1, 3, 8, 17):
        make = cases.activations if dtype == np.int8 else cases.floats
        x = make(m, shape[1])
        expected = oracle(x, trits, scale)
        for threads in (1, 3):
            result = ternops.matmul(x, matrix.T, threads=threads)
            assert cases.same_bits(result, expected), f"{m} tokens, {threads} threads"


@pytest.mark.parametrize("dtype", [np.float16, np.float64], ids=["float16", "float64"])
@pytest.mark.parametrize("kind", ["none", "scalar", "rows"])
def test_other_floats_equal_the_oracle_of_their_float32(dtype, kind):
    """float16 widens exactly; float64 that float32 holds exactly gives float32's result."""
    trits = cases.trits(13, 509)
    matrix = ternops.pack(trits, cases.scales(13)[kind])
    x = cases.floats(5, 509, dtype=np.float16)
    expected = oracle(x.astype(np.float32), trits, cases.scales(13)[kind])
    assert cases.same_bits(x.astype(dtype) @ matrix.T, expected)


def test_unscaled_is_the_same_matrix_without_its_scale():
    """W.unscaled gives exact int32 from the bytes of a scaled matrix."""
    trits = cases.trits(9, 513)
    matrix = ternops.pack(trits, cases.scales(9)["rows"])
    x = cases.activations(513)
    assert matrix.unscaled.scale is None
    assert cases.same_bits(matrix.unscaled @ x, reference.matmul_int32(x[None], trits)[0])
    assert cases.same_bits(x @ matrix.unscaled.T, reference.matmul_int32(x[None], trits)[0])


@pytest.mark.parametrize("rows", [1, 255, 4095, 4096, 4097, 8193])
def test_sums_over_the_packed_rows_are_exact(rows):
    """x @ W and W.T @ x, which unpack the matrix block by block."""
    trits = cases.trits(rows, 5)
    matrix = ternops.pack(trits)
    x = cases.activations(3, rows)
    expected = reference.matmul_int32(x, trits.T)
    assert cases.same_bits(x @ matrix, expected)
    assert cases.same_bits(matrix.T @ x.T, expected.T)
    assert cases.same_bits(x[0] @ matrix, expected[0])


@pytest.mark.parametrize("columns", cases.LONG_SUMS)
@pytest.mark.parametrize("kind", ["plus", "minus", "alternating"])
def test_the_largest_sums(columns, kind):
    """Extreme activations times extreme trits, up to 2**24 - 1 terms."""
    row = cases.extreme_trits(columns)[kind]
    matrix = ternops.pack(row[None])
    for x in cases.extreme_activations(columns).values():
        expected = int(np.dot(x.astype(np.int32), row.astype(np.int32)))
        assert -(2**31) <= expected < 2**31
        for threads in (1, 2):
            result = ternops.matmul(matrix, x, threads=threads)
            assert result.dtype == np.int32
            assert result.tolist() == [expected]


@pytest.mark.parametrize("columns", [2**15 + 1, 2**17 + 255])
def test_the_largest_sums_of_several_tokens_and_rows(columns):
    """The same extremes through every tile of the GEMM."""
    rows = np.stack([*cases.extreme_trits(columns).values()] * 2)[:5]
    x = np.stack([*cases.extreme_activations(columns).values()] * 3)
    expected = reference.matmul_int32(x, rows)
    matrix = ternops.pack(rows)
    for m in (1, 3, 8, 9):
        assert cases.same_bits(x[:m] @ matrix.T, expected[:m]), f"{m} tokens"


def test_the_largest_sums_over_the_packed_rows():
    """Extremes through x @ W, whose blocks are summed in float32."""
    rows = 2**16 + 1
    trits = np.stack([*cases.extreme_trits(rows).values()], axis=1)
    x = np.stack([*cases.extreme_activations(rows).values()])
    assert cases.same_bits(x @ ternops.pack(trits), reference.matmul_int32(x, trits.T))


def test_quantised_extremes():
    """A row whose magnitudes all equal its largest quantises to +-127 exactly."""
    columns = 1021
    sign = cases.extreme_trits(columns)["alternating"]
    matrix = ternops.pack(np.stack([sign, -sign]))
    x = (sign * np.float32(3.7)).astype(np.float32)
    step = np.float32(3.7) / np.float32(127)
    total = np.array([127 * columns, -127 * columns], np.float32)
    assert cases.same_bits(matrix @ x, total * step)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_any_product(data):
    """Hypothesis: any small shape, values, batch, thread count and side."""
    rows = data.draw(st.integers(0, 40), "rows")
    columns = data.draw(st.integers(0, 700), "columns")
    m = data.draw(st.integers(0, 19), "tokens")
    threads = data.draw(st.sampled_from(cases.THREADS), "threads")
    seed = data.draw(st.integers(0, 2**32), "seed")
    trits = cases.trits(rows, columns, seed)
    matrix = ternops.pack(trits)
    x = cases.activations(m, columns, seed=seed)
    expected = reference.matmul_int32(x, trits)
    assert cases.same_bits(ternops.matmul(x, matrix.T, threads=threads), expected)
    assert cases.same_bits(ternops.matmul(matrix, x.T, threads=threads), expected.T)
