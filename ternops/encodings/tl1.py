"""tl1: pairs of trits as 4-bit indices into tables of 9 sums, 2.0 bits a weight.

The meaning is TL1's of bitnet.cpp (arXiv 2410.16144, 2502.11880), the order is made for vectors of
64 bytes. A pair of neighbouring weights has the index 3 w0 + w1 + 4, 0 to 8. A tile is one line
for 4 columns (`row_groups`): a byte's low nibble is the first pair, its high nibble the second.
"""

from __future__ import annotations

from ternops.encodings.common import Array
from ternops.encodings.row_groups import RowGroups, join_nibbles, split_nibbles

_NUMBERS = range(-4, 5)


def _find_flaw(lines: Array) -> str | None:
    greatest = split_nibbles(lines).max()
    return f"the index {greatest}, expected 0 to 8" if greatest >= len(_NUMBERS) else None


def _join(numbers: Array) -> Array:
    return join_nibbles(numbers - _NUMBERS.start)


def _split(lines: Array) -> Array:
    return split_nibbles(lines) + _NUMBERS.start


TL1 = RowGroups(
    name="tl1",
    weights=2,
    tuples=2,
    lines=1,
    entries=_NUMBERS,
    join=_join,
    split=_split,
    find_flaw=_find_flaw,
    unpack_code="tl1",
    tiles_open=63,  # 126 * 2 * 128 is less than 2**15
    color="#009E73",
    marker="^",
)
