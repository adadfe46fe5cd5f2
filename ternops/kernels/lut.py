"""GEMV on tl1 and tl2: sums of neighbouring activations are looked up, not multiplied.

Layout: ternops.encodings.row_groups; groups of 64 rows, a line has a byte of each. Trick: a tuple
of activations has few sums with all the patterns of trits; they are computed once, in int16, and
an index picks one for each row of a vector.
Bound: memory, 2 or 1.67 bits a weight; in cache the shuffles.
"""

import numpy as np

from ternops.isa import BYTES, LANES, i32, u8
from ternops.kernels.linear import quantize_token
from ternops.kernels.lookup import SUM, SUMS, TABLE_OF_WORDS, add_pair, add_triple, rows_of
from ternops.kernels.operands import Operands, finish
from ternops.kernels.tuning import PREFETCH_AHEAD
from ternops.simd import (
    Job,
    Vector,
    constant,
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

ROWS = 64  #: of a group
_TOTALS = ROWS // LANES
_i16, _i16x16, _u8x16 = Vector("i16", LANES), Vector("i16", 16), Vector("u8", 16)

#: Bytes of a pair's and of a triple's table.
PAIR_BYTES, TRIPLE_BYTES = 32, 64 if TABLE_OF_WORDS else 32
#: Columns, tables and bytes a row of the unit that a row is padded to.
PAIR_UNIT, TRIPLE_UNIT = (4, 2, 1), (24, 8, 5)
# So many units add up to less than 2**15: 126 * 2 * 128 and 80 * 3 * 128.
_PAIR_UNITS_OPEN, _TRIPLE_UNITS_OPEN = 63, 10


def _patterns(tuples):
    """index -> trits of a tuple, as one constant vector for each weight of the tuple."""
    rows = zip(*tuples, strict=True)
    return [constant(_i16x16, (*row, *[0] * (16 - len(row)))) for row in rows]


_pair0, _pair1 = _patterns([(i // 3 - 1, i % 3 - 1) for i in range(9)])
# A triple's index in balanced ternary: i = 9 w0 + 3 w1 + w2, so (i + 1) // 3 = 3 w0 + w1.
_PREFIXES = [(i, (i + 1) // 3, (i + 4) // 9) for i in range(14)]
_triple0, _triple1, _triple2 = _patterns(
    [(w0, w01 - 3 * w0, i - 3 * w01) for i, w01, w0 in _PREFIXES]
)


@inlined
def _weighted(x, at, pattern):
    return pattern * np.int16(load(np.int8, x + at))


@inlined
def _write_table(entries, target):
    if TABLE_OF_WORDS:
        store(target, entries)
    else:
        store(target, convert(_u8x16, entries))
        store(target + 16, convert(_u8x16, entries >> 8))


@inlined
def _write_pair(x, target):
    _write_table(_weighted(x, 0, _pair0()) + _weighted(x, 1, _pair1()), target)


@inlined
def _write_triple(x, target):
    entries = _weighted(x, 0, _triple0()) + _weighted(x, 1, _triple1())
    entries = entries + _weighted(x, 2, _triple2())
    _write_table(entries, target)
    if TABLE_OF_WORDS:
        store(target + 32, full(_i16x16, 0) - entries)


def make_prepare(unit, write, table_bytes):
    """A function that turns tokens into tables."""
    columns, tables, _ = unit
    each = columns // tables

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
            # The sums are those of the weights themselves.
            store(pointer(p.offsets) + 4 * token, np.int32(0))
            target = pointer(p.placed) + token * p.placed_stride
            for i in range(padded // each):
                write(x + i * each, target + i * table_bytes)

    return prepare


@inlined
def _pairs(sums, weights, width, tables):
    """One line of a vector's rows: two pairs."""
    line = load(u8, weights)
    for half in range(2):
        add_pair(sums, line, half, tables + half * PAIR_BYTES)


@inlined
def _triples(sums, weights, width, tables):
    """Five lines of a vector's rows: eight triples."""
    signs = load(u8, weights + 4 * width)
    for j in range(4):
        line = load(u8, weights + j * width)
        for half in range(2):
            t = 2 * j + half
            add_triple(sums, line, half, signs, t, tables + t * TRIPLE_BYTES)


def make_lut(unit, units_open, add_unit, table_bytes):
    """The product with one token after the other."""
    columns, tables, lines = unit

    @inlined
    def group(p, row, count, token, flat):
        """Rows [row, row + count) of a group, count at most 64, for a token.

        flat: room for 64 int16.
        """
        units = (p.columns + columns - 1) // columns
        weights = pointer(p.weights) + row * units * lines
        table = pointer(p.placed) + token * p.placed_stride
        totals = registers(i32, _TOTALS)
        sums = registers(SUM, SUMS)
        for i in range(_TOTALS):
            totals[i] = full(i32, 0)
        for start in range(0, units, units_open):
            end = min(units, start + units_open)
            # A vector's rows at a time: the sums of more do not fit 16 registers.
            for v in range(0, ROWS, BYTES):
                for i in range(SUMS):
                    sums[i] = full(SUM, 0)
                for unit in range(start, end):
                    at = weights + unit * lines * count
                    if v == 0:
                        for line in range(lines):
                            prefetch(at + (line * count + PREFETCH_AHEAD))
                    add_unit(sums, at + v, count, table + unit * tables * table_bytes)
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


tables_tl1 = Job(make_prepare(PAIR_UNIT, _write_pair, PAIR_BYTES), "tables_tl1")
tables_tl2 = Job(make_prepare(TRIPLE_UNIT, _write_triple, TRIPLE_BYTES), "tables_tl2")
gemv_tl1 = Job(make_lut(PAIR_UNIT, _PAIR_UNITS_OPEN, _pairs, PAIR_BYTES), "gemv_tl1")
gemv_tl2 = Job(make_lut(TRIPLE_UNIT, _TRIPLE_UNITS_OPEN, _triples, TRIPLE_BYTES), "gemv_tl2")
