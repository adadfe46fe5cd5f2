"""One row of a matrix with a scale a group of columns, as floats: a look-up in an embedding.

Layout: panels of 16 rows (`ternops.encodings.panels`). Trick: lines are unpacked whole, by the code
that products have, and the row's four bytes of each field are read from that. Bound: the lines,
16 times the bytes of a row; a token has one.
"""

from functools import cache

import numpy as np

from ternops.encodings import PANELS
from ternops.encodings.blocks import BLOCK_BYTES
from ternops.encodings.panels import LINE, ROWS
from ternops.isa import BYTES, WIDE, u8
from ternops.kernels.grouped import factors_of, make_open_line, make_tail_stride, scales_of
from ternops.kernels.operands import Operands
from ternops.simd import RowsKernel, inlined, load, pointer, record_at, registers, store

_DWORD = 4
#: Of scratch: a line of each field of at most 8, and the scales of a group.
SCRATCH_BYTES = 9 * LINE


@cache
def grouped_row(name: str) -> RowsKernel:
    """A kernel called with (operands, row, address of float32 (columns,), thread)."""
    encoding = PANELS[name]
    fields, planes, size = encoding.fields, encoding.planes, encoding.block
    tail_stride, steps = make_tail_stride(encoding), BLOCK_BYTES // _DWORD
    holds, opens, hold, open_fields, levels_of, _, _ = encoding.make_unpack(1, WIDE, True)
    open_line = make_open_line(planes, open_fields)

    @inlined
    def unpack(line, room, opened, held):
        for part in range(0, LINE, BYTES):
            open_line(line, part, opened, held)
            for field in range(fields):
                store(room + (field * LINE + part), levels_of(opened, held, field))

    @inlined
    def row(operands, first, last, thread):
        p = record_at(Operands, operands)
        target = pointer(last)
        room = pointer(p.scratch) + thread * p.scratch_stride
        scales = room + (SCRATCH_BYTES - LINE)
        opened = registers(u8, opens)
        held = registers(u8, holds)
        hold(held, p.levels)
        lane = (first & (ROWS - 1)) * _DWORD
        weights = pointer(p.weights) + (first >> 4) * ROWS * p.stride
        factors = factors_of(p, first)
        whole = p.columns // size
        for number in range(whole + 1):
            stride = BLOCK_BYTES if number < whole else tail_stride(p, whole)
            for i in range(stride >> 2):
                line = weights + (number * steps + i) * (planes * LINE)
                unpack(line, room, opened, held)
                for field in range(fields):
                    column = number * size + field * stride + i * _DWORD
                    if column < p.columns:
                        store(scales, scales_of(p, factors, column >> p.group_bits))
                        scale = load(np.float32, scales + lane)
                        for b in range(_DWORD):
                            value = np.float32(load(np.int8, room + (field * LINE + lane + b)))
                            store(target + 4 * (column + b), value * scale)

    return RowsKernel(row, f"grouped_row_{name}")
