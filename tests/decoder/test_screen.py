"""The screened head: its bounds hold, and what it rules out could not have won."""

from __future__ import annotations

import numpy as np
import pytest

from ternops.decoder.head import Head, quantize
from ternops.decoder.model import Model
from ternops.decoder.session import Session
from ternops.decoder.weights import HalfMatrix, Weights
from ternops.kernels import reference
from ternops.kernels.screen import ROWS
from tests.helpers import cases
from tests.helpers.small_models import small_config, small_model


def matrices():
    """name -> HalfMatrix, from easy to unkind."""
    random = np.random.default_rng(0)
    gauss = random.standard_normal((333, 100)).astype(np.float32)
    spiky = gauss.copy()
    spiky[:, 3] *= 1000  # one coordinate sets the scale, the others are nearly lost
    tiny = (gauss * 1e-7).astype(np.float32)  # float16's subnormals
    mixed = gauss * 10.0 ** random.integers(-4, 4, (333, 1))
    zeros = gauss * (random.random((333, 1)) < 0.5)
    huge = random.choice([-65504.0, 65504.0], (333, 100))
    floats = {"gauss": gauss, "spiky": spiky, "tiny": tiny, "mixed": mixed, "zeros": zeros,
              "huge": huge}  # fmt: skip
    found = {name: HalfMatrix.from_floats(each.astype(np.float32)) for name, each in floats.items()}
    bits = (mixed.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return found | {"bf16": HalfMatrix.from_bits(bits, is_bf16=True)}


MATRICES = matrices()


@pytest.mark.parametrize("name", MATRICES)
def test_the_bound_holds(name):
    """For random and for worst x: of the exact product, and of both as float32 computes them."""
    matrix = MATRICES[name]
    rows, columns = matrix.shape
    codes, scales, bounds = quantize(matrix, -(-rows // ROWS) * ROWS, 3)
    assert (bounds[rows:] == np.inf).all()
    assert (codes[:, columns:] == 0).all()
    dense, codes = matrix.to_dense(), codes[:, :columns].astype(np.float32)
    assert np.abs(codes).max() == 127
    scales, bounds = scales[:rows], bounds[:rows].astype(np.float64)
    residual = dense.astype(np.float64) - scales.astype(np.float64)[:, None] * codes
    random = np.random.default_rng(1)
    # Along a residual the bound is met with equality: the worst x there is.
    for x in (*random.standard_normal((20, columns)), *residual[:20], *dense[:20]):
        x = x.astype(np.float32)
        length = np.sqrt((x.astype(np.float64) ** 2).sum())
        exact = dense.astype(np.float64) @ x
        approximate = scales.astype(np.float64) * (codes.astype(np.float64) @ x)
        assert (np.abs(exact - approximate) <= bounds * length).all()
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            computed = reference.dot(dense, x).astype(np.float64)
            screened = reference.int8_product(codes, scales, x[None])[0].astype(np.float64)
        finite = np.isfinite(computed)
        assert (np.abs(computed - screened) <= bounds * length)[finite].all()
    # And they are of use: a bound is no more than the residual, half steps of x and what float32
    # loses.
    size = np.sqrt((residual**2).sum(axis=1)) + 3e-4 * np.sqrt((dense.astype(float) ** 2).sum(1))
    assert (bounds <= size * 1.01 + 1e-24).all()


def screened_model(matrix, wanted_kind="screened", vocabulary=333):
    config = small_config("hidden 100", "bitnet", tied=False, vocabulary=vocabulary)
    plain = small_model(config).weights
    weights = Weights(config, plain.layers, plain.norm, plain.embedding, matrix)
    return Model(weights, 2, wanted_kind)


@pytest.mark.parametrize("wanted", [1, 2, 5, 40, 400])
@pytest.mark.parametrize("name", MATRICES)
def test_the_largest_logits_are_those_of_fp16(name, wanted):
    """Every one of them is there, bit for bit; the others are right or -inf."""
    whole, screened = screened_model(MATRICES[name], "fp16"), screened_model(MATRICES[name])
    tokens = np.random.default_rng(4).integers(0, 333, 12).tolist()
    logits = whole.logits(tokens)
    assert cases.same_bits(screened.logits(tokens), logits)
    for found in (
        Session(screened).extend(tokens, 12, wanted),
        _one_by_one(screened, tokens, wanted),
    ):
        for row, right in zip(found, logits, strict=True):
            kept = row != -np.inf
            assert cases.same_bits(row[kept], right[kept])
            order = np.argsort(-right, kind="stable")[:wanted]
            assert kept[order].all()
            # Ties as well: whatever equals the last of them.
            assert kept[right >= right[order[-1]]].all()


def _one_by_one(model, tokens, wanted):
    session = Session(model)
    found = np.stack([session.step(token, exact_top=wanted).copy() for token in tokens])
    if model.head.screens(wanted):
        assert session.screened == len(tokens)
        assert session.rescored == (found != -np.inf).sum()
    return found


def test_ties_go_to_the_lowest_token():
    """Rows that are all the same: each is a candidate, and the first one wins."""
    matrix = HalfMatrix.from_floats(np.ones((333, 100), np.float32))
    model = screened_model(matrix)
    session = Session(model)
    assert int(np.argmax(session.step(1, exact_top=1))) == 0
    assert session.rescored == 333


def test_most_rows_are_ruled_out():
    """Of Gaussian rows few come near the largest: that is what screening lives on."""
    random = np.random.default_rng(0)
    matrix = HalfMatrix.from_floats(random.standard_normal((5000, 100)).astype(np.float32))
    model = screened_model(matrix, vocabulary=5000)
    session = Session(model)
    for token in range(10):
        session.step(token, exact_top=1)
    assert session.rescored / session.screened < 500


def test_as_many_as_there_are_need_no_screening():
    """However large the number is; a pass would look for that number of peaks in vain."""
    whole, screened = (screened_model(MATRICES["gauss"], kind) for kind in ("fp16", "screened"))
    assert screened.head.screens(6)
    for top_k in (7, 400, 2**40, 2**70):
        assert not screened.head.screens(top_k)
        found = [
            list(model.generate([1, 2], 5, 1.0, seed=1, top_k=top_k)) for model in (whole, screened)
        ]
        assert found[0] == found[1]


@pytest.mark.parametrize("size", [1e-18, 1e-22, 1e-25, 1e-30])
def test_an_x_whose_squares_vanish(size):
    """It has a length for all that, and rows are ruled out by it."""
    random = np.random.default_rng(4)
    alike = random.standard_normal(100) + 1e-2 * random.standard_normal((333, 100))
    matrix = HalfMatrix.from_floats(alike.astype(np.float32))
    whole, screened = screened_model(matrix, "fp16"), screened_model(matrix)
    tokens = random.integers(0, 333, 40).tolist()
    for model in (whole, screened):
        model.weights.norm[:] *= np.float32(size)
    logits = whole.logits(tokens)
    assert (logits != 0).any()
    for wanted in (1, 3):
        found = Session(screened).extend(tokens, 40, wanted)
        for row, right in zip(found, logits, strict=True):
            order = np.argsort(-right, kind="stable")[:wanted]
            assert cases.same_bits(row[order], right[order])


def test_nan_rules_nothing_out():
    """A bfloat16 row of infinity has no bound; the answer is that of fp16, NaN and all."""
    bits = (np.random.default_rng(0).standard_normal((333, 100)).astype(np.float32)
            .view(np.uint32) >> 16).astype(np.uint16)  # fmt: skip
    bits[7, 3] = 0x7F80
    matrix = HalfMatrix.from_bits(bits, is_bf16=True)
    logits = screened_model(matrix, "fp16").logits([1, 2])
    found = Session(screened_model(matrix)).extend([1, 2], 2, 1)
    assert cases.same_bits(found[:, 7], logits[:, 7])


def test_auto_screens_what_exceeds_the_cache(monkeypatch):
    """And an unknown word is refused."""
    matrix = MATRICES["gauss"]
    monkeypatch.setattr("ternops.decoder.head.last_level_bytes", lambda: matrix.nbytes - 1)
    assert Head(matrix, "auto", 1).kind == "screened"
    monkeypatch.setattr("ternops.decoder.head.last_level_bytes", lambda: matrix.nbytes)
    assert Head(matrix, "auto", 1).kind == "fp16"
    with pytest.raises(ValueError, match="head='int4': expected one of auto, fp16"):
        Head(matrix, "int4", 1)
