"""Looking up pairs of weights, in kernel code.

Layout: ternops.encodings.tl1; a table has the 9 sums of two activations. Trick and bound:
`lookup`'s.
"""

from ternops.encodings.unpack.lookup import add_pair, patterns, weighted, write_entries
from ternops.isa import u8
from ternops.simd import inlined, load

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
