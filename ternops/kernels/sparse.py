"""Products of one token that leave out what does not matter: some rows, or some columns.

Layout: rows of a block encoding, and int32 numbers of those to be read; columns are rows of the
transposed matrix. Trick: bytes of four columns are woven together, so that a dot adds up four
columns of as many outputs as a vector has lanes. Bound: memory, in runs of a row's bytes.
"""

from functools import cache
from typing import NamedTuple

import numpy as np

from ternops.encodings import ENCODINGS
from ternops.encodings.blocks import BLOCK_BYTES, Blocks, GemvTile
from ternops.isa import BYTES, LANES, PARTIAL, TIER, WIDE, close_sums, i8, i32, open_sums, u8
from ternops.kernels.gemv import MAX_STEPS_APART, Rows, make_gemv
from ternops.kernels.operands import Operands, finish
from ternops.kernels.tiles import default_tile
from ternops.simd import (
    RowsKernel,
    bitcast,
    full,
    inlined,
    interleave,
    load,
    pointer,
    prefetch,
    record_at,
    registers,
    store,
    take,
)

# Rows of a stream that are asked for before they are read.
_ROWS_AHEAD = 4
# Columns that are woven together: a dot has four products a lane.
_WOVEN = 4
_COLUMNS_AHEAD = 2 * _WOVEN
# int32 sums of a field of a line.
_FIELD_BYTES = 4 * BLOCK_BYTES
#: Of the matrix: with more of them, sums of fields that are left in place could overflow.
MAX_COLUMNS = _WOVEN * MAX_STEPS_APART


@inlined
def _first(p, row):
    return pointer(p.listed) + 4 * row


@inlined
def _step(p, count):
    return 4 * count


@inlined
def _line(p, place):
    return pointer(p.weights) + load(np.int32, place) * p.stride


@inlined
def _ahead(p, place):
    return _line(p, place + 4 * _ROWS_AHEAD)


_LISTED = Rows(_first, _step, _line, _ahead)


@inlined
def _four_lines(p, place):
    """Pointers to the first four rows of a list."""
    return (
        _line(p, place),
        _line(p, place + 4),
        _line(p, place + 8),
        _line(p, place + 12),
    )


@inlined
def _weave(a, b, c, d, woven):
    """The bytes of four vectors, one of each in turn, as four vectors."""
    even, odd = interleave(a, c), interleave(b, d)
    low = interleave(take(even, 0, BYTES, 1), take(odd, 0, BYTES, 1))
    high = interleave(take(even, BYTES, BYTES, 1), take(odd, BYTES, BYTES, 1))
    woven[0], woven[1] = take(low, 0, BYTES, 1), take(low, BYTES, BYTES, 1)
    woven[2], woven[3] = take(high, 0, BYTES, 1), take(high, BYTES, BYTES, 1)


def make_columns(encoding: Blocks, apart: int):
    """The sums over some columns of a matrix whose columns are rows of the encoding, and what makes
    results of them."""
    fields, block = encoding.fields, encoding.block
    unpack = encoding.make_unpack(apart, WIDE)
    holds, opens, hold, open_fields, codes, shift, factor = unpack
    inverse = unpack.last_inverse
    last_shifted = fields - (factor != 0)
    dot = WIDE.dot

    @inlined
    def multiply(operands, first, last, thread):
        """int32 sums over columns [first, last) of the list, at `scratch`, as fields have them.

        placed: an int8 activation for each column of the list.
        """
        p = record_at(Operands, operands)
        lines = (p.stride + BLOCK_BYTES - 1) // BLOCK_BYTES
        sums = pointer(p.scratch)
        held, opened = registers(u8, holds), registers(u8, opens)
        woven, into = registers(u8, _WOVEN), registers(PARTIAL, 1)
        total = registers(i32, 1)
        hold(held, p.levels)
        for at in range(0, lines * fields * _FIELD_BYTES, BYTES):
            store(sums + at, full(i32, 0))
        for k in range(first, last, _WOVEN):
            x = bitcast(i8, full(i32, load(np.int32, pointer(p.placed) + k)))
            place = pointer(p.listed) + 4 * k
            a, b, c, d = _four_lines(p, place)
            e, f, g, h = _four_lines(p, place + 4 * _COLUMNS_AHEAD)
            for line in range(lines):
                at = line * BLOCK_BYTES
                prefetch(e + at)
                prefetch(f + at)
                prefetch(g + at)
                prefetch(h + at)
                for part in range(0, BLOCK_BYTES, BYTES):
                    i = at + part
                    _weave(
                        load(u8, a + i), load(u8, b + i), load(u8, c + i), load(u8, d + i), woven
                    )
                    for q in range(_WOVEN):
                        opened[0] = woven[q]
                        open_fields(opened, held)
                        for field in range(fields):
                            place = sums + (line * fields + field) * _FIELD_BYTES
                            place = place + (_WOVEN * part + q * BYTES)
                            total[0] = load(i32, place)
                            partial = open_sums(total, into, 1)
                            partial[0] = dot(partial[0], codes(opened, held, field), x)
                            close_sums(total, partial, 1)
                            store(place, total[0])

    @inlined
    def close(operands, first, last, thread):
        """Results from the sums of lines [first, last)."""
        p = record_at(Operands, operands)
        for line in range(first, last):
            start = line * block
            stride = min(BLOCK_BYTES, p.stride - line * BLOCK_BYTES)
            for field in range(fields):
                sums = pointer(p.scratch) + (line * fields + field) * _FIELD_BYTES
                begin = start + field * stride
                count = min(stride, p.columns - begin)
                for i in range(0, count, LANES):
                    total = load(i32, sums + 4 * i)
                    if field < last_shifted:
                        # Exact: each lane is a multiple of what it is divided by.
                        total = total >> shift * (field % apart)
                    else:
                        total = total * inverse  # modulo 2**32
                    finish(p, total, begin + i, 0, min(LANES, count - i))

    return multiply, close


class Kernels(NamedTuple):
    """listed: the product of some rows. columns: sums over some columns, of which `close` makes
    results."""

    listed: RowsKernel
    columns: RowsKernel
    close: RowsKernel


@cache
def sparse_kernels(name: str) -> Kernels:
    """Of a block encoding."""
    encoding = ENCODINGS[name]
    assert isinstance(encoding, Blocks)
    tile = default_tile(encoding, "stream", TIER)
    assert isinstance(tile, GemvTile)
    listed = make_gemv(encoding, tile, _LISTED)
    columns, close = make_columns(encoding, TIER.pick(encoding.tiles).apart)
    return Kernels(
        RowsKernel(listed, f"listed_{name}"),
        RowsKernel(columns, f"columns_{name}"),
        RowsKernel(close, f"close_columns_{name}"),
    )


def sums_bytes(encoding: Blocks, outputs: int) -> int:
    """Of the sums over columns that have this many weights each."""
    return -(-outputs // encoding.block) * encoding.fields * _FIELD_BYTES
