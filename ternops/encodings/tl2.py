"""tl2: triples of trits as a 4-bit index into a table of 14 sums and a sign, 1.667 bits a weight.

The meaning is TL2's of bitnet.cpp (arXiv 2410.16144, 2502.11880), the order is made for vectors of
64 bytes. A triple of neighbouring weights is the number 9 w0 + 3 w1 + w2; its index is the number
without its sign, 0 to 13, its sign is 1 if the number is negative. A tile is 5 lines for 24 columns
(`row_groups`): in the lines j = 0 to 3, a byte's low nibble is the index of triple 2 j, its high
nibble that of triple 2 j + 1; in the last line, bit t of a byte is the sign of triple t.
"""

from __future__ import annotations

import numpy as np

from ternops.encodings.common import Array
from ternops.encodings.row_groups import RowGroups, join_nibbles, split_nibbles

_NUMBERS = range(14)


def _find_flaw(lines: Array) -> str | None:
    indices, signs = _fields(lines)
    if indices.max() >= len(_NUMBERS):
        return f"the index {indices.max()}, expected 0 to 13"
    return "a sign of the index 0, expected none" if np.any(signs > indices) else None


def _join(numbers: Array) -> Array:
    indices = join_nibbles(abs(numbers))
    signs = np.packbits(numbers < 0, axis=0, bitorder="little")
    return np.concatenate([indices, signs])


def _split(lines: Array) -> Array:
    indices, signs = _fields(lines)
    return np.where(signs, -indices, indices)


def _fields(lines: Array) -> tuple[Array, Array]:
    """Lines (5, ...) -> int8 indices and uint8 signs of the triples, (8, ...) each."""
    return split_nibbles(lines[:4]), np.unpackbits(lines[4:], axis=0, bitorder="little")


TL2 = RowGroups(
    name="tl2",
    weights=3,
    tuples=8,
    lines=5,
    entries=_NUMBERS,
    join=_join,
    split=_split,
    find_flaw=_find_flaw,
    unpack_code="tl2",
    tiles_open=10,  # 80 * 3 * 128 is less than 2**15
    color="#CC79A7",
    marker="v",
)
