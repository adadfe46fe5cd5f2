"""Products of float tokens with a stack of residual blocks, whose rows become floats on the way.

Layout: of each block the signs as one_bit packs them, and float16 factors (rows, k) and (k,
columns). Trick: some rows at a time become float32 in scratch, a chain of k multiply-adds for 16
weights of each block, whose sign one shift takes out of a byte, before all tokens pass by; nothing
of a matrix is ever kept as floats. Bound: the multiply-adds, k of them for 16 weights of a block,
however many tokens there are.
"""

import numpy as np

from ternops.encodings.blocks import BLOCK_BYTES
from ternops.encodings.one_bit import ONE_BIT
from ternops.isa import REGISTERS, load_fp16
from ternops.kernels.operands import Operands
from ternops.simd import (
    RowsKernel,
    bitcast,
    convert,
    f32,
    fma,
    full,
    i8x16,
    i32x16,
    inlined,
    load,
    load_first,
    pointer,
    record_at,
    record_type,
    registers,
    store,
    store_first,
    tree_sum,
)

#: In place of the name of an encoding.
STACK = "stack"
#: Of the factors' k.
MAX_RANK = 256
#: Bytes that may be read behind signs and factors.
SLACK_BYTES = 64
#: What an operand's address leads to: how many blocks count, k, and the address of their table.
STACKED = np.dtype([("count", np.intp), ("rank", np.intp), ("table", np.intp)])
#: Of each block the addresses of its signs and factors.
BLOCK = np.dtype([("signs", np.intp), ("left", np.intp), ("right", np.intp)])
_BLOCK_SIZE = BLOCK.itemsize
_Stacked, _Block = record_type(STACKED), record_type(BLOCK)

_LANES = 16
_FIELDS = ONE_BIT.fields
_BLOCK_COLUMNS = _FIELDS * BLOCK_BYTES
_SIGN = -0x80000000
# Rows that become floats together: a chain of multiply-adds each, which wait for one another.
_ROWS = 8 if REGISTERS >= 32 else 4


def scratch_bytes(columns):
    """Of a thread: some rows as floats, and their factors."""
    padded = -(-columns // _LANES) * _LANES + _LANES
    return 4 * (_ROWS * padded + _ROWS * MAX_RANK + _LANES)


def make_rows(rows):
    """A function for some rows and all tokens."""

    @inlined
    def add_piece(
        signs, stride, field, right, columns, column, factors, rank, out, out_step, count
    ):
        """Add 16 columns of a block to each row, or the first `count` of them."""
        totals = registers(f32, rows)
        for r in range(rows):
            totals[r] = full(f32, 0.0)
        for k in range(rank):
            v = load_fp16(right + 2 * (k * columns + column))
            for r in range(rows):
                u = full(f32, load(np.float32, factors + 4 * (r * rank + k)))
                totals[r] = fma(u, v, totals[r])
        for r in range(rows):
            bits = convert(i32x16, load(i8x16, signs + r * stride))
            flipped = ((bits << (31 - field)) & _SIGN) ^ _SIGN
            value = bitcast(f32, bitcast(i32x16, totals[r]) ^ flipped)
            place = out + (r * out_step + 4 * column)
            if count >= _LANES:
                store(place, load(f32, place) + value)
            else:
                store_first(place, load_first(f32, place, count) + value, count)

    @inlined
    def make_floats(p, row, out, out_step, factors):
        """Rows as float32 (rows, padded columns) at `out`."""
        s = record_at(_Stacked, p.weights)
        columns, rank = p.columns, s.rank
        for at in range(0, rows * out_step, 4 * _LANES):
            store(out + at, full(f32, 0.0))
        stride = (columns + _FIELDS - 1) // _FIELDS
        for number in range(s.count):
            b = record_at(_Block, s.table + number * _BLOCK_SIZE)
            for i in range(0, rows * rank, _LANES):
                store(factors + 4 * i, load_fp16(pointer(b.left) + 2 * (row * rank + i)))
            right, signs = pointer(b.right), pointer(b.signs) + row * stride
            for start in range(0, columns, _BLOCK_COLUMNS):
                rest = min(_BLOCK_COLUMNS, columns - start)
                step = (rest + _FIELDS - 1) // _FIELDS
                for i in range(0, step, _LANES):
                    place = signs + (start // _FIELDS + i)
                    for field in range(_FIELDS):
                        column = start + field * step + i
                        add_piece(
                            place, stride, field, right, columns, column, factors, rank, out,
                            out_step, step - i,
                        )  # fmt: skip

    @inlined
    def multiply(p, row, scratch):
        """All tokens times some rows."""
        out_step = p.placed_stride
        factors = scratch + rows * out_step
        make_floats(p, row, scratch, out_step, factors)
        sums = registers(f32, rows)
        for token in range(p.tokens):
            x = pointer(p.placed) + token * p.placed_stride
            for r in range(rows):
                sums[r] = full(f32, 0.0)
            for at in range(0, 4 * p.columns, 4 * _LANES):
                xs = load(f32, x + at)
                for r in range(rows):
                    sums[r] = fma(load(f32, scratch + (r * out_step + at)), xs, sums[r])
            for r in range(rows):
                place = 4 * (token * p.out_stride + row + r)
                store(pointer(p.out) + place, tree_sum(sums[r]))

    return multiply


_together, _alone = make_rows(_ROWS), make_rows(1)


@RowsKernel
def gemv_stack(operands, first, last, thread):
    """Rows [first, last) of a product."""
    p = record_at(Operands, operands)
    scratch = pointer(p.scratch) + thread * p.scratch_stride
    whole = first + (last - first) // _ROWS * _ROWS
    for row in range(first, whole, _ROWS):
        _together(p, row, scratch)
    for row in range(whole, last):
        _alone(p, row, scratch)
