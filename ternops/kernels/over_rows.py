"""The product x W, whose sums run over the rows of W: one job for a few tokens of int8.

Layout: packed rows as they are, each thread's int32 sums of all columns in its scratch. Trick: rows
are to x W what columns are to W x, so that the kernel of `sparse` which adds up some columns adds
up all rows, four at a time; threads share rows, then columns. Bound: the sums in L1, then memory.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ternops.encodings import ENCODINGS
from ternops.encodings.blocks import BLOCK_BYTES, Blocks
from ternops.kernels.call import Call, Operand
from ternops.kernels.elementwise import add_i32
from ternops.kernels.levels import levels_of
from ternops.kernels.lists import PADDING
from ternops.kernels.operands import OPERANDS, Operands
from ternops.kernels.sparse import MAX_COLUMNS, sparse_kernels, sums_bytes
from ternops.memory import CACHE_LINE, aligned_empty
from ternops.simd import (
    TeamJob,
    address_of,
    call_rows_kernel,
    inlined,
    pointer,
    record_at,
    record_type,
)
from ternops.team import TEAM, barrier, share

_TOGETHER = 8  # rows; a multiple of those that the kernel takes at a time
#: Rows of a sum: with more, fields that are left in place could overflow.
_MOST = MAX_COLUMNS // _TOGETHER * _TOGETHER
#: operands: an OPERANDS record a thread, `each` bytes from one to the next, whose sums lie in its
#: scratch. columns, close: kernels of `ternops.kernels.sparse`. rows: with those that fill up the
#: last _TOGETHER. block: weights of a line. x: int8 tokens of so many rows; out, offsets: int32.
RECORD = np.dtype(
    [(name, np.intp) for name in (
        "operands", "each", "columns", "close", "rows", "tokens", "block", "x", "out", "offsets",
    )]
)  # fmt: skip
_Record = record_type(RECORD)


@inlined
def _add_others(p, own, thread, threads, first, last):
    """Add the other threads' sums of lines [first, last) to a thread's own."""
    line = 4 * p.block
    sums = pointer(record_at(Operands, address_of(own)).scratch) + first * line
    for other in range(threads):
        if other != thread:
            theirs = record_at(Operands, p.operands + other * p.each)
            add_i32(sums, pointer(theirs.scratch) + first * line, (last - first) * p.block)


@TeamJob
def over_rows(record, team, thread, threads):
    """out = x W for a RECORD."""
    p = record_at(_Record, record)
    own = pointer(p.operands) + thread * p.each
    o = record_at(Operands, address_of(own))
    lines = (o.stride + BLOCK_BYTES - 1) // BLOCK_BYTES
    for token in range(p.tokens):
        o.placed = p.x + token * p.rows
        o.out = p.out + 4 * token * o.columns
        o.offsets = p.offsets + 4 * token
        first, last = share(p.rows, _TOGETHER, thread, threads)
        call_rows_kernel(p.columns, address_of(own), first, last, 0)
        barrier(team, threads)
        first, last = share(lines, 1, thread, threads)
        _add_others(p, own, thread, threads, first, last)
        call_rows_kernel(p.close, address_of(own), first, last, 0)
        barrier(team, threads)


def sums_over_rows(
    operand: Operand, call: Call, x: npt.NDArray[np.int8], out: npt.NDArray[np.int32], threads: int
) -> None:
    """out = x W, exact modulo 2**32. operand: of a block encoding without groups; call: of it and
    one int8 token, without a scale; x: (tokens, rows); out: contiguous (tokens, columns)."""
    encoding = ENCODINGS[operand.encoding]
    assert isinstance(encoding, Blocks)
    if operand.rows == 0:
        out[...] = 0
    part = np.empty_like(out) if operand.rows > _MOST else out
    for first in range(0, operand.rows, _MOST):
        weights = operand.address + first * encoding.row_bytes(operand.columns)
        some = x[:, first : first + _MOST]
        _sum_some(encoding, operand, call, weights, some, part if first else out, threads)
        if first:
            out += part


@lru_cache(4)
def _listed(rows: int, padded: int) -> npt.NDArray[np.int32]:
    """The numbers of all rows; one that only fills up is the last one, times 0."""
    return np.minimum(np.arange(padded + PADDING, dtype=np.int32), np.int32(rows - 1))


def _sum_some(
    encoding: Blocks, operand: Operand, call: Call, weights: int, x: npt.NDArray[np.int8],
    out: npt.NDArray[np.int32], threads: int,
) -> None:  # fmt: skip
    kernels, levels = sparse_kernels(operand.encoding), levels_of(operand.encoding, operand.levels)
    tokens, rows = x.shape
    padded = -(-rows // _TOGETHER) * _TOGETHER
    placed = x
    if padded > rows or not x.flags.c_contiguous:
        placed = np.zeros((tokens, padded), np.int8)
        placed[:, :rows] = x
    listed = _listed(rows, padded)
    offsets = (x.sum(axis=1, dtype=np.int64) * levels.bias).astype(np.int32)
    sums = sums_bytes(encoding, operand.columns) + CACHE_LINE
    scratch = aligned_empty(threads * sums, np.uint8)
    operands = np.zeros(threads, OPERANDS)
    bytes_of, own = operands.view(np.uint8).data, scratch.ctypes.data
    for thread in range(threads):
        record = bytes_of[thread * OPERANDS.itemsize : (thread + 1) * OPERANDS.itemsize]
        call.write_apart(record, 0, 0, 0, 0, 0, own + thread * sums, listed.ctypes.data)
    operands["weights"] = weights
    whole = np.array([
        operands.ctypes.data, OPERANDS.itemsize, kernels.columns.address, kernels.close.address,
        padded, tokens, encoding.block, placed.ctypes.data, out.ctypes.data, offsets.ctypes.data,
    ], np.intp)  # fmt: skip
    TEAM.run(over_rows, whole, threads)
