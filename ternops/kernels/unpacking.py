"""Values of packed blocks or panels: the opposite of `ternops.kernels.packing`, a row at a time.

Trick: a line's fields are the digits of a number, the most significant first; in base 3 two
comparisons tell a digit. Bound: operations; in panels, bringing the dwords of a row together.
"""

import numpy as np

from ternops.encodings import PANELS
from ternops.encodings.blocks import BLOCK_BYTES, Blocks
from ternops.encodings.panels import LINE, ROWS
from ternops.isa import BYTES, u8
from ternops.kernels.packing import digits_of
from ternops.simd import (
    TeamJob,
    at_least,
    full,
    inlined,
    load,
    pointer,
    record_at,
    record_type,
    store,
)
from ternops.team import share

#: Rows [first, last) of what is packed as `ternops.kernels.packing.PACK` tells; out: int8 values.
UNPACK = np.dtype(
    [(name, np.intp) for name in (
        "packed", "first", "last", "columns", "fields", "lines", "row_bytes", "tail", "low", "down",
        "out", "scratch",
    )]
)  # fmt: skip
_Unpack = record_type(UNPACK)

#: A line, and the values of its fields.
SCRATCH_BYTES = 9 * BLOCK_BYTES + BLOCK_BYTES


def _make_split(encoding: Blocks):
    """A function that writes the values of a line's fields one behind the other, 64 each."""
    fields = encoding.fields
    field_of, unit_of, radix = digits_of(encoding)

    @inlined
    def split(line, values, low, down):
        for part in range(0, BLOCK_BYTES, BYTES):
            rest = load(u8, line + part)
            for i in range(fields):
                unit = unit_of(i)
                if radix == 3:
                    code = rest
                    if i < fields - 1:
                        once = at_least(rest, full(u8, unit))
                        twice = at_least(rest, full(u8, 2 * unit))
                        code = full(u8, 0) - (once + twice)
                        rest = rest - ((once & unit) + (twice & unit))
                elif radix == 4:
                    code = rest >> 2 * (fields - 1 - i) & 3
                else:
                    code = rest >> (fields - 1 - i) & 1
                store(values + (field_of(i) * BLOCK_BYTES + part), (code << down) + low)

    return split


_split4, _split5, _split8 = (
    _make_split(next(each.blocks for each in PANELS.values() if each.blocks.fields == fields))
    for fields in (4, 5, 8)
)


@inlined
def _split(p, line, values):
    if p.fields == 4:
        _split4(line, values, p.low, p.down)
    elif p.fields == 5:
        _split5(line, values, p.low, p.down)
    else:
        _split8(line, values, p.low, p.down)


@inlined
def _gather(p, row, place, line, stride):
    """`stride` bytes of a row, from `place` on."""
    if p.lines == 1:
        source = pointer(p.packed) + (row * p.row_bytes + place)
        if stride == BLOCK_BYTES:
            for part in range(0, BLOCK_BYTES, BYTES):
                store(line + part, load(u8, source + part))
        else:
            for i in range(stride):
                store(line + i, load(np.uint8, source + i))
    else:
        panel = row // ROWS * ROWS * p.row_bytes
        source = pointer(p.packed) + (panel + place // 4 * LINE + row % ROWS * 4)
        for i in range(stride >> 2):
            store(line + 4 * i, load(np.uint32, source + i * LINE))


@inlined
def _unpack(record, team, thread, threads):
    """Rows are shared out."""
    p = record_at(_Unpack, record)
    line = pointer(p.scratch) + thread * SCRATCH_BYTES
    values = line + BLOCK_BYTES
    size = p.fields * BLOCK_BYTES
    whole = p.columns // size
    rest = p.columns - whole * size
    first, last = share(p.last - p.first, ROWS, thread, threads)
    for row in range(first, last):
        out = pointer(p.out) + row * p.columns
        for block in range(whole):
            _gather(p, p.first + row, block * BLOCK_BYTES, line, BLOCK_BYTES)
            _split(p, line, out + block * size)
        if rest > 0:
            _gather(p, p.first + row, whole * BLOCK_BYTES, line, p.tail)
            _split(p, line, values)
            for field in range(p.fields):
                start = field * p.tail
                for i in range(min(p.tail, rest - start)):
                    value = load(np.uint8, values + (field * BLOCK_BYTES + i))
                    store(out + (whole * size + start + i), value)


unpack = TeamJob(_unpack, "unpack")
