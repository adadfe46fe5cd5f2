"""What the look-up encodings share: tuples of weights become indices into tables of sums.

A tuple of neighbouring weights is a number in balanced ternary, as (w0, w1, w2) is
9 w0 + 3 w1 + w2; a 4-bit index stands for it. Rows come in groups of 64; the last group may have
fewer, and no row is padded. A group is a sequence of tiles, each of the same few columns of all
its rows. A tile is one or more lines, and byte r of a line belongs to row r of the group: a vector
holds indices of 64 rows that look into one table. Columns are padded to whole tiles with zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import lcm, prod

import numpy as np
import numpy.typing as npt

from ternops.encodings.common import PIECE, SLACK, Array, digits, number, padded, spans
from ternops.encodings.encoding import Encoding

ROWS = 64


@dataclass(frozen=True, kw_only=True)
class RowGroups(Encoding):
    """A look-up encoding, which differs from others in what a tile is.

    weights: of a tuple. tuples: of a row in a tile. lines: of a tile. entries: the numbers that a
    table has sums for; of others, it has the negative. join, split: numbers (tuples, ...) -> bytes
    (lines, ...), and back.
    tiles_open: sums of as many tiles fit int16.
    Its kernel code has TABLE_BYTES, write_table(x, target), which writes the table of the tuple of
    int8 at x, and add_tile(sums, line, width, tables), which adds one tile of a vector's rows:
    `width` bytes lie from line to line. unpack_tile(weights, width, target) writes the codes of 16
    rows: a vector for each four columns, a row a lane.
    """

    weights: int
    tuples: int
    lines: int
    entries: range
    join: Callable[[Array], Array]
    split: Callable[[Array], Array]
    tiles_open: int

    @property
    def bits(self) -> float:
        return 8 * self.lines / self.columns

    @property
    def columns(self) -> int:
        """Of a tile."""
        return self.tuples * self.weights

    @property
    def block(self) -> int:
        """The fewest whole tiles that are whole vectors of 64 columns."""
        return lcm(self.columns, 64)

    @property
    def fields(self) -> int:
        """Vectors of 64 columns in a block."""
        return self.block // 64

    def tiles(self, columns: int) -> int:
        """Tiles of a row."""
        return -(-columns // self.columns)

    def nbytes(self, rows: int, columns: int) -> int:
        return rows * self.lines * self.tiles(columns)

    def pack(self, values: npt.NDArray[np.int8]) -> npt.NDArray[np.uint8]:
        rows, columns = values.shape
        packed = np.zeros(self.nbytes(rows, columns) + SLACK, np.uint8)
        for start, stop in spans(0, rows, ROWS):
            tuples = self._tuples(values[start:stop]).transpose(3, 2, 1, 0)
            lines = self.join(number(tuples))
            self._group(packed, start, stop, columns)[:] = np.moveaxis(lines, 0, 1)
        return packed

    def unpack(
        self,
        packed: npt.NDArray[np.uint8],
        rows: int,
        columns: int,
        first: int = 0,
        last: int | None = None,
    ) -> npt.NDArray[np.int8]:
        last = rows if last is None else last
        trits = np.empty((last - first, columns), np.int8)
        for part, numbers in self._numbers(packed, rows, columns, first, last):
            tuples = np.moveaxis(self._trits(numbers), 0, 2)
            trits[part] = tuples.reshape(len(numbers), -1)[:, :columns]
        return trits

    def tables(self, activations: npt.NDArray[np.int8]) -> npt.NDArray[np.int16]:
        """Activations (m, k) -> (m, tuples, entries): each tuple's sums, for every index.

        The tuples are those of the padded columns, as many as a packed row has indices.
        """
        tuples = self._tuples(activations)
        m, tiles = tuples.shape[:2]
        tuples = tuples.reshape(m, tiles * self.tuples, self.weights)
        return tuples @ self._trits(np.array(self.entries, np.int8)).astype(np.int16)

    def multiply(
        self,
        packed: npt.NDArray[np.uint8],
        rows: int,
        columns: int,
        activations: npt.NDArray[np.int8],
    ) -> npt.NDArray[np.int32]:
        """activations (m, columns) @ trits.T -> (m, rows), by looking every index up."""
        tables = self.tables(activations)
        sums = np.empty((len(activations), rows), np.int32)
        for part, numbers in self._numbers(packed, rows, columns, 0, rows):
            sign = np.where(numbers < self.entries.start, -1, 1)
            index = sign * numbers - self.entries.start
            found = sign * tables[:, np.arange(tables.shape[1]), index]
            sums[:, part] = found.sum(axis=-1)
        return sums

    def by_rows(self, packed: npt.NDArray[np.uint8], rows: int, columns: int) -> list[Array]:
        lines = self.tiles(columns) * self.lines
        return [
            part.reshape(len(part), lines, part.shape[-1]).swapaxes(1, 2)
            for part in self._parts(packed, rows, columns)
        ]

    def pieces(self, packed: npt.NDArray[np.uint8], rows: int, columns: int) -> Iterator[Array]:
        """As (lines, tiles, rows of a group)."""
        for part in self._parts(packed, rows, columns):
            tiles = part.reshape(-1, self.lines, part.shape[-1])
            for first, last in spans(0, len(tiles), PIECE // (self.lines * ROWS)):
                yield np.moveaxis(tiles[first:last], 1, 0)

    def _parts(self, packed: Array, rows: int, columns: int) -> Iterator[Array]:
        """The bytes of whole groups, and those of the last one if it is not: (groups, tiles, lines,
        rows of a group)."""
        whole = rows - rows % ROWS
        for start, stop, width in ((0, whole, ROWS), (whole, rows, rows % ROWS)):
            if start < stop:
                part = packed[self.nbytes(start, columns) : self.nbytes(stop, columns)]
                shape = (stop - start) // width, self.tiles(columns), self.lines, width
                yield part.reshape(shape)

    def _group(self, packed: Array, start: int, stop: int, columns: int) -> Array:
        """The bytes of the group that is the rows start..stop: (tiles, lines, rows)."""
        group = packed[self.nbytes(start, columns) : self.nbytes(stop, columns)]
        return group.reshape(self.tiles(columns), self.lines, stop - start)

    def _tuples(self, matrix: Array) -> Array:
        """(rows, columns) -> (rows, tiles, tuples, weights), padded."""
        rows, columns = matrix.shape
        shape = self.tiles(columns), self.tuples, self.weights
        return padded(matrix, prod(shape)).reshape(rows, *shape)

    def _numbers(
        self, packed: Array, rows: int, columns: int, first: int, last: int
    ) -> Iterator[tuple[slice, Array]]:
        """Group by group, where its rows are in first..last, and their (rows, tuples) numbers."""
        for start, stop in spans(first, last, ROWS):
            top = start - start % ROWS
            group = self._group(packed, top, min(top + ROWS, rows), columns)
            lines = np.moveaxis(group[:, :, start - top : stop - top], 1, 0)
            numbers = self.split(lines).transpose(2, 1, 0)
            yield slice(start - first, stop - first), numbers.reshape(stop - start, -1)

    def _trits(self, numbers: Array) -> Array:
        """Numbers (...) -> the trits (weights, ...) of their tuples."""
        # Adding 1 to each digit makes them those of ordinary base 3.
        ones = number(np.ones(self.weights, np.int8))
        return digits((numbers + ones).view(np.uint8), self.weights).view(np.int8) - 1


def join_nibbles(indices: Array) -> Array:
    """4-bit indices (2 n, ...) -> bytes (n, ...); the even one of two is in the low nibble."""
    return (indices[0::2] | indices[1::2] << 4).view(np.uint8)


def split_nibbles(lines: Array) -> Array:
    """Bytes (n, ...) -> the int8 indices (2 n, ...) of their nibbles."""
    pairs = np.stack([lines & 15, lines >> 4], axis=1)
    return pairs.reshape(2 * len(lines), *lines.shape[1:]).view(np.int8)
