"""Panels: how a matrix with a scale a group of its columns is packed, in any block encoding.

Rows come in panels of 16; the last one is filled up with rows whose codes are 0. A row is cut into
blocks as in `blocks`, but for the last, shorter one, whose stride is a multiple of four bytes. A
line of 64 bytes has the same four bytes of all 16 rows of a panel, one row behind the other, and
the lines of a panel follow the columns: 32-bit lanes of a vector are rows, so that the sums of a
group need no adding up across lanes before they meet their scales, and all reading is in order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ternops.encodings.blocks import BLOCK_BYTES, Blocks
from ternops.encodings.common import PIECE, SLACK, Array, spans
from ternops.encodings.encoding import Encoding

ROWS = 16  #: of a panel
GROUPS = (32, 64, 128, 256)  #: columns that may share a scale
_DWORD = 4
LINE = ROWS * _DWORD


@dataclass(frozen=True, kw_only=True)
class Panels(Encoding):
    """The panels of a block encoding, `blocks`."""

    blocks: Blocks

    @classmethod
    def of(cls, blocks: Blocks) -> Panels:
        """Those of an encoding, whose name they have."""
        return cls(
            name=blocks.name, find_flaw=blocks.find_flaw, unpack_code=blocks.unpack_code,
            color=blocks.color, marker=blocks.marker, values=blocks.values,
            unpacks_slowly=blocks.unpacks_slowly, quantize=blocks.quantize,
            quantize_groups=blocks.quantize_groups, blocks=blocks,
        )  # fmt: skip

    @property
    def bits(self) -> float:
        return self.blocks.bits

    def tail_bytes(self, columns: int) -> int:
        """Of the last block of a row, if it is shorter: the stride of its fields."""
        return -(-self.blocks.tail_bytes(columns) // _DWORD) * _DWORD

    def row_bytes(self, columns: int) -> int:
        """Bytes of one packed row."""
        return columns // self.blocks.block * BLOCK_BYTES + self.tail_bytes(columns)

    def nbytes(self, rows: int, columns: int) -> int:
        return -(-rows // ROWS) * ROWS * self.row_bytes(columns)

    def pack(self, values: npt.NDArray[np.int8]) -> npt.NDArray[np.uint8]:
        rows, columns = values.shape
        packed = np.zeros(self.nbytes(rows, columns) + SLACK, np.uint8)
        for start, stop in spans(0, rows, rows_at_once(columns)):
            lines = self._lines(packed, start, stop, columns)
            # Filled up with what has the code 0, they are the rows of blocks.
            shape = len(lines) * ROWS, self._width(columns)
            whole = np.full(shape, self.values[0], np.int8)
            whole[: stop - start, :columns] = values[start:stop]
            lines[:] = _turned(self.blocks.pack(whole)[:-SLACK].reshape(shape[0], -1))
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
        values = np.empty((last - first, columns), np.int8)
        for start, stop in spans(first, last, rows_at_once(columns)):
            top = start // ROWS * ROWS
            lines = self._lines(packed, top, stop, columns)
            table = _turned_back(lines)[start - top : stop - top]
            whole = self.blocks.unpack(table.reshape(-1), len(table), self._width(columns))
            values[start - first : stop - first] = whole[:, :columns]
        return values

    def _width(self, columns: int) -> int:
        """Columns of a row whose last block is filled up."""
        rest = columns % self.blocks.block
        return columns - rest + self.tail_bytes(columns) * self.blocks.fields

    def _lines(self, packed: Array, start: int, stop: int, columns: int) -> Array:
        """The bytes of whole panels: (panels, lines, rows, 4)."""
        row = self.row_bytes(columns)
        panels = -(-(stop - start) // ROWS)
        part = packed[start * row : (start + panels * ROWS) * row]
        return part.reshape(panels, row // _DWORD, ROWS, _DWORD)


def rows_at_once(columns: int) -> int:
    """Whole panels of about PIECE weights, of which values are made at a time."""
    return max(1, PIECE // max(1, columns) // ROWS) * ROWS


def _turned(table: Array) -> Array:
    """Bytes (rows, bytes of a row) -> (panels, lines, rows, 4)."""
    rows, size = table.shape
    return table.reshape(rows // ROWS, ROWS, size // _DWORD, _DWORD).swapaxes(1, 2)


def _turned_back(lines: Array) -> Array:
    """The inverse of `_turned`."""
    panels, count, rows, _ = lines.shape
    return lines.swapaxes(1, 2).reshape(panels * rows, count * _DWORD)


def turn_scales(scale: Array) -> Array:
    """A scale (rows, groups) -> (panels, groups, 16), as kernels read it; zeros fill the last."""
    rows, groups = scale.shape
    whole = np.zeros((-(-rows // ROWS) * ROWS, groups), scale.dtype)
    whole[:rows] = scale
    return np.ascontiguousarray(whole.reshape(-1, ROWS, groups).swapaxes(1, 2))


def turn_scales_back(factors: Array, rows: int) -> Array:
    """The inverse of `turn_scales`."""
    groups = factors.shape[1]
    return np.ascontiguousarray(factors.swapaxes(1, 2)).reshape(-1, groups)[:rows]
