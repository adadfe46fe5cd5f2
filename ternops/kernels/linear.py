"""One whole product as a team's job: prepare the tokens, meet at the barrier, multiply.

Layout: a record of addresses and counts, which every thread reads. Trick: each thread prepares
some tokens and then computes some rows. Bound: that of the kernel that multiplies.
"""

import numpy as np

from ternops.encodings.blocks import BLOCK_BYTES
from ternops.isa import BYTES, TOGETHER, i8
from ternops.kernels.elementwise import copy_row, quantize_row
from ternops.kernels.operands import Operands
from ternops.simd import (
    Job,
    call_job,
    constant,
    full,
    inlined,
    kernel,
    load,
    pointer,
    record_at,
    select_greater,
    store,
)
from ternops.team import barrier, share

_lane_numbers = constant(i8, range(BYTES))


@kernel
def place_tail(row, columns, fields):
    """Move the last activations of an int8 row to where a shorter last block has them.

    As `ternops.encodings.blocks.place`, within the last block of the placed row; from the end
    downwards, because each piece moves up.
    """
    rest = columns % (fields * BLOCK_BYTES)
    if rest == 0:
        return
    tail = row + (columns - rest)
    stride = (rest + fields - 1) // fields
    for field in range(fields - 1, -1, -1):
        count = min(stride, rest - field * stride)
        for part in range(BLOCK_BYTES - BYTES, -1, -BYTES):
            piece = load(i8, tail + (field * stride + part))
            here = full(i8, max(0, min(count - part, BYTES)))
            piece = select_greater(here, _lane_numbers(), piece, full(i8, 0))
            store(tail + (field * BLOCK_BYTES + part), piece)


@inlined
def quantize_token(p, token, target):
    """Token number `token` as int8 at `target`, in natural order, with its sum and step."""
    if p.is_float:
        x = pointer(p.x) + 4 * token * p.columns
        step, total = quantize_row(x, p.columns, p.floor, target)
    else:
        total = copy_row(pointer(p.x) + token * p.columns, p.columns, target)
        step = np.float32(1)
    store(pointer(p.offsets) + 4 * token, total)
    store(pointer(p.steps) + 4 * token, step)


@Job
def place_tokens(operands, first, last, thread):
    """Quantise tokens [first, last) and place them as the block encodings meet them."""
    p = record_at(Operands, operands)
    for token in range(first, last):
        placed = pointer(p.placed) + token * p.placed_stride
        quantize_token(p, token, placed)
        place_tail(placed, p.columns, p.fields)


_PIECE = BYTES // TOGETHER
_piece = {4: np.int32, 8: np.int64}.get(_PIECE, np.int8)


@Job
def place_together(operands, first, last, thread):
    """As `place_tokens`; then TOGETHER tokens take turns, with so many columns as fill a line."""
    p = record_at(Operands, operands)
    row = pointer(p.scratch) + thread * p.scratch_stride
    for token in range(first, last):
        quantize_token(p, token, row)
        place_tail(row, p.columns, p.fields)
        group = pointer(p.placed) + token // TOGETHER * TOGETHER * p.placed_stride
        target = group + token % TOGETHER * _PIECE
        for at in range(0, p.placed_stride, _PIECE):
            store(target + at * TOGETHER, load(_piece, row + at))


@Job
def linear(record, team, thread, threads):
    """The product of an OPERANDS record."""
    p = record_at(Operands, record)
    first, last = share(p.tokens, 1, thread, threads)
    call_job(p.prepare, record, first, last, thread)
    barrier(team, threads)
    first, last = share(p.rows, p.row_step, thread, threads)
    call_job(p.multiply, record, first, last, thread)
