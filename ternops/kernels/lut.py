"""GEMV on look-up encodings: sums of neighbouring activations are looked up, not multiplied.

Layout: ternops.encodings.row_groups; groups of 64 rows, a line has a byte of each. Trick: a tuple
of activations has few sums with all the patterns of its weights; they are computed once, in int16,
and an index picks one for each row of a vector.
Bound: memory, the bits of a weight; in cache the shuffles.
"""

import numpy as np

from ternops.encodings.row_groups import ROWS, RowGroups
from ternops.encodings.unpack.lookup import SUM, SUMS, rows_of
from ternops.isa import BYTES, LANES, i32
from ternops.kernels.linear import quantize_token
from ternops.kernels.operands import Operands, finish
from ternops.kernels.tuning import PREFETCH_AHEAD
from ternops.simd import (
    RowsKernel,
    Vector,
    convert,
    full,
    inlined,
    load,
    pointer,
    prefetch,
    record_at,
    registers,
    store,
)

_TOTALS = ROWS // LANES
_i16 = Vector("i16", LANES)


def make_prepare(encoding: RowGroups):
    """A function that turns tokens into tables."""
    columns, each = encoding.columns, encoding.weights
    code = encoding.kernel_code
    write_table, table_bytes = code.write_table, code.TABLE_BYTES

    @inlined
    def prepare(operands, first, last, thread):
        """Quantise tokens [first, last) and write the tables of their tuples."""
        p = record_at(Operands, operands)
        x = pointer(p.scratch) + thread * p.scratch_stride
        padded = (p.columns + columns - 1) // columns * columns
        for i in range(p.columns, padded):
            store(x + i, np.int8(0))
        for token in range(first, last):
            quantize_token(p, token, x)
            target = pointer(p.placed) + token * p.placed_stride
            for i in range(padded // each):
                write_table(x + i * each, target + i * table_bytes)

    return prepare


def make_lut(encoding: RowGroups):
    """The product with one token after the other."""
    code = encoding.kernel_code
    columns, lines, add_tile = encoding.columns, encoding.lines, code.add_tile
    tiles_open, tables_bytes = encoding.tiles_open, encoding.tuples * code.TABLE_BYTES

    @inlined
    def group(p, row, count, token, flat):
        """Rows [row, row + count) of a group, count at most 64, for a token.

        flat: memory for 64 int16.
        """
        tiles = (p.columns + columns - 1) // columns
        weights = pointer(p.weights) + row * tiles * lines
        table = pointer(p.placed) + token * p.placed_stride
        totals = registers(i32, _TOTALS)
        sums = registers(SUM, SUMS)
        for i in range(_TOTALS):
            totals[i] = full(i32, 0)
        for start in range(0, tiles, tiles_open):
            end = min(tiles, start + tiles_open)
            # A vector's rows at a time: the sums of more do not fit 16 registers.
            for v in range(0, ROWS, BYTES):
                for i in range(SUMS):
                    sums[i] = full(SUM, 0)
                for tile in range(start, end):
                    at = weights + tile * lines * count
                    if v == 0:
                        for line in range(lines):
                            prefetch(at + (line * count + PREFETCH_AHEAD))
                    add_tile(sums, at + v, count, table + tile * tables_bytes)
                store(flat + 2 * v, rows_of(sums))
            for i in range(_TOTALS):
                totals[i] = totals[i] + convert(i32, load(_i16, flat + 2 * i * LANES))
        for i in range(_TOTALS):
            left = count - i * LANES
            if left > 0:
                finish(p, totals[i], row + i * LANES, token, min(left, LANES))

    @inlined
    def lut(operands, first, last, thread):
        """Rows [first, last), whole groups, of a product."""
        p = record_at(Operands, operands)
        flat = pointer(p.scratch) + thread * p.scratch_stride
        for row in range(first, last, ROWS):
            for token in range(p.tokens):
                group(p, row, min(ROWS, p.rows - row), token, flat)

    return lut


def lut_kernels(encoding: RowGroups) -> tuple[RowsKernel, RowsKernel]:
    """The one that makes tables of tokens, and the one that multiplies."""
    tables = RowsKernel(make_prepare(encoding), f"tables_{encoding.name}")
    return tables, RowsKernel(make_lut(encoding), f"gemv_{encoding.name}")
