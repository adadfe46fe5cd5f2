"""One whole product as a team's job: prepare the tokens, wait at the barrier, multiply.

Layout: a record of addresses and counts, which every thread reads. Trick: each thread prepares
some tokens and then computes some rows. Bound: that of the kernel that multiplies.
"""

import numpy as np

from ternops.encodings.blocks import BLOCK_BYTES
from ternops.isa import BYTES, LANES, TOGETHER, i8, i32
from ternops.kernels.elementwise import copy_row, quantize_row
from ternops.kernels.operands import Operands
from ternops.kernels.tuning import panel_step
from ternops.simd import (
    RowsKernel,
    TeamJob,
    address_of,
    call_rows_kernel,
    constant,
    full,
    inlined,
    kernel,
    load,
    pointer,
    prefetch,
    record_at,
    registers,
    select_greater,
    store,
    transpose,
)
from ternops.team import barrier, share, share_between

_lane_numbers = constant(i8, range(BYTES))


@kernel
def place_tail(row, columns, fields, placed):
    """Move the last activations of an int8 row to where a shorter last block has them.

    As `ternops.encodings.blocks.place`, within the last block of the placed row; from the end
    downwards, because each piece moves up. fields 0: the order stays, and zeros fill the row up to
    `placed` bytes.
    """
    if fields == 0:
        for i in range(placed - columns):
            store(row + (columns + i), np.int8(0))
        return
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
    """Token number `token` as int8 at `target`, in natural order, with its offset and step."""
    if p.is_float:
        x = pointer(p.x) + 4 * token * p.columns
        step, total = quantize_row(x, p.columns, p.floor, target)
    else:
        total = copy_row(pointer(p.x) + token * p.columns, p.columns, target)
        step = np.float32(1)
    store(pointer(p.offsets) + 4 * token, np.int32(total * p.bias))
    store(pointer(p.steps) + 4 * token, step)


@RowsKernel
def place_tokens(operands, first, last, thread):
    """Quantise tokens [first, last) and place them as the block encodings meet them."""
    p = record_at(Operands, operands)
    for token in range(first, last):
        placed = pointer(p.placed) + token * p.placed_stride
        quantize_token(p, token, placed)
        place_tail(placed, p.columns, p.fields, p.placed_stride)


_PIECE = BYTES // TOGETHER
_piece = {4: np.int32, 8: np.int64}.get(_PIECE, np.int8)
#: Whether a piece is a lane of an i32, and TOGETHER of them are a vector.
_IS_SQUARE = TOGETHER == LANES


def gathered_bytes(placed):
    """Of scratch for the tokens that share lines, each of `placed` bytes; a line lies between them,
    since rows a multiple of 4 KB apart would compete for a few places of the first-level cache."""
    return TOGETHER * (placed + BLOCK_BYTES)


@inlined
def _interleave(rows, step, count, first, last, group):
    """Write tokens [first, last) of those that share lines: a piece of each in turn."""
    if _IS_SQUARE and last - first == TOGETHER:
        square = registers(i32, LANES)
        for at in range(0, count, BYTES):
            for t in range(LANES):
                square[t] = load(i32, rows + (t * step + at))
            transpose(square)
            for i in range(LANES):
                store(group + (at * TOGETHER + i * BYTES), square[i])
        return
    for t in range(first, last):
        for at in range(0, count, _PIECE):
            store(group + (at * TOGETHER + t * _PIECE), load(_piece, rows + (t * step + at)))


@RowsKernel
def place_together(operands, first, last, thread):
    """As `place_tokens`, with TOGETHER tokens interleaved: one line has the same columns of all."""
    p = record_at(Operands, operands)
    rows = pointer(p.scratch) + thread * p.scratch_stride
    step = p.placed_stride + BLOCK_BYTES
    for token in range(first, last):
        here = token % TOGETHER
        quantize_token(p, token, rows + here * step)
        place_tail(rows + here * step, p.columns, p.fields, p.placed_stride)
        if here == TOGETHER - 1 or token == last - 1:
            # Tokens before `first` are another thread's.
            since = max(0, here - (token - first))
            group = pointer(p.placed) + (token - here) * p.placed_stride
            _interleave(rows, step, p.placed_stride, since, here + 1, group)


@TeamJob
def linear(record, team, thread, threads):
    """The product of an OPERANDS record."""
    p = record_at(Operands, record)
    first, last = share(p.tokens, 1, thread, threads)
    call_rows_kernel(p.prepare, record, first, last, thread)
    barrier(team, threads)
    first, last = share(p.rows, p.row_step, thread, threads)
    call_rows_kernel(p.multiply, record, first, last, thread)


@kernel
def prepare_rows(operands, x, columns, placed_stride, tokens, first, last):
    """Prepare rows [first, last) of x, float32 (tokens, columns), for several products.

    operands: a pointer to a record of this thread alone, which tells the rest.
    """
    p = record_at(Operands, address_of(operands))
    p.columns = columns
    p.placed_stride = placed_stride
    p.tokens = tokens
    p.x = address_of(x)
    call_rows_kernel(p.prepare, address_of(operands), first, last, 0)


@inlined
def choose_matrix(operands, weights, stride, scale, scale_step, out):
    """Let a record be of one matrix and its result; gives the record."""
    p = record_at(Operands, address_of(operands))
    p.weights = weights
    p.stride = stride
    p.scales = scale
    p.scale_step = scale_step
    p.out = out
    return p


@kernel
def multiply_rows(operands, weights, stride, scale, scale_step, rows, first, last, out):
    """out[:, first:last] = rows [first, last) of one matrix times what `prepare_rows` left."""
    p = choose_matrix(operands, weights, stride, scale, scale_step, out)
    p.rows = rows
    p.out_stride = rows
    call_rows_kernel(p.multiply, address_of(operands), first, last, 0)


#: Bytes of a stream that nothing has asked for when it is begun: from there on its own product
#: prefetches. On Sapphire Rapids a token of the 700M layout takes 2.5% less time with 2048, 1.7%
#: with 1024 and 4096.
_BEGINNING = 2048


@inlined
def prefetch_rows(
    weights, stride, start, end, row_step, streams, panel, unit, thread, threads
):  # fmt: skip
    """Prefetch the beginnings of the streams in which this thread will read rows [start, end) of a
    matrix, `unit` rows of which lie in one piece.

    To be called where the memory would have nothing to do: before the thread waits for others.
    """
    first, last = share_between(start, end, row_step, thread, threads)
    step = panel_step((last - first) // unit, streams, unit * stride, panel) * unit * stride
    for stream in range(streams):
        start = pointer(weights) + (first * stride + stream * step)
        for line in range(0, _BEGINNING, BLOCK_BYTES):
            prefetch(start + line)
