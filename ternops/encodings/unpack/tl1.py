"""Looking up pairs of weights, in kernel code.

Layout: ternops.encodings.tl1; a table has the 9 sums of two activations. Trick and bound:
`lookup`'s.
"""

from ternops.encodings.unpack.lookup import LINE, add_pair, patterns, weighted, write_entries
from ternops.isa import u8
from ternops.simd import convert, i32x16, inlined, load, store

TABLE_BYTES = 32
_pattern0, _pattern1 = patterns([(i // 3 - 1, i % 3 - 1) for i in range(9)])


@inlined
def write_table(x, target):
    """The table of the tuple of int8 at x, TABLE_BYTES of it."""
    write_entries(weighted(x, 0, _pattern0()) + weighted(x, 1, _pattern1()), target)


@inlined
def add_tile(sums, weights, width, tables):
    """One line of a vector's rows: two pairs."""
    line = load(u8, weights)
    for half in range(2):
        add_pair(sums, line, half, tables + half * TABLE_BYTES)


@inlined
def unpack_tile(weights, width, target):
    """The codes of 16 rows of a tile: a lane for each row, which has the four columns.

    An index i of a pair has the codes i // 3 and i % 3; 11 / 32 is near enough to a third.
    """
    line = convert(i32x16, load(LINE, weights))
    pairs = (line | line << 12) & 0x000F000F
    high = (pairs * 11 >> 5) & 0x00030003
    store(target, high | (pairs - high * 3) << 8)
