"""tl1: pairs of trits as 4-bit indices into tables of 9 sums, 2.0 bits a weight.

The meaning is TL1's of bitnet.cpp (arXiv 2410.16144, 2502.11880), the order is made for vectors of
64 bytes. A pair of neighbouring weights has the index 3 w0 + w1 + 4, 0 to 8. A tile is one line
for 4 columns (`row_groups`): a byte's low nibble is the first pair, its high nibble the second.
"""

from __future__ import annotations

from ternops.encodings.common import Array
from ternops.encodings.lookup import add_pair, patterns, weighted, write_entries
from ternops.encodings.row_groups import RowGroups, join_nibbles, split_nibbles
from ternops.isa import u8
from ternops.simd import inlined, load

_NUMBERS = range(-4, 5)
_TABLE_BYTES = 32


def _find_flaw(lines: Array) -> str | None:
    greatest = split_nibbles(lines).max()
    return f"the index {greatest}, expected 0 to 8" if greatest >= len(_NUMBERS) else None


def _join(numbers: Array) -> Array:
    return join_nibbles(numbers - _NUMBERS.start)


def _split(lines: Array) -> Array:
    return split_nibbles(lines) + _NUMBERS.start


_pattern0, _pattern1 = patterns([(i // 3 - 1, i % 3 - 1) for i in range(9)])


@inlined
def _write_table(x, target):
    write_entries(weighted(x, 0, _pattern0()) + weighted(x, 1, _pattern1()), target)


@inlined
def _add_tile(sums, weights, width, tables):
    """One line of a vector's rows: two pairs."""
    line = load(u8, weights)
    for half in range(2):
        add_pair(sums, line, half, tables + half * _TABLE_BYTES)


TL1 = RowGroups(
    name="tl1",
    weights=2,
    tuples=2,
    lines=1,
    entries=_NUMBERS,
    join=_join,
    split=_split,
    find_flaw=_find_flaw,
    table_bytes=_TABLE_BYTES,
    write_table=_write_table,
    add_tile=_add_tile,
    tiles_open=63,  # 126 * 2 * 128 is less than 2**15
    color="#009E73",
    marker="^",
)
