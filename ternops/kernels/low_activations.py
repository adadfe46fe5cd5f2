"""Activations of BitNet a4.8 (arXiv 2411.04965): 4 bits by absmean, and the largest of a row alone.

Layout: contiguous rows in memory, of any length, as `elementwise`. Trick: a search by halves, over
magnitudes as integers, counts those above a bound 16 at a time, and ends as soon as the count is
the one that is wanted. Bound: cache latency; the search reads a row a dozen times or two.
Each equals its namesake in `reference_low` bit for bit.
"""

import numpy as np

from ternops.kernels.elementwise import largest_magnitude, read, write
from ternops.kernels.reference import ROUNDER
from ternops.kernels.reference_low import INT4_LEAST, INT4_MEAN, INT4_MOST
from ternops.simd import (
    at_least,
    bitcast,
    convert,
    f32,
    full,
    i8x16,
    i32x16,
    inlined,
    kernel,
    lane,
    load,
    load_first,
    reduce_add,
    select_greater,
    store,
    store_first,
    tree_sum,
)

_MAGNITUDE_BITS = 0x7FFFFFFF
_ROUNDER_BITS = int(ROUNDER.view(np.int32))


@inlined
def _magnitudes(x, i, count):
    """16 of them as int32, which order floats, zeros from element `count` on."""
    return bitcast(i32x16, read(x, i, count)) & _MAGNITUDE_BITS


@kernel
def quantize_absmean(x, count, floor, target):
    """float32 (count,) -> int8 of -8 to 7 at `target`, which may be x; returns the step."""
    total = full(f32, 0.0)
    for i in range(0, count, 16):
        total = total + bitcast(f32, _magnitudes(x, i, count))
    mean = tree_sum(total) / np.float32(count)
    is_finite = mean < np.inf
    if not mean >= floor:
        mean = np.float32(floor)
    factor = full(f32, INT4_MEAN / mean)
    least, most = full(f32, INT4_LEAST), full(f32, INT4_MOST)
    for i in range(0, count, 16):
        scaled = read(x, i, count) * factor
        scaled = select_greater(scaled, least, scaled, least)
        scaled = select_greater(most, scaled, scaled, most) + ROUNDER
        codes = convert(i8x16, bitcast(i32x16, scaled) - _ROUNDER_BITS)
        if count - i >= 16:
            store(target + i, codes)
        else:
            store_first(target + i, codes, count - i)
    if not is_finite:
        return np.float32(np.nan)
    return mean / INT4_MEAN


@inlined
def _count_from(x, count, bound):
    """How many magnitudes are at least `bound`, which is above 0."""
    total, bounds = full(i32x16, 0), full(i32x16, np.int32(bound))
    for i in range(0, count, 16):
        total = total - at_least(_magnitudes(x, i, count), bounds)
    return reduce_add(total)


@kernel
def keep_largest(x, count, kept, target):
    """float32 (count,) with zeros for all but the `kept` largest magnitudes, 1 to count of them;
    `target` may be x."""
    low, found = 0, count
    high = np.int64(lane(bitcast(i32x16, full(f32, largest_magnitude(x, count))), 0)) + 1
    # At least `kept` reach low, and fewer than `kept` reach high.
    while high - low > 1 and found != kept:
        middle = low + (high - low) // 2
        reached = _count_from(x, count, middle)
        if reached >= kept:
            low, found = middle, reached
        else:
            high = middle
    if found == kept:
        bounds = full(i32x16, np.int32(low))
        for i in range(0, count, 16):
            bits = bitcast(i32x16, read(x, i, count))
            bits = bits & at_least(bits & _MAGNITUDE_BITS, bounds)
            write(target, i, count, bitcast(f32, bits))
        return
    # Several are equal at the bound, and the first of them are kept.
    left = kept
    if low + 1 <= _MAGNITUDE_BITS:
        left -= _count_from(x, count, low + 1)
    for i in range(count):
        bits = load(np.int32, x + 4 * i)
        magnitude = bits & _MAGNITUDE_BITS
        if magnitude < low or (magnitude == low and left == 0):
            bits = np.int32(0)
        elif magnitude == low:
            left -= 1
        store(target + 4 * i, np.int32(bits))


@kernel
def count_codes(codes, count):
    """How many of int8 (count,) are not 0."""
    total, one = full(i32x16, 0), full(i32x16, 1)
    for i in range(0, count, 16):
        if count - i >= 16:
            chunk = convert(i32x16, load(i8x16, codes + i))
        else:
            chunk = convert(i32x16, load_first(i8x16, codes + i, count - i))
        total = total - at_least(chunk * chunk, one)
    return reduce_add(total)


@kernel
def count_positive(x, first, last):
    """How many of float32 x[first:last] exceed 0."""
    total, one = full(i32x16, 0), full(i32x16, 1)
    for i in range(first, last, 16):
        above = select_greater(read(x, i, last), full(f32, 0.0), one, full(i32x16, 0))
        total = total + above
    return reduce_add(total)
