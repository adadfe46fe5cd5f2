"""Lists of what matters: int32 numbers of positive floats and of int8 codes that are not 0.

Layout: int32, one behind the other, then the last one again. Trick: a comparison gives a bit a
lane, and the lowest bit that is set is taken off until none is left. Bound: a few operations an
entry.
"""

import numpy as np

from ternops.encodings.blocks import BLOCK_BYTES
from ternops.isa import BYTES, i8
from ternops.kernels.elementwise import read
from ternops.simd import (
    f32,
    full,
    greater_bits,
    inlined,
    kernel,
    load,
    lowest_bit,
    store,
)

#: Entries behind the last one of a list, which kernels look at.
PADDING = 64


@inlined
def _pad(listed, count):
    last = np.int32(0)
    if count > 0:
        last = load(np.int32, listed + 4 * (count - 1))
    for i in range(count, count + PADDING):
        store(listed + 4 * i, last)


@kernel
def list_positive(x, first, last, listed):
    """The numbers of those of float32 x[first:last] that exceed 0; returns how many there are."""
    count, zeros = 0, full(f32, 0.0)
    for i in range(first, last, 64):
        # Fewer and longer loops: the end of each is a branch that no CPU foresees.
        bits = greater_bits(read(x, i, last), zeros)
        bits |= greater_bits(read(x, i + 16, last), zeros) << 16
        bits |= greater_bits(read(x, i + 32, last), zeros) << 32
        bits |= greater_bits(read(x, i + 48, last), zeros) << 48
        while bits != 0:
            store(listed + 4 * count, np.int32(i + lowest_bit(bits)))
            bits = bits & (bits - 1)
            count += 1
    _pad(listed, count)
    return count


@kernel
def list_codes(placed, row_bytes, fields, most, listed, codes):
    """The columns whose int8 activation is not 0, and these, as blocks place them; returns how many
    there are, or more than `most` as soon as they exceed it. row_bytes: of a packed row."""
    count = 0
    for at in range(0, row_bytes, BLOCK_BYTES):
        start, stride = at * fields, min(BLOCK_BYTES, row_bytes - at)
        for field in range(fields):
            column = start + field * stride
            for part in range(0, stride, BYTES):
                here = placed + (start + field * BLOCK_BYTES + part)
                x, zeros = load(i8, here), full(i8, 0)
                bits = greater_bits(x, zeros) | greater_bits(zeros, x)
                while bits != 0:
                    lane = lowest_bit(bits)
                    store(listed + 4 * count, np.int32(column + part + lane))
                    store(codes + count, load(np.int8, here + lane))
                    bits = bits & (bits - 1)
                    count += 1
        if count > most:
            return count
    _pad(listed, count)
    for i in range(count, count + PADDING):
        store(codes + i, np.int8(0))
    return count
