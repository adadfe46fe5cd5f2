"""What the block encodings share: how a row is cut, whatever the number of weights in a byte.

A row is cut into blocks of 64 bytes (one cache line). A byte has so many fields, a block 64 times
as many weights: byte m holds the weights m, m + 64, m + 128, ..., one in each field, so that the
same field of a vector is 64 neighbouring weights. The last, shorter block of r weights has the
stride s = ceil(r / fields) instead of 64 and takes s bytes: a row of k weights is
ceil(k / fields) bytes long. A weight w has the code w + 1; codes of no weight are 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ternops.encodings.common import PIECE, SLACK, Array, padded, spans

BLOCK_BYTES = 64


@dataclass(frozen=True)
class Blocks:
    """The functions of a block encoding, which differs from others in what a byte is."""

    fields: int
    join: Callable[[Array], Array]  # codes (fields, ...) -> bytes (...)
    split: Callable[[Array], Array]  # and back

    def row_bytes(self, columns: int) -> int:
        """Bytes of one packed row."""
        return -(-columns // self.fields)

    def nbytes(self, rows: int, columns: int) -> int:
        """Bytes of the packed rows, without slack."""
        return rows * self.row_bytes(columns)

    def pack(self, trits: npt.NDArray[np.int8]) -> npt.NDArray[np.uint8]:
        """int8 (rows, columns) of -1, 0, 1 -> uint8 (nbytes + SLACK,)."""
        rows, columns = trits.shape
        packed = np.zeros(self.nbytes(rows, columns) + SLACK, np.uint8)
        table = self._table(packed, rows, columns)
        for start, stop in spans(0, rows, self._step(columns)):
            codes = (trits[start:stop] + 1).view(np.uint8)
            for weights, places, stride in self._cut(columns):
                fields = np.moveaxis(self._fields(codes[:, weights], stride), 2, 0)
                table[start:stop, places] = self.join(fields).reshape(stop - start, -1)
        return packed

    def unpack(
        self,
        packed: npt.NDArray[np.uint8],
        rows: int,
        columns: int,
        first: int = 0,
        last: int | None = None,
    ) -> npt.NDArray[np.int8]:
        """The inverse of `pack`: the rows first..last of `rows`, int8 (last - first, columns)."""
        last = rows if last is None else last
        table = self._table(packed, rows, columns)[first:last]
        trits = np.empty((last - first, columns), np.int8)
        for start, stop in spans(0, last - first, self._step(columns)):
            for weights, places, stride in self._cut(columns):
                codes = self.split(table[start:stop, places].reshape(stop - start, -1, stride))
                part = np.moveaxis(codes, 0, 2).reshape(stop - start, -1).view(np.int8)
                trits[start:stop, weights] = part[:, : weights.stop - weights.start]
            trits[start:stop] -= 1
        return trits

    def place(self, activations: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
        """Activations (m, k) in the order in which a kernel meets them: m rows of whole blocks.

        Whole blocks stay as they are; in the last one, field f's activations start at 64 f, and
        zeros stand where the vector holds no weight of this row.
        """
        m, columns = activations.shape
        block = self.fields * BLOCK_BYTES
        blocks = -(-columns // block)
        placed = np.zeros((m, blocks, self.fields, BLOCK_BYTES), np.int8)
        for weights, _, stride in self._cut(columns):
            fields = self._fields(activations[:, weights], stride)
            start = weights.start // block
            placed[:, start : start + fields.shape[1], :, :stride] = fields
        return placed.reshape(m, blocks * block)

    def _table(self, packed: Array, rows: int, columns: int) -> Array:
        return packed[: self.nbytes(rows, columns)].reshape(rows, self.row_bytes(columns))

    def _step(self, columns: int) -> int:
        return max(1, PIECE // max(1, columns))

    def _cut(self, columns: int) -> Iterator[tuple[slice, slice, int]]:
        """(weights, places of their bytes, stride) of all whole blocks, and of the shorter one."""
        rest = columns % (self.fields * BLOCK_BYTES)
        whole = columns - rest
        for start, stop, stride in (
            (0, whole, BLOCK_BYTES),
            (whole, columns, self.row_bytes(rest)),
        ):
            if start < stop:
                yield slice(start, stop), slice(start // self.fields, self.row_bytes(stop)), stride

    def _fields(self, part: Array, stride: int) -> Array:
        """One item of `_cut`, (rows, weights), as (rows, blocks, fields, stride)."""
        rows, weights = part.shape
        blocks = -(-weights // (self.fields * stride))
        whole = padded(part, blocks * self.fields * stride)
        return whole.reshape(rows, blocks, self.fields, stride)
