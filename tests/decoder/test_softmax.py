"""The softmax of a whole vocabulary: block by block what whole arrays would give."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ternops.decoder.softmax import draw, largest, weights_of

_SIZES = 1, 2, 63, 255, 256, 257, 511, 1024, 32000, 32003


def _sorted(values, count):
    return np.argsort(-values, kind="stable")[:count]


@pytest.mark.parametrize("size", _SIZES)
@pytest.mark.parametrize("count", [1, 2, 5, 40, 256, 2000])
def test_the_largest_are_those_that_sorting_finds(size, count):
    rng = np.random.default_rng(size + count)
    count = min(count, size)
    for levels in (3, 50, 1 << 20):  # few: many are equal
        values = (rng.integers(0, levels, size) / 4).astype(np.float32)
        values[rng.random(size) < 0.3] = -np.inf
        assert np.array_equal(largest(values, count), _sorted(values, count))


@given(st.lists(st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 2.0]), min_size=1, max_size=400),
       st.data())  # fmt: skip
def test_equal_ones_come_lowest_first(values, data):
    values = np.array(values, np.float32)
    count = data.draw(st.integers(1, len(values)))
    assert np.array_equal(largest(values, count), _sorted(values, count))


@pytest.mark.parametrize("size", _SIZES)
def test_a_draw_is_where_the_cumulative_sum_passes_it(size):
    rng = np.random.default_rng(size)
    weights = rng.integers(0, 8, size).astype(np.float64)  # whose sums are exact in any order
    weights[-1] = 1
    cumulative = np.cumsum(weights)
    for uniform in [0.0, *rng.random(200), 1 - 2.0**-53]:
        expected = np.searchsorted(cumulative, uniform * cumulative[-1], side="right")
        assert draw(weights, uniform) == expected


@pytest.mark.parametrize("size", _SIZES)
def test_what_weighs_nothing_is_never_drawn(size):
    rng = np.random.default_rng(size)
    for _ in range(20):
        weights = rng.random(size) ** 8 * (rng.random(size) < 0.05)
        weights[rng.integers(size)] = rng.random()
        for uniform in (0.0, 2.0**-53, 1 - 2.0**-53, *rng.random(20)):
            assert weights[draw(weights, uniform)] > 0


def test_draws_are_as_frequent_as_weights_say():
    weights = np.tile([1.0, 0.0, 3.0, 4.0], 100)
    drawn = [draw(weights, each) % 4 for each in (np.arange(8000) + 0.5) / 8000]
    assert np.bincount(drawn, minlength=4).tolist() == [1000, 0, 3000, 4000]


@pytest.mark.parametrize("temperature", [1.0, 0.7, 1e-30])
def test_weights_are_those_of_the_formula(temperature):
    logits = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    logits[3] = -np.inf
    peak = float(logits.max())
    with np.errstate(over="ignore"):
        expected = np.exp((logits.astype(np.float64) - peak) / temperature)
    found = weights_of(logits, peak, temperature)
    assert found.dtype == np.float64
    assert np.array_equal(found, expected)
    assert found[3] == 0
