"""tl1: pairs of trits as 4-bit indices into tables of 9 sums, 2.0 bits a weight.

The meaning is TL1's of bitnet.cpp (arXiv 2410.16144, 2502.11880), the order is made for vectors of
64 bytes. A pair of neighbouring weights has the index 3 w0 + w1 + 4, 0 to 8. A tile is one line
for 4 columns (`row_groups`): a byte's low nibble is the first pair, its high nibble the second.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ternops.encodings.common import SLACK, Array
from ternops.encodings.row_groups import RowGroups, join_nibbles, split_nibbles

__all__ = ["SLACK", "check", "multiply", "nbytes", "pack", "tables", "unpack"]

_NUMBERS = range(-4, 5)


def check(packed: npt.NDArray[np.uint8], rows: int, columns: int) -> None:
    """Raise ValueError if any index is above 8, which stands for no pair."""
    for lines in _GROUPS.pieces(packed, rows, columns):
        greatest = split_nibbles(lines).max()
        if greatest >= len(_NUMBERS):
            raise ValueError(f"packed: holds the index {greatest}, expected 0 to 8 (not tl1?)")


def _join(numbers: Array) -> Array:
    return join_nibbles(numbers - _NUMBERS.start)


def _split(lines: Array) -> Array:
    return split_nibbles(lines) + _NUMBERS.start


_GROUPS = RowGroups(weights=2, tuples=2, lines=1, entries=_NUMBERS, join=_join, split=_split)
nbytes, pack, unpack = _GROUPS.nbytes, _GROUPS.pack, _GROUPS.unpack
tables, multiply = _GROUPS.tables, _GROUPS.multiply
