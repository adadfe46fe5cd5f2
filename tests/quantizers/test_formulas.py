"""Scales and values of every method against formulas written down literally, and what must hold."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ternops.absmean import (
    MIN_SCALE,
    absmean,
    absmean_groups,
    group_means,
    rounded_scales,
    sign_mean,
)
from ternops.quantizers import METHODS, choose, quantize
from ternops.quantizers.method import nearest
from tests.helpers import cases
from tests.quantizers import literal

METHOD = pytest.mark.parametrize("name", METHODS)
#: Each method with each number of levels that it has.
KINDS = [(name, count) for name, each in METHODS.items() for count in each.levels]
KIND = pytest.mark.parametrize(("name", "count"), KINDS)
#: Those whose groups have nothing to do with each other.
ALONE = [name for name in METHODS if name not in ("nvfp4", "quantile", "absmean", "sign")]


def sign_mean_groups(w, group):
    """`sign_mean` of each group of columns apart."""
    groups, mean = group_means(w, group, np.positive)
    _, scale = group_means(w, group)
    signs = np.where(groups > mean[..., None], np.int8(1), np.int8(-1))
    scale = rounded_scales(np.maximum(scale, MIN_SCALE))
    return signs.reshape(len(signs), groups.shape[1] * group), scale


def made(w, name, count=None, group=None):
    """Values, scales of each group, levels and the size of a group."""
    usual = METHODS[name].group
    group = group or usual or 64
    found = quantize(w, choose(w.shape[1], group=group, method=name, levels=count))
    scale = found.scale if found.scale.ndim == 2 else found.scale[:, None]
    return found.values, scale, found.levels, w.shape[1] // scale.shape[1]


def dense(values, scale, size):
    return values * np.repeat(scale.astype(np.float64), size, axis=1)


def squares(w, name, count=None, group=None):
    """The squared error of each group."""
    values, scale, _, size = made(w, name, count, group)
    error = (w - dense(values, scale, size)).reshape(*scale.shape, size)
    return (error.astype(np.float64) ** 2).sum(axis=2)


def stored(name, scale):
    """As a scale is kept that fits."""
    if name in ("mxfp4", "bct"):
        return scale
    half = float(np.float16(scale))
    return half if name in ("absmean", "sign") or half >= 2.0**-14 else float(np.float32(scale))


@KIND
def test_scales_and_values_are_the_formulas(name, count):
    w = cases.floats(3, 192, seed=count).astype(np.float32).clip(-9, 9)
    values, scale, levels, size = made(w, name, count)
    parts = w.reshape(*scale.shape, size)
    for i, j in np.ndindex(scale.shape):
        group = parts[i, j].tolist()
        if name in literal.SCALES and name != "nvfp4":
            expected = stored(name, literal.SCALES[name](group, levels))
            # The least-squares step is a quotient of sums in another order.
            assert scale[i, j] == pytest.approx(expected, rel=2e-3 if name == "lsq" else 1e-7)
        if name == "sign":
            mean = math.fsum(group) / size
            assert values.reshape(parts.shape)[i, j].tolist() == [
                1 if each > np.float32(mean) else -1 for each in group
            ]
            continue
        ratios = (parts[i, j] / scale[i, j]).tolist()
        chosen = [levels[literal.nearest(each, levels)] for each in ratios]
        assert values.reshape(parts.shape)[i, j].tolist() == chosen


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("group", [32, 64, 128, 256])
def test_means_are_those_of_before(group, dtype):
    """absmean and sign, by groups and of whole matrices: the very bits."""
    w = cases.floats(37, 768, dtype=dtype).clip(-1e3, 1e3).astype(dtype)
    for name, grouped, whole in (
        ("absmean", absmean_groups, absmean), ("sign", sign_mean_groups, sign_mean),
    ):  # fmt: skip
        found = quantize(w, choose(768, group=group, method=name))
        for each, expected in zip(found[:2], grouped(w, group), strict=True):
            assert cases.same_bits(each, expected)
        found = quantize(w, choose(768, method=name))
        for each, expected in zip(found[:2], whole(w), strict=True):
            assert cases.same_bits(each, np.asarray(expected))


@pytest.mark.parametrize("beyond", [1e5, 1e-30])
def test_absmean_keeps_all_scales_in_one_dtype(beyond):
    """Where one is beyond float16, none is rounded to it, as before."""
    w = cases.floats(4, 128).astype(np.float32)
    w[1] *= beyond
    for name, grouped in (("absmean", absmean_groups), ("sign", sign_mean_groups)):
        found = quantize(w, choose(128, group=64, method=name))
        for each, expected in zip(found[:2], grouped(w, 64), strict=True):
            assert cases.same_bits(each, expected)


TABLES = sorted({each.levels[count] for each in METHODS.values() for count in each.levels} - {()})


@pytest.mark.parametrize("levels", TABLES, ids=lambda levels: f"{len(levels)}_{levels[-1]}")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nearest_everywhere(levels, dtype):
    """On a grid with every tie, on both sides of each, beyond both ends and at infinity."""
    grid = np.arange(-4 * 129, 4 * 129 + 1) / 4
    x = np.concatenate([grid, np.nextafter(grid, 999), np.nextafter(grid, -999)]).astype(dtype)
    x = np.concatenate([x, np.nextafter(x, dtype(999)), np.nextafter(x, dtype(-999))])
    found = nearest(x[None], np.ones(1, np.float32), levels)[0]
    assert found.tolist() == [levels[literal.nearest(each, levels)] for each in x.tolist()]
    ends = nearest(np.array([[3e38, -3e38]], dtype), np.full(1, 1e-38, np.float32), levels)
    assert ends.tolist() == [[levels[-1], levels[0]]]


def test_ties_of_integers_are_rints():
    """Of consecutive ones, as NumPy rounds."""
    x = np.arange(-40, 41, dtype=np.float32)[None] / 4
    for low, high in ((-1, 1), (-8, 7), (-4, 3), (-127, 127)):
        found = nearest(x, np.ones(1, np.float32), tuple(range(low, high + 1)))
        assert (found == np.rint(x).clip(low, high)).all()


@KIND
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), power=st.integers(-6, 8))
def test_values_are_levels_and_follow_a_power_of_two(name, count, seed, power):
    """A matrix times 2^k has the same values and 2^k times the scales."""
    w = np.random.default_rng(seed).standard_normal((4, 64)).astype(np.float32)
    values, scale, levels, _ = made(w, name, count)
    assert set(np.unique(values)) <= set(levels)
    assert (scale > 0).all()
    scaled = made(w * np.float32(2.0**power), name, count)
    assert cases.same_bits(scaled[0], values)
    assert cases.same_bits(scaled[1], scale * np.float32(2.0**power))


@pytest.mark.parametrize("name", ALONE)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_groups_and_weights_may_change_places(name, seed):
    """Rows in another order are the same rows; so are weights within a group, but for sums of
    floats in another order."""
    random = np.random.default_rng(seed)
    w = random.standard_normal((6, 64)).astype(np.float32)
    rows = random.permutation(6)
    values, scale, _, size = made(w, name)
    other = made(w[rows], name)
    assert cases.same_bits(other[0], values[rows])
    assert cases.same_bits(other[1], scale[rows])
    within = random.permutation(size)
    order = np.concatenate([start + within for start in range(0, 64, size)])
    again = made(w[:, order], name)
    if name in ("lsq", "mse"):
        assert np.allclose(again[1], scale, rtol=2e-3)
    else:
        assert cases.same_bits(again[0], values[:, order])
        assert cases.same_bits(again[1], scale)


#: Methods that another scale for the same levels can better.
PLAIN = [
    (name, count) for name, count in KINDS
    if name not in ("mse", "quantile", "mxfp4", "nvfp4", "bct")
]  # fmt: skip


@pytest.mark.parametrize(("name", "count"), PLAIN)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), tail=st.floats(1, 8))
def test_mse_is_never_worse(name, count, seed, tail):
    """Than any method with the same levels, group for group."""
    random = np.random.default_rng(seed)
    w = (random.standard_normal((2, 64)) * random.random((2, 64)) ** tail).astype(np.float32)
    assume(np.abs(w).max(axis=1).min() > 1e-4)
    levels = METHODS[name].levels[count]
    group = 64 if METHODS[name].group in (None, 64) else "row"
    best = squares(w, "mse", levels, group)
    assert (best <= squares(w, name, count, group) * (1 + 1e-5)).all()


SEARCHED = [each for each in TABLES if 2 < len(each) < 255]


@pytest.mark.parametrize("levels", SEARCHED, ids=lambda levels: f"{len(levels)}_{levels[-1]}")
def test_mse_is_nearly_the_least(levels):
    """Of all scales, of which a literal search finds the best."""
    random = np.random.default_rng(len(levels))
    found, least = 0.0, 0.0
    for kind in (random.standard_normal, random.standard_cauchy, random.random):
        w = kind((4, 32)).astype(np.float32)
        for row in w:
            best = literal.least_error(row.tolist(), levels)
            error = squares(row[None], "mse", levels, "row").sum()
            assert best * 0.999 <= error <= best * 1.5
            found, least = found + error, least + best
    assert found <= least * 1.05


def test_nvfp4_has_two_scales():
    """E4M3 times one number of the matrix, which makes the largest about 448; float16 has both."""
    w = cases.floats(8, 64).astype(np.float32).clip(-9, 9)
    _, scale, _, size = made(w, "nvfp4")
    assert size == 16
    exact = np.abs(w).reshape(8, 4, 16).max(axis=2) / 12
    matrix = exact.max() / 448
    steps = np.floor(np.log2(exact / matrix)) - 3
    assert (np.abs(scale - exact) <= matrix * 2.0**steps * 0.51 + 448 * matrix / 64).all()
    assert cases.same_bits(scale, scale.astype(np.float16).astype(np.float32))


def test_quantiles_have_as_many_weights_each():
    """Of a skewed distribution: each level but the ends about a 16th of the weights."""
    w = np.random.default_rng(5).gamma(2, size=(64, 1024)).astype(np.float32)
    values, _, levels, _ = made(w, "quantile", 16)
    counts = np.array([(values == level).sum() for level in levels]) / w.size
    assert 10 <= len(levels) <= 16
    assert counts[1:-1].max() < 0.13
    even = made(w, "int4", 16, 64)[0]
    assert (np.unique(even, return_counts=True)[1] / w.size).max() > 0.13
