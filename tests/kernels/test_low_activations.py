"""4-bit activations, the largest of a row, and codes of 3 bits: the oracles' bits exactly."""

from __future__ import annotations

import numpy as np
import pytest

from ternops.kernels import low_activations, reference_low, three_bit_cache
from ternops.simd import kernel, pointer
from tests.helpers import cases

#: On both sides of multiples of 16, and longer.
LENGTHS = (*range(1, 35), 47, 48, 49, 63, 64, 65, 100, 255, 256, 257, 1000, 6912)


def rows_of(count):
    """Rows of that length: of different magnitudes, with equal ones, with zeros, out of range."""
    random = np.random.default_rng(count)
    normal = random.standard_normal(count)
    found = [
        normal, normal * 10.0 ** random.integers(-30, 30, count), np.zeros(count), np.ones(count),
        random.integers(-2, 3, count), normal * 1e-8, np.full(count, 3e38), normal * 1e-42,
        np.where(random.random(count) < 0.1, np.inf, normal),
        np.where(random.random(count) < 0.1, np.nan, random.integers(-2, 3, count)),
        # Half-way between two codes of 4 bits and beyond both ends of them.
        np.resize([1, -1, 1, -1, 0.5, -0.5, 1.5, -40, 40], count),
    ]  # fmt: skip
    with np.errstate(over="ignore"):
        return [each.astype(np.float32) for each in found]


@kernel
def _quantize_absmean(x, count, floor, target):
    return low_activations.quantize_absmean(pointer(x), count, floor, pointer(target))


@kernel
def _keep_largest(x, count, kept, target):
    low_activations.keep_largest(pointer(x), count, kept, pointer(target))


@kernel
def _counts(codes, x, first, last):
    return (
        low_activations.count_codes(pointer(codes), last),
        low_activations.count_positive(pointer(x), first, last),
    )


@kernel
def _quantize_row_i3(x, count, floor, target):
    return three_bit_cache.quantize_row_i3(pointer(x), count, floor, pointer(target))


@pytest.mark.parametrize("floor", [1e-5, 1e-8])
def test_int4_by_absmean(floor):
    """Apart, and in place, with nothing written after it."""
    for count in LENGTHS:
        for x in rows_of(count):
            codes, steps = reference_low.quantize_absmean(x[None], floor)
            found = np.full(count + 16, 99, np.int8)
            step = np.float32(_quantize_absmean(x, count, floor, found))
            assert cases.same_bits(np.array([step]), steps), count
            assert (found[count:] == 99).all()
            place = np.append(x, np.zeros(16, np.float32))
            _quantize_absmean(place, count, floor, place)
            if np.isfinite(step):
                assert (found[:count] == codes[0]).all(), count
                assert (place.view(np.int8)[:count] == codes[0]).all(), count


def test_int4_is_the_formula():
    """Of the paper, in float64; all 16 codes occur, and a magnitude that is as the mean is 3."""
    x = np.random.default_rng(0).standard_normal((50, 500)).astype(np.float32)
    codes, steps = reference_low.quantize_absmean(x, 1e-5)
    scaled = np.sqrt(7) / np.abs(x.astype(np.float64)).mean(axis=1, keepdims=True) * x
    near = np.abs(scaled % 1 - 0.5) < 1e-5
    assert ((codes == np.clip(np.rint(scaled), -8, 7)) | near).all()
    assert set(codes.ravel()) == set(range(-8, 8))
    assert np.allclose(steps, np.abs(x).mean(axis=1) / np.sqrt(7))
    codes, _ = reference_low.quantize_absmean(np.ones((1, 32), np.float32), 1e-5)
    assert (codes == 3).all()


def test_the_largest():
    """Of any number, apart and in place; of equal ones the first."""
    for count in LENGTHS:
        for kept in sorted({1, (count + 1) // 2, max(1, count - 1), count}):
            for x in rows_of(count):
                expected = reference_low.keep_largest(x[None], kept)[0]
                found = np.full(count + 16, 7, np.float32)
                _keep_largest(x, count, kept, found)
                assert (found[:count].view(np.int32) & 0x7FFFFFFF
                        == expected.view(np.int32) & 0x7FFFFFFF).all(), (count, kept)  # fmt: skip
                assert cases.same_bits(found[:count], expected), (count, kept)
                assert (found[count:] == 7).all()
                _keep_largest(x, count, kept, x)
                assert cases.same_bits(x, expected)


def test_the_largest_of_few():
    """By hand."""
    x = np.array([[1, -2, 2, 0, -2, np.nan], [0, 0, -1, 3, 1, 1]], np.float32)
    found = reference_low.keep_largest(x, 3)
    expected = [[0, -2, 2, 0, 0, np.nan], [0, 0, -1, 3, 1, 0]]
    np.testing.assert_array_equal(found, expected)


def test_counts():
    """Of codes that are not 0, and of floats above 0."""
    random = np.random.default_rng(0)
    for count in LENGTHS:
        codes = random.integers(-1, 2, count + 16).astype(np.int8) * np.int8(127)
        x = random.integers(-1, 2, count + 16).astype(np.float32)
        first = count // 2
        assert _counts(codes, x, first, count) == (
            np.count_nonzero(codes[:count]), (x[first:count] > 0).sum()
        )  # fmt: skip


def test_three_bits():
    """Codes and steps; what a code stands for is no more than half a step away."""
    for count in LENGTHS[:45]:
        for x in rows_of(count):
            codes, steps = reference_low.quantize_three_bits(x[None], 1e-8)
            found = np.zeros(count + 16, np.uint8)
            step = np.float32(_quantize_row_i3(x, count, 1e-8, found))
            assert cases.same_bits(np.array([step]), steps), count
            assert codes.max() <= 7
            if np.isfinite(step):
                assert (found[:count] == codes[0]).all(), count
                values = (codes[0] - np.float64(3.5)) * step
                assert (np.abs(values - x) <= step * 0.5001).all()
