"""Products on int8 weights: the output head that screens, or that stands for the whole.

Layout: rows of int8, padded with zeros to whole cache lines. Trick: an activation is a multiple
of a step of its token's, 255 a + b with int8 a and b, so that two dot instructions multiply 16-bit
activations with the weights, exactly. Bound: memory, 8 bits a weight.
"""

import numpy as np

from ternops.isa import BYTES, PARTIAL, REGISTERS, SIGNED_OFFSET, TIER, dot_signed, i8, i32
from ternops.isa.detect import FAMILY
from ternops.kernels.elementwise import largest_magnitude
from ternops.kernels.fp16 import LINE_BYTES, make_gemv, place_row
from ternops.kernels.operands import Operands
from ternops.kernels.reference import ROUNDER
from ternops.kernels.tuning import PREFETCH_AHEAD
from ternops.simd import (
    RowsKernel,
    bitcast,
    convert,
    f32,
    full,
    i8x16,
    i32x16,
    inlined,
    load,
    pointer,
    prefetch,
    record_at,
    reduce_add,
    registers,
    store,
)

#: Activations are at most LARGEST steps, BASE times one int8 and another; none of them is -128.
BASE = 255
LARGEST = np.float32(BASE * 127 + 127)
#: Sums over more columns might not fit int32.
MAX_COLUMNS = (2**31 - 1) // 128**2
#: A token below it is as good as zero, and above it its step is a normal number.
MIN_ABSMAX = np.float32(1e-30)
_LANES = 16
_ROUNDER_BITS = int(ROUNDER.view(np.int32))
# Rows and tokens of a tile: 16 sums in 32 registers, 8 where a line is four vectors, and 4 in 16
# registers or beside sums of int16.
_SIDE = (4, 2) if BYTES == 64 else (2, 2) if REGISTERS == 32 and i32 == PARTIAL else (2, 1)
# A prepared token, for rows of `stride` bytes: its floats, the int8 of its two levels, and a line
# each with what the level's sums start from; then the step.
_FLOATS = 4


def placed_bytes(stride):
    """Bytes of a token that `place_levels` has prepared."""
    return (_FLOATS + 2) * stride + 3 * LINE_BYTES


@inlined
def _split(x, columns, placed, stride):
    """The two levels of a token's floats, and what goes with them."""
    levels, starts = placed + _FLOATS * stride, placed + (_FLOATS + 2) * stride
    absmax = largest_magnitude(x, columns)
    if absmax < MIN_ABSMAX:
        absmax = MIN_ABSMAX
    factor, inverse = full(f32, LARGEST / absmax), full(f32, np.float32(1 / BASE))
    high_sum, low_sum = full(i32x16, 0), full(i32x16, 0)
    for i in range(0, stride, _LANES):
        rounded = load(f32, placed + 4 * i) * factor + ROUNDER
        # BASE is odd: no whole number lies near the middle of two multiples.
        high = (rounded - ROUNDER) * inverse + ROUNDER
        a = bitcast(i32x16, high) - _ROUNDER_BITS
        b = bitcast(i32x16, rounded) - _ROUNDER_BITS - a * BASE
        store(levels + i, convert(i8x16, a))
        store(levels + stride + i, convert(i8x16, b))
        high_sum, low_sum = high_sum + a, low_sum + b
    _start(starts, reduce_add(high_sum))
    _start(starts + LINE_BYTES, reduce_add(low_sum))
    step = absmax / LARGEST
    if not absmax < np.inf:
        step = np.float32(np.nan)
    store(starts + 2 * LINE_BYTES, step)


@inlined
def _start(place, total):
    """What the sums of a level start from, in one lane: they have SIGNED_OFFSET times its total
    too much."""
    store(place, full(i32x16, 0))
    store(place, np.int32(-SIGNED_OFFSET * total))


@RowsKernel
def place_levels(operands, first, last, thread):
    """Tokens [first, last) as floats with zeros behind them, and as two levels of int8."""
    p = record_at(Operands, operands)
    for token in range(first, last):
        x = pointer(p.x) + 4 * token * p.columns
        placed = pointer(p.placed) + token * p.placed_stride
        place_row(x, p.columns, placed, p.stride)
        _split(x, p.columns, placed, p.stride)


def make_tile(rows, tokens):
    """A function that computes and writes rows x tokens of a product."""
    count = rows * tokens * 2

    @inlined
    def tile(p, row, step, token):
        sums = registers(i32, count)
        weights, stride = pointer(p.weights) + row * p.stride, p.stride
        x = pointer(p.placed) + token * p.placed_stride
        levels, starts = x + _FLOATS * stride, x + (_FLOATS + 2) * stride
        for i in range(count):
            t, level = i // 2 % tokens, i % 2
            sums[i] = load(i32, starts + (t * p.placed_stride + level * LINE_BYTES))
        for offset in range(0, stride, LINE_BYTES):
            for r in range(rows):
                # Several tokens pass by neighbouring rows: those of the next tile.
                ahead = PREFETCH_AHEAD // rows if tokens == 1 else rows * stride
                prefetch(weights + (r * step * stride + offset + ahead))
            for at in range(0, LINE_BYTES, BYTES):
                for r in range(rows):
                    w = load(i8, weights + (r * step * stride + offset + at))
                    for i in range(2 * tokens):
                        near = i // 2 * p.placed_stride + i % 2 * stride + offset + at
                        own = r * tokens * 2 + i
                        sums[own] = dot_signed(sums[own], w, load(i8, levels + near))
        for r in range(rows):
            scale = load(np.float32, pointer(p.scales) + 4 * (row + r * step))
            for t in range(tokens):
                i = (r * tokens + t) * 2
                total = np.int64(reduce_add(sums[i])) * BASE + np.int64(reduce_add(sums[i + 1]))
                unit = load(np.float32, starts + (t * p.placed_stride + 2 * LINE_BYTES))
                place = 4 * ((token + t) * p.out_stride + row + r * step)
                store(pointer(p.out) + place, np.float32(total) * unit * scale)

    return tile


#: Streams of whole vectors that come nearest to the read bandwidth, by tier and family of CPUs.
STREAMS = {
    # Zen 5: 2 are 1%, 4 are 7% behind.
    "generic": 1,
    # Sapphire Rapids, 2 threads, of the fastest probe: 1 89%, 2 90, 4 95, 6 94, 8 94.
    "avx512vnni": 4,
    "avx512vnni@zen": 1,
}


def gemv_i8_for(family: str) -> RowsKernel:
    """The kernel of a family of CPUs: its streams are in its name, but for the tier's own."""
    streams, usual = (TIER.pick(STREAMS, each) for each in (family, ""))
    name = "gemv_i8" if streams == usual else f"gemv_i8_{streams}"
    return RowsKernel(make_gemv(make_tile, make_tile, streams, _SIDE), name)


gemv_i8 = gemv_i8_for(FAMILY)
