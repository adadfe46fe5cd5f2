"""Looking up triples of weights, in kernel code.

Layout: ternops.encodings.tl2; a table has 14 sums of three activations, and their negatives where
there is room for them. Trick and bound: `lookup`'s.
"""

from ternops.encodings.unpack.lookup import (
    LINE,
    TABLE_OF_WORDS,
    add_triple,
    patterns,
    weighted,
    write_entries,
)
from ternops.isa import u8
from ternops.simd import Vector, convert, full, i32x16, inlined, load, store

TABLE_BYTES = 64 if TABLE_OF_WORDS else 32
_i16x16 = Vector("i16", 16)
# An index in balanced ternary: i = 9 w0 + 3 w1 + w2, so (i + 1) // 3 = 3 w0 + w1.
_PREFIXES = [(i, (i + 1) // 3, (i + 4) // 9) for i in range(14)]
_pattern0, _pattern1, _pattern2 = patterns(
    [(w0, w01 - 3 * w0, i - 3 * w01) for i, w01, w0 in _PREFIXES]
)


@inlined
def write_table(x, target):
    """The table of the tuple of int8 at x, TABLE_BYTES of it."""
    entries = weighted(x, 0, _pattern0()) + weighted(x, 1, _pattern1())
    entries = entries + weighted(x, 2, _pattern2())
    write_entries(entries, target)
    if TABLE_OF_WORDS:
        store(target + 32, full(_i16x16, 0) - entries)


@inlined
def add_tile(sums, weights, width, tables):
    """Five lines of a vector's rows: eight triples."""
    signs = load(u8, weights + 4 * width)
    for j in range(4):
        line = load(u8, weights + j * width)
        for half in range(2):
            t = 2 * j + half
            add_triple(sums, line, half, signs, t, tables + t * TABLE_BYTES)


@inlined
def _codes(index, signs, triple):
    """The codes of a triple in the three low bytes of each lane.

    An index is 9 w0 + 3 w1 + w2; of its negative each code is 2 less the code.
    """
    first = (index + 4) * 15 >> 7  # 1 from 5 on
    rest = index + 4 - first * 9
    second = rest * 11 >> 5  # a third, for 0 to 8
    codes = first + 1 | second << 8 | (rest - second * 3) << 16
    negative = full(i32x16, 0) - (signs >> triple & 1)
    return codes + (full(i32x16, 0x020202) - codes * 2 & negative)


@inlined
def unpack_tile(weights, width, target):
    """The codes of 16 rows of a tile: a lane for each row, a vector for each four columns."""
    signs = convert(i32x16, load(LINE, weights + 4 * width))
    for half in range(2):
        line0 = convert(i32x16, load(LINE, weights + 2 * half * width))
        line1 = convert(i32x16, load(LINE, weights + (2 * half + 1) * width))
        first = _codes(line0 & 15, signs, 4 * half)
        second = _codes(line0 >> 4, signs, 4 * half + 1)
        third = _codes(line1 & 15, signs, 4 * half + 2)
        fourth = _codes(line1 >> 4, signs, 4 * half + 3)
        here = target + half * 192
        store(here, first | second << 24)
        store(here + 64, second >> 8 | third << 16)
        store(here + 128, third >> 16 | fourth << 8)
