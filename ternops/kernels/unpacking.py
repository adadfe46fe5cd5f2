"""Values of packed blocks or panels: the opposite of `ternops.kernels.packing`, a row at a time.

Trick: a line's fields are the digits of a number, the most significant first; in base 3 two
comparisons tell a digit. Bound: operations; in panels, bringing the dwords of a row together.
"""

import numpy as np

from ternops.encodings import PANELS
from ternops.encodings.blocks import BLOCK_BYTES
from ternops.encodings.panels import LINE, ROWS, Panels
from ternops.isa import BYTES, WIDE, u8
from ternops.kernels.packing import by_layout, digits_of
from ternops.simd import (
    TeamJob,
    at_least,
    full,
    inlined,
    load,
    pointer,
    record_at,
    record_type,
    registers,
    store,
)
from ternops.team import share

#: Rows [first, last) of what is packed as `ternops.kernels.packing.PACK` tells; out: int8 values.
#: levels: the address of those of a matrix (`ternops.kernels.levels`).
UNPACK = np.dtype(
    [(name, np.intp) for name in (
        "packed", "first", "last", "columns", "layout", "fields", "planes", "lines", "row_bytes",
        "tail", "low", "down", "levels", "out", "scratch",
    )]
)  # fmt: skip
_Unpack = record_type(UNPACK)

#: A line of each plane, and the values of their fields.
_LINES = max(each.planes for each in PANELS.values()) * BLOCK_BYTES
SCRATCH_BYTES = _LINES + 9 * BLOCK_BYTES


def _make_split(encoding: Panels):
    """A function that writes the values of a line's fields one behind the other, 64 each."""
    fields, planes = encoding.fields, encoding.planes
    holds, opens, hold, open_fields, codes, _, _ = encoding.make_unpack(1, WIDE, True)

    @inlined
    def split_planes(line, values, p):
        opened, held = registers(u8, opens), registers(u8, holds)
        hold(held, p.levels)
        for part in range(0, BLOCK_BYTES, BYTES):
            for plane in range(planes):
                opened[plane] = load(u8, line + (plane * BLOCK_BYTES + part))
            open_fields(opened, held)
            for field in range(fields):
                store(values + (field * BLOCK_BYTES + part), codes(opened, held, field))

    if planes > 1 or encoding.has_levels:
        return split_planes
    field_of, unit_of, radix = digits_of(encoding)

    @inlined
    def split(line, values, p):
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
                store(values + (field_of(i) * BLOCK_BYTES + part), (code << p.down) + p.low)

    return split


_split = by_layout(_make_split)


@inlined
def _gather(p, row, block, line, stride):
    """`stride` bytes of a row's block, of each plane."""
    if p.lines == 1:
        source = pointer(p.packed) + (row * p.row_bytes + block * BLOCK_BYTES)
        if stride == BLOCK_BYTES:
            for part in range(0, BLOCK_BYTES, BYTES):
                store(line + part, load(u8, source + part))
        else:
            for i in range(stride):
                store(line + i, load(np.uint8, source + i))
    else:
        panel = row // ROWS * ROWS * p.row_bytes + block * (BLOCK_BYTES * ROWS) * p.planes
        source = pointer(p.packed) + (panel + row % ROWS * 4)
        for i in range(stride >> 2):
            for plane in range(p.planes):
                dword = load(np.uint32, source + (i * p.planes + plane) * LINE)
                store(line + (plane * BLOCK_BYTES + 4 * i), dword)


@inlined
def _unpack(record, team, thread, threads):
    """Rows are shared out."""
    p = record_at(_Unpack, record)
    line = pointer(p.scratch) + thread * SCRATCH_BYTES
    values = line + _LINES
    size = p.fields * BLOCK_BYTES
    whole = p.columns // size
    rest = p.columns - whole * size
    first, last = share(p.last - p.first, ROWS, thread, threads)
    for row in range(first, last):
        out = pointer(p.out) + row * p.columns
        for block in range(whole):
            _gather(p, p.first + row, block, line, BLOCK_BYTES)
            _split(p.layout, line, out + block * size, p)
        if rest > 0:
            _gather(p, p.first + row, whole, line, p.tail)
            _split(p.layout, line, values, p)
            for field in range(p.fields):
                start = field * p.tail
                for i in range(min(p.tail, rest - start)):
                    value = load(np.uint8, values + (field * BLOCK_BYTES + i))
                    store(out + (whole * size + start + i), value)


unpack = TeamJob(_unpack, "unpack")
