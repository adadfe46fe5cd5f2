"""Which encoding each matrix gets: the least error, no more bits than there are, exact scales."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

import ternops
from ternops.allocation import OPTIONS, Option, balances, stored_here

SHAPES = {"a": (24, 256), "b": (40, 256), "c": (16, 512), "d": (64, 256)}


def model(factor=1.0):
    """Matrices of which some are nearly trits, and one is of signs."""
    random = np.random.default_rng(11)
    found = {
        name: random.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()
    }
    found["c"] = np.sign(found["c"]) * np.float32(0.3)
    return {name: each * np.float32(factor) for name, each in found.items()}


def inputs(scale=1.0):
    random = np.random.default_rng(12)
    return {
        name: (random.standard_normal((40, columns)) * scale).astype(np.float32)
        for name, (_, columns) in SHAPES.items()
    }


def sizes(weights):
    return sum(each.size for each in weights.values())


@pytest.mark.parametrize("bits", [1.3, 1.7, 1.99, 2.5, 3.3, 5])
@pytest.mark.parametrize("seen", [True, False])
def test_no_choice_of_as_few_bits_is_better(bits, seen):
    """All 5^4 of them: on their convex hull nothing is, and elsewhere little."""
    weights, x = model(), inputs() if seen else None
    found = ternops.allocate(weights, bits, x, options=OPTIONS)
    assert found.bits <= bits
    every = {name: [one(weights, x, name, option) for option in OPTIONS] for name in weights}
    best = min(
        sum(each.error for each in choice)
        for choice in itertools.product(*every.values())
        if sum(each.nbits for each in choice) <= bits * sizes(weights)
    )
    assert best <= found.error + 1e-12
    assert found.error <= 1.15 * best + 1e-12


def one(weights, x, name, option):
    alone = None if x is None else {name: x[name]}
    return ternops.allocate({name: weights[name]}, 99, alone, options=[option]).chosen[name]


def test_errors_are_measured_on_outputs():
    weights, x = model(), inputs()
    found = ternops.allocate(weights, 2, x)
    for name, each in found.chosen.items():
        wanted = x[name] @ weights[name].T
        error = np.square(wanted - x[name] @ each.to_dense().T).sum() / np.square(wanted).sum()
        assert each.error == pytest.approx(error, rel=1e-4, abs=1e-10)


def test_scales_have_the_least_error_on_outputs():
    weights, x = model(), inputs()
    for name, each in ternops.allocate(weights, 2, x).chosen.items():
        wanted, unscaled = x[name] @ weights[name].T, x[name] @ each.values.T.astype(np.float32)
        at = np.square(wanted - unscaled * each.scale).sum(axis=0)
        for factor in (0.99, 1.01):
            other = np.square(wanted - unscaled * each.scale * np.float32(factor)).sum(axis=0)
            assert (at <= other * (1 + 1e-5) + 1e-9).all()


def test_a_matrix_of_signs_needs_one_bit():
    found = ternops.allocate(model(), 4, options=OPTIONS)
    # All that has no error is as good, and the fewest bits are taken.
    assert found.chosen["c"].option.encoding == "one_bit"
    assert found.chosen["c"].error < 1e-12


def test_what_matters_more_gets_more_bits():
    weights = {"a": model()["a"], "b": model()["b"]}
    factor = {"a": 100.0, "b": 1.0}

    def loss(name, dense):
        return factor[name] * float(np.square(dense - weights[name]).sum())

    found = ternops.allocate(weights, 2, loss=loss, options=OPTIONS)
    assert found.chosen["a"].nbits / weights["a"].size > found.chosen["b"].nbits / weights["b"].size
    factor.update(a=0.01)
    found = ternops.allocate(weights, 2, loss=loss, options=OPTIONS)
    assert found.chosen["a"].nbits / weights["a"].size < found.chosen["b"].nbits / weights["b"].size


def test_active_columns_decide_the_codes_scale():
    weights = {"a": model()["a"]}
    x = np.zeros((5, 256), np.float32)
    x[:, :9] = np.random.default_rng(13).standard_normal((5, 9))
    found = ternops.allocate(weights, 1.2, {"a": x}).chosen["a"]
    plain = ternops.allocate(weights, 1.2).chosen["a"]
    errors = [np.linalg.norm(x @ (weights["a"] - e.to_dense()).T) for e in (found, plain)]
    assert errors[0] < errors[1]


def test_balances_are_the_papers():
    """Of n bits: 2^n levels, and 2^n + 1 with the balance integer."""
    assert balances(1, ("one", "zero", "centre")) == {
        "one": (-1, 1), "zero": (-1, 0, 1), "centre": (-1, 0)
    }  # fmt: skip
    assert balances(2, ("one", "zero", "centre")) == {
        "one": (-3, -1, 1, 3), "zero": (-2, -1, 0, 1, 2), "centre": (-2, -1, 0, 1)
    }  # fmt: skip
    for n in (1, 2, 3, 4):
        every = balances(n, ("one", "zero", "centre"))
        assert [len(every[name]) for name in ("one", "zero", "centre")] == [2**n, 2**n + 1, 2**n]
    # What the paper counts for 1, 2 and 3 bits.
    assert [f"{math.log2(2**n + 1):.2f}" for n in (1, 2, 3)] == ["1.58", "2.32", "3.17"]


def test_sizes_of_a_unet_of_1_99_bits_are_the_papers():
    """7.9 times smaller than in float16 (abstract), with our scales as well: layers as of Stable
    Diffusion's UNet, each 16 times smaller on both sides."""
    shapes = [(20, 180)] * 9 + [(40, 360)] * 11 + [(80, 720)] * 13 + [(80, 80)] * 10
    shapes += [(640, 80), (80, 320)] * 5
    random = np.random.default_rng(14)
    weights = {
        str(at): (random.standard_normal(shape) * (1 + at % 7)).astype(np.float32)
        for at, shape in enumerate(shapes)
    }
    found = ternops.allocate(weights, 1.99, options=OPTIONS)
    assert 1.95 < found.bits <= 1.99
    nbytes = sum(each.nbits for each in found.chosen.values()) / 8
    assert found.ratio == pytest.approx(2 * sizes(weights) / nbytes)
    assert found.ratio >= 7.9
    assert pytest.approx(7.9, rel=0.02) == 16 / 1.99
    assert len({each.option.encoding for each in found.chosen.values()}) >= 3


@pytest.mark.parametrize(("bits", "encodings"), [(1.4, 2), (2.2, 2), (3.4, 2)])
def test_packed_matrices_are_what_was_measured(bits, encodings):
    weights, x = model(), inputs()
    found = ternops.allocate(weights, bits, x)
    packed = found.pack()
    assert len({each.encoding for each in packed.values()}) >= encodings
    for name, matrix in packed.items():
        assert matrix.encoding == found.chosen[name].option.encoding
        assert (matrix.to_dense() == found.chosen[name].to_dense()).all()
        wanted = x[name] @ found.chosen[name].to_dense().T
        # What rounding x to int8 adds.
        assert np.linalg.norm(x[name] @ matrix.T - wanted) < 0.02 * np.linalg.norm(wanted)


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.encoding)
def test_every_option_is_packed_in_all_of_its_levels(option):
    assert option in stored_here()
    weights = {"a": model()["d"]}  # whole panels of rows, which are filled up else
    for name, levels in option.balances.items():
        one_of = option._replace(balances={name: levels})
        each = ternops.allocate(weights, 99, options=[one_of]).chosen["a"]
        assert each.levels == levels
        assert (each.pack().to_dense() == each.to_dense()).all()
        layout = 8 * each.pack().nbytes / each.values.size
        assert layout == pytest.approx(each.nbits / each.values.size, abs=0.4)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"bits": 1}, ValueError, r"bits=1: expected 1.125 at least, scales included"),
        ({"bits": "2"}, TypeError, "bits='2': expected a number"),
        ({"bits": True}, TypeError, "bits=True: expected a number"),
        ({"model": {}}, ValueError, "model: no matrices"),
        ({"model": {"a": np.zeros(3)}}, ValueError, "model: 'a': w: shape"),
        ({"model": {"a": np.zeros((2, 2), int)}}, TypeError, "model: 'a': w: dtype int64"),
        ({"model": {"a": np.zeros((2, 0))}}, ValueError, "model: 'a' is empty or not finite"),
        ({"model": {"a": np.full((2, 2), np.inf)}}, ValueError, "model: 'a' is empty or not"),
        ({"options": []}, ValueError, "options: none"),
        ({"activations": {}}, ValueError, "activations: 'a' is not in both"),
        ({"activations": {"a": np.ones((2, 3))}}, ValueError, "activations: 'a' is float64"),
        ({"activations": {"a": np.full((2, 256), np.nan)}}, ValueError, "'a' holds NaN"),
    ],
)
def test_bad_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        ternops.allocate(**{"model": {"a": np.ones((24, 256))}, "bits": 3, **arguments})


def test_a_row_of_zeros_stays_one():
    weight = np.zeros((3, 64), np.float32)
    weight[1] = np.random.default_rng(13).standard_normal(64)
    found = ternops.allocate(
        {"a": weight}, 3, options=[Option("base3", 1.6, balances(1, ["zero"]))]
    )
    assert not found.chosen["a"].to_dense()[[0, 2]].any()
