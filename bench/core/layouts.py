"""Where a packed matrix has its weights, found by asking the packer: which bits of which byte
change with one weight."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ternops.encodings.common import SLACK, Array
from ternops.encodings.encoding import Encoding


class BitField(NamedTuple):
    """Bits of one byte, which belong to the same weights of one row.

    low, width: the lowest of the bits, and how many. columns: of the weights. base: the number in
    these bits where all weights are 0 (or, of levels without 0, the lowest). places: for each
    weight, what its next level adds to that; all 0 of a bit that is a sign.
    """

    low: int
    width: int
    row: int
    columns: tuple[int, ...]
    base: int
    places: tuple[int, ...]

    @property
    def is_sign(self) -> bool:
        """Of a tuple of weights, whose number is in other bits."""
        return len(self.columns) > 1 and not any(self.places)

    @property
    def are_digits(self) -> bool:
        """Whether the weights are no neighbours: digits of one number."""
        return self.columns[-1] - self.columns[0] >= len(self.columns)


@dataclass(frozen=True)
class Layout:
    """The packed bytes of a matrix: byte i has the parts bytes[i], the highest bits first."""

    encoding: Encoding
    rows: int
    columns: int
    bytes: tuple[tuple[BitField, ...], ...]


def find(encoding: Encoding, rows: int, columns: int) -> Layout:
    """Ask the packer about every weight of a matrix (rows, columns).

    rows: 1, or as many as the encoding packs together.
    """
    changed = _bits_changed(encoding, rows, columns)
    owners = np.ascontiguousarray(changed.reshape(rows * columns, -1).T)
    base, added = _places(encoding, rows, columns)
    found = []
    for byte, owned in enumerate(owners):
        parts = []
        for bits, weights in _apart(owned):
            low, width, (row,) = bits[0], len(bits), {weight // columns for weight in weights}
            assert bits == tuple(range(low, low + width)), bits
            part = BitField(
                low, width, row, tuple(weight % columns for weight in weights),
                int(base[byte]) >> low & (1 << width) - 1,
                tuple(int(added[row, weight % columns, byte]) >> low for weight in weights),
            )  # fmt: skip
            parts.append(part)
        found.append(tuple(reversed(parts)))
    return Layout(encoding, rows, columns, tuple(found))


def _apart(changed: Array) -> list[tuple[tuple[int, ...], list[int]]]:
    """uint8 (weights,), the bits of a byte that change with each -> bits that have a weight in
    common, and the numbers of their weights."""
    numbers = np.flatnonzero(changed)
    groups: list[tuple[tuple[int, ...], set[int]]] = []
    for bit in range(8):
        bits: tuple[int, ...] = (bit,)
        weights = set(numbers[changed[numbers] >> bit & 1 == 1].tolist())
        for each in [each for each in groups if each[1] & weights]:
            groups.remove(each)
            bits, weights = (*each[0], *bits), each[1] | weights
        if weights:
            groups.append((bits, weights))
    return [(bits, sorted(weights)) for bits, weights in groups]


def _bits_changed(encoding: Encoding, rows: int, columns: int) -> Array:
    """uint8 (rows, columns, bytes): which bits of each byte ever change with a weight."""
    levels = np.array(encoding.values, np.int8)
    random = np.random.default_rng(0)
    matrices = [*random.choice(levels, (2, rows, columns))]
    if len(levels) < 4:  # that may share bits: what changes then depends on the neighbours
        matrices += [np.full((rows, columns), level) for level in levels]
    owners = np.zeros((rows, columns, encoding.nbytes(rows, columns)), np.uint8)
    for values in matrices:
        before = _pack_each(encoding, values[None])
        for row in range(rows):
            for other in _others(len(levels), np.searchsorted(levels, values[row])):
                changed = _one_changed(values, row, levels[other])
                owners[row] |= before ^ _pack_each(encoding, changed)
    return owners


def _others(count: int, codes: Array) -> Iterator[Array]:
    """Codes in the place of those of a row, of so many, that together flip every bit of each."""
    if count < 4:
        yield from ((codes + step) % count for step in range(1, count))
    else:
        steps = [1 << bit for bit in range(8) if 1 << bit < count]
        yield from (np.where(codes ^ step < count, codes ^ step, codes) for step in steps)


def _places(encoding: Encoding, rows: int, columns: int) -> tuple[Array, Array]:
    """The bytes of a matrix of zeros, and int64 (rows, columns, bytes): what the next level of a
    weight alone adds to each."""
    rest = _rest(encoding)
    values = np.full((rows, columns), rest)
    level = np.int8(encoding.values[encoding.values.index(rest) + 1])
    base = _pack_each(encoding, values[None])[0].astype(np.int64)
    changed = (_one_changed(values, row, np.full(columns, level)) for row in range(rows))
    return base, np.stack([_pack_each(encoding, each) - base for each in changed])


def _rest(encoding: Encoding) -> np.int8:
    return np.int8(0 if 0 in encoding.values else encoding.values[0])


def _one_changed(values: Array, row: int, levels: Array) -> Array:
    """(columns, rows, columns): matrix i is `values` but for weight i of a row, which is
    levels[i]."""
    at = np.arange(len(levels))
    changed = np.repeat(values[None], len(levels), axis=0)
    changed[at, row, at] = levels
    return changed


def _pack_each(encoding: Encoding, matrices: Array) -> npt.NDArray[np.uint8]:
    """int8 (n, rows, columns) -> uint8 (n, bytes): whole groups of rows are packed one by one."""
    n, rows, columns = matrices.shape
    packed = encoding.pack(matrices.reshape(n * rows, columns))[:-SLACK]
    return packed.reshape(n, encoding.nbytes(rows, columns))
