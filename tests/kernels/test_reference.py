"""The oracles themselves, judged by exact rational arithmetic and by float64."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ternops.absmean import BITNET_ABSMAX, MIN_ABSMAX
from ternops.kernels import reference
from tests.helpers import cases

MANY = settings(max_examples=400, deadline=None, derandomize=True)
FLOAT32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
LARGEST = Fraction(2**24 - 1) * 2**104


def rounded(exact):
    """A Fraction as the nearest float32, ties to even, overflow to infinity."""
    sign, size = (-1 if exact < 0 else 1), abs(exact)
    if size == 0:
        return 0.0
    # The place of the leading bit, and of the last one that float32 keeps.
    leading = math.floor(math.log2(size)) if size > Fraction(1, 2**1000) else -1000
    while Fraction(2) ** leading > size:
        leading -= 1
    while Fraction(2) ** (leading + 1) <= size:
        leading += 1
    unit = Fraction(2) ** max(leading - 23, -149)
    nearest = round(size / unit) * unit  # Python rounds a Fraction's ties to even
    return sign * (math.inf if nearest > LARGEST else float(nearest))


@pytest.mark.parametrize("shape", [(0, 0, 0), (0, 5, 3), (5, 0, 3), (2, 3, 0), (5, 7, 1000),
                                   (2, 3, 2**16), (2, 3, 2**17 + 1)], ids=str)  # fmt: skip
def test_products_are_those_of_integers(shape):
    """Whatever they are computed in, and however many terms there are."""
    m, n, k = shape
    x, codes = cases.activations(m, k), cases.activations(n, k, seed=1)
    found = reference.matmul_int32(x, codes)
    assert cases.same_bits(found, x.astype(np.int32) @ codes.T.astype(np.int32))
    wide = np.resize(np.float32([32512, -32511, 3, 32512]), (m, k))
    expected = (wide.astype(np.int64) @ codes.T.astype(np.int64)).astype(np.float32)
    if k:  # a step of 1
        ones = np.ones(n, np.float32)
        assert cases.same_bits(reference.int8_product(codes, ones, wide), expected)


def test_the_largest_product_of_integers():
    """Near the end of int32."""
    x = np.full((1, 2**24 - 1), -128, np.int8)
    assert reference.matmul_int32(x, np.full_like(x, -1)).tolist() == [[128 * (2**24 - 1)]]


def test_rounded_knows_float32():
    """The judge of the next tests, at the ends and on ties."""
    assert rounded(Fraction(1, 2**150)) == 0.0
    assert rounded(Fraction(3, 2**150)) == 2.0**-148
    assert rounded(Fraction(2**24 + 1)) == 2.0**24
    assert rounded(Fraction(-(2**24) - 3)) == -(2.0**24) - 4
    assert rounded(LARGEST + 2**103) == math.inf
    assert rounded(LARGEST + 2**103 - 1) == float(np.finfo(np.float32).max)
    for value in cases.floats(200):
        assert rounded(Fraction(float(value))) == value


@MANY
@given(FLOAT32, FLOAT32, FLOAT32)
@example(1.0 + 2**-23, 1.0 + 2**-23, 2.0**-100)
@example(2.0**-126, 2.0**-24, 2.0**-149)
@example(2.0**64, 2.0**63, -1.0)
@example(2.0**64, 2.0**64, -(2.0**127))
def test_fma_is_the_rounded_exact_value(a, b, c):
    """One rounding of the rational a * b + c, for any finite float32."""
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    with np.errstate(over="ignore"):
        found = reference.fma(np.float32([a]), np.float32([b]), np.float32([c]))
    assert found.dtype == np.float32
    assert float(found[0]) == rounded(exact)


@MANY
@given(
    st.integers(2**23, 2**24 - 1), st.integers(2**23, 2**24 - 1), st.integers(-150, 60),
    st.sampled_from([-1, 1]), st.integers(-3, 3),
)  # fmt: skip
def test_fma_near_ties(a, b, exponent, sign, nudge):
    """A tiny addend on either side of the middle between two float32 decides."""
    product = a * b
    half_unit = 2 ** (product.bit_length() - 25)
    near = np.float32(2.0**exponent * half_unit * sign)
    for c in (near, np.nextafter(near, np.float32(0)), np.float32(2.0**exponent * nudge)):
        x, y = np.float32(a), np.float32(b * 2.0**exponent)
        exact = Fraction(float(x)) * Fraction(float(y)) + Fraction(float(c))
        with np.errstate(over="ignore", under="ignore"):
            found = reference.fma(x[None], y[None], c[None])
        assert float(found[0]) == rounded(exact)


def test_exp_is_within_one_ulp():
    """Of float64's, on a million points between -87 and 88; exactly 1 at 0."""
    x = np.linspace(-86.99, 88, 1 << 20, dtype=np.float32)
    found, exact = reference.exp(x), np.exp(x.astype(np.float64))
    ulp = np.spacing(exact.astype(np.float32)).astype(np.float64)
    assert (np.abs(found - exact) / ulp).max() <= 1
    assert reference.exp(np.zeros(1, np.float32))[0] == 1


@pytest.mark.parametrize("k", [1, 15, 16, 17, 100, 1000])
def test_dot_and_its_kin_are_close_to_float64(k):
    """dot, rms_norm, softmax, silu and weighted_sum compute what their names say."""
    a, b = (np.random.default_rng(i).standard_normal((3, k)).astype(np.float32) for i in (0, 1))
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    bound = k * 2.0**-23 * (np.abs(wide_a) * np.abs(wide_b)).sum(1)
    assert (np.abs(reference.dot(a, b) - (wide_a * wide_b).sum(1)) <= bound).all()
    norm = wide_a / np.sqrt((wide_a**2).mean(1, keepdims=True) + 1e-5) * wide_b[0]
    assert np.allclose(reference.rms_norm(a, b[0], 1e-5), norm, rtol=1e-5, atol=1e-7)
    e = np.exp(wide_a)
    assert np.allclose(reference.softmax(a), e / e.sum(1, keepdims=True), rtol=1e-5, atol=0)
    assert np.allclose(reference.silu(a), wide_a / (1 + np.exp(-wide_a)), rtol=1e-5, atol=1e-7)
    assert np.allclose(reference.weighted_sum(a, b.T.copy()[:, :2]), wide_a @ wide_b.T[:, :2],
                       rtol=1e-4, atol=k * 1e-6)  # fmt: skip


ROWS = hnp.arrays(
    np.float32, st.tuples(st.integers(1, 3), st.integers(1, 40)), elements=st.floats(
        -(2.0**100), 2.0**100, width=32
    ),
)  # fmt: skip


@MANY
@given(ROWS, st.sampled_from([MIN_ABSMAX, BITNET_ABSMAX]))
def test_quantize_rows_is_close_and_uses_the_whole_range(x, floor):
    """Off by at most half a step; the largest of a row becomes +-127; signs are kept."""
    quantized, step = reference.quantize_rows(x, floor)
    assert quantized.dtype == np.int8
    assert step.dtype == np.float32
    assert (step > 0).all()
    wide, units = x.astype(np.float64), step.astype(np.float64)[:, None]
    assert (np.abs(quantized * units - wide) <= units * (0.5 + 127 * 2.0**-22)).all()
    assert (np.abs(quantized.astype(np.int32)) <= 127).all()
    absmax = np.abs(x).max(axis=1)
    large = absmax >= np.float32(floor)
    assert (np.abs(quantized[large].astype(np.int32)).max(axis=1) == 127).all()
    assert (quantized * np.sign(wide) >= 0).all()
    assert (quantized[(absmax * 254 < floor * 0.99)] == 0).all()


@MANY
@given(ROWS, st.integers(-5, 5))
def test_quantize_rows_commutes_with_powers_of_two(x, exponent):
    """Twice the row is twice the step and the same integers, also with its signs exchanged."""
    x = np.where(np.abs(x) < 1e-20, np.float32(0), x)
    x[:, 0] = 1
    factor = np.float32(2.0**exponent)
    quantized, step = reference.quantize_rows(x, MIN_ABSMAX)
    scaled, scaled_step = reference.quantize_rows(x * factor, MIN_ABSMAX)
    assert (scaled == quantized).all()
    assert (scaled_step == step * factor).all()
    assert (reference.quantize_rows(-x, MIN_ABSMAX)[0] == -quantized).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_quantize_rows_marks_bad_rows(bad):
    """A NaN step for the row that holds one, and for no other."""
    x = cases.floats(3, 7)
    x[1, 4] = bad
    _, step = reference.quantize_rows(x, MIN_ABSMAX)
    assert np.isnan(step).tolist() == [False, True, False]


def test_matmul_int32_is_the_sum_of_products():
    """In Python's own integers."""
    x, trits = cases.activations(3, 11), cases.trits(5, 11)
    expected = [
        [sum(int(a) * int(w) for a, w in zip(row, other, strict=True)) for other in trits]
        for row in x
    ]
    found = reference.matmul_int32(x, trits)
    assert found.dtype == np.int32
    assert found.tolist() == expected
