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
from ternops.encodings.lookup import (
    TABLE_OF_WORDS,
    add_triple,
    patterns,
    weighted,
    write_entries,
)
from ternops.encodings.row_groups import RowGroups, join_nibbles, split_nibbles
from ternops.isa import u8
from ternops.simd import Vector, full, inlined, load, store

_NUMBERS = range(14)
_TABLE_BYTES = 64 if TABLE_OF_WORDS else 32
_i16x16 = Vector("i16", 16)


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


# An index in balanced ternary: i = 9 w0 + 3 w1 + w2, so (i + 1) // 3 = 3 w0 + w1.
_PREFIXES = [(i, (i + 1) // 3, (i + 4) // 9) for i in _NUMBERS]
_pattern0, _pattern1, _pattern2 = patterns(
    [(w0, w01 - 3 * w0, i - 3 * w01) for i, w01, w0 in _PREFIXES]
)


@inlined
def _write_table(x, target):
    entries = weighted(x, 0, _pattern0()) + weighted(x, 1, _pattern1())
    entries = entries + weighted(x, 2, _pattern2())
    write_entries(entries, target)
    if TABLE_OF_WORDS:
        store(target + 32, full(_i16x16, 0) - entries)


@inlined
def _add_tile(sums, weights, width, tables):
    """Five lines of a vector's rows: eight triples."""
    signs = load(u8, weights + 4 * width)
    for j in range(4):
        line = load(u8, weights + j * width)
        for half in range(2):
            t = 2 * j + half
            add_triple(sums, line, half, signs, t, tables + t * _TABLE_BYTES)


TL2 = RowGroups(
    name="tl2",
    weights=3,
    tuples=8,
    lines=5,
    entries=_NUMBERS,
    join=_join,
    split=_split,
    find_flaw=_find_flaw,
    table_bytes=_TABLE_BYTES,
    write_table=_write_table,
    add_tile=_add_tile,
    tiles_open=10,  # 80 * 3 * 128 is less than 2**15
    color="#CC79A7",
    marker="v",
)
