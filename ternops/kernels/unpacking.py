"""Values of packed blocks or panels: the opposite of `ternops.kernels.packing`, a row at a time.

Trick: a line of a row is taken apart by the code that products have, levels looked up. Bound:
operations; in panels, bringing the dwords of a row together.
"""

import numpy as np

from ternops.encodings import PANELS
from ternops.encodings.blocks import BLOCK_BYTES
from ternops.encodings.panels import LINE, ROWS, Panels
from ternops.isa import BYTES, WIDE, u8
from ternops.kernels.grouped import make_open_line
from ternops.kernels.packing import by_layout
from ternops.simd import (
    TeamJob,
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
        "tail", "levels", "out", "scratch",
    )]
)  # fmt: skip
_Unpack = record_type(UNPACK)

#: A line of each plane, and the values of their fields.
_LINES = max(each.planes for each in PANELS.values()) * BLOCK_BYTES
SCRATCH_BYTES = _LINES + 9 * BLOCK_BYTES


def _make_split(encoding: Panels):
    """A function that writes the levels of a line's fields one behind the other, 64 each."""
    fields, unpack = encoding.fields, encoding.make_unpack(1, WIDE, is_signed=True)
    holds, opens, hold, open_fields, levels_of, _, _ = unpack
    open_line = make_open_line(encoding.planes, open_fields)

    @inlined
    def split(line, values, p):
        opened, held = registers(u8, opens), registers(u8, holds)
        hold(held, p.levels)
        for part in range(0, BLOCK_BYTES, BYTES):
            open_line(line, part, opened, held)
            for field in range(fields):
                store(values + (field * BLOCK_BYTES + part), levels_of(opened, held, field))

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
