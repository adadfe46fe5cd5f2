"""A packed matrix transposed: packed anew by columns, in one pass over its bytes.

Layout: blocks; a line of some source rows becomes bytes of as many target rows as it has weights.
Trick: a byte is a sum of codes, each times the number of its field, so that codes are added where
they belong, one at a time. Bound: those additions, in the first-level cache.
"""

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ternops.encodings import ENCODINGS
from ternops.encodings.blocks import BLOCK_BYTES, Blocks
from ternops.isa import BYTES, WIDE, u8
from ternops.kernels.call import Operand
from ternops.memory import aligned_empty
from ternops.simd import (
    TeamJob,
    full,
    inlined,
    load,
    pointer,
    record_at,
    record_type,
    registers,
    store,
    store_first,
)
from ternops.team import TEAM, share

#: Of `rows` packed rows, `stride` bytes each, to `columns` rows of out_stride bytes; scratch:
#: scratch_stride bytes a thread.
TRANSPOSE = np.dtype(
    [(name, np.intp) for name in (
        "weights", "stride", "rows", "columns", "out", "out_stride", "scratch", "scratch_stride",
    )]
)  # fmt: skip
_Transpose = record_type(TRANSPOSE)


def scratch_bytes(encoding: Blocks) -> int:
    """Of a thread: a line of each target row, and the codes of a source line."""
    return (BLOCK_BYTES + 1) * encoding.block


def make_transpose(encoding: Blocks):
    """A job that transposes a TRANSPOSE record."""
    fields, block = encoding.fields, encoding.block
    holds, opens, hold, open_fields, codes_of, _, _ = encoding.make_unpack(1, WIDE)
    # What the code 1 of each field adds to a byte.
    units = [int(each) for each in encoding.join(np.eye(fields, dtype=np.uint8))]
    u0, u1, u2, u3, u4, u5, u6, u7 = (*units, *[0] * (8 - fields))

    @inlined
    def unit_of(field):
        low = (u0 if field == 0 else u1) if field < 2 else (u2 if field == 2 else u3)
        high = (u4 if field == 4 else u5) if field < 6 else (u6 if field == 6 else u7)
        return low if field < 4 else high

    @inlined
    def take_apart(line, opened, held, codes):
        """The codes of a line, field after field."""
        for part in range(0, BLOCK_BYTES, BYTES):
            opened[0] = load(u8, line + part)
            open_fields(opened, held)
            for field in range(fields):
                store(codes + (field * BLOCK_BYTES + part), codes_of(opened, held, field))

    @inlined
    def transpose(record, team, thread, threads):
        """Source lines are shared out: each is some target rows, of which no other has a byte."""
        p = record_at(_Transpose, record)
        lines = pointer(p.scratch) + thread * p.scratch_stride
        codes = lines + BLOCK_BYTES * block
        held, opened = registers(u8, holds), registers(u8, opens)
        hold(held, 0)
        first, last = share((p.stride + BLOCK_BYTES - 1) // BLOCK_BYTES, 1, thread, threads)
        for source in range(first, last):
            source_stride = min(BLOCK_BYTES, p.stride - source * BLOCK_BYTES)
            for target in range(0, p.out_stride, BLOCK_BYTES):
                stride = min(BLOCK_BYTES, p.out_stride - target)
                for at in range(0, BLOCK_BYTES * block, BYTES):
                    store(lines + at, full(u8, 0))
                for field in range(fields):
                    row = target * fields + field * stride
                    for m in range(min(stride, p.rows - row)):
                        line = pointer(p.weights) + ((row + m) * p.stride + source * BLOCK_BYTES)
                        take_apart(line, opened, held, codes)
                        for i in range(block):
                            place = lines + (i * BLOCK_BYTES + m)
                            code = load(np.uint8, codes + i) * unit_of(field)
                            store(place, np.uint8(load(np.uint8, place) + code))
                for field in range(fields):
                    column = source * block + field * source_stride
                    for i in range(min(source_stride, p.columns - column)):
                        out = pointer(p.out) + ((column + i) * p.out_stride + target)
                        line = lines + (field * BLOCK_BYTES + i) * BLOCK_BYTES
                        for part in range(0, stride, BYTES):
                            store_first(out + part, load(u8, line + part), stride - part)

    return transpose


@cache
def transpose_job(name: str) -> TeamJob:
    """Of a block encoding."""
    encoding = ENCODINGS[name]
    assert isinstance(encoding, Blocks)
    return TeamJob(make_transpose(encoding), f"transpose_{name}")


def transpose(source: Operand, out: npt.NDArray[np.uint8], threads: int) -> None:
    """Pack a matrix of a block encoding anew by columns, with the same codes. out: of as many bytes
    as (columns, rows) take."""
    encoding = ENCODINGS[source.encoding]
    assert isinstance(encoding, Blocks)
    each = scratch_bytes(encoding)
    scratch = aligned_empty(threads * each, np.uint8)
    record: Any = np.zeros((), TRANSPOSE)
    for name, value in {
        "weights": source.address, "stride": encoding.row_bytes(source.columns),
        "rows": source.rows, "columns": source.columns, "out": out.ctypes.data,
        "out_stride": encoding.row_bytes(source.rows), "scratch": scratch.ctypes.data,
        "scratch_stride": each,
    }.items():  # fmt: skip
        record[name] = value
    TEAM.run(transpose_job(source.encoding), record, threads)
