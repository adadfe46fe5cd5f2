"""Panels: how a matrix with a scale a group of its columns is packed, and every matrix in the
encodings that have no other layout.

Rows come in panels of 16; the last one is filled up with rows whose codes are 0. A row is cut into
blocks as in `blocks`, but for the last, shorter one, whose stride is a multiple of four bytes. A
line of 64 bytes has the same four bytes of all 16 rows of a panel, one row behind the other, and
the lines of a panel follow the columns: 32-bit lanes of a vector are rows, so that the sums of a
group need no adding up across lanes before they meet their scales, and all reading is in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from ternops.encodings.blocks import BLOCK_BYTES, Blocks, PanelTile, Unpack
from ternops.encodings.common import PIECE, SLACK, Array, spans
from ternops.encodings.encoding import Encoding, code_of

ROWS = 16  #: of a panel
GROUPS = (16, 32, 64, 128, 256)  #: columns that may share a scale
#: The greatest code of a table of levels.
MAX_CODE = 15
_DWORD = 4
LINE = ROWS * _DWORD


@dataclass(frozen=True, kw_only=True)
class Panels(Encoding):
    """An encoding by panels, which differs from others in what the bytes of a column are.

    fields: weights of a byte, or of `planes` bytes together, each of a line of its own: the lines
    of the same columns follow one another. join, split: codes (fields, ...) -> bytes (...), or,
    of several planes, (planes, ...), and back.
    apart: by tier, how many fields may have their sums where they are in the byte.
    panel_tiles: by tier and family, for one token. usual_groups: those whose kernels are compiled
    before they are asked for. blocks: the same where rows are whole, if there is such an encoding.
    """

    fields: int
    planes: int = 1
    join: Callable[[Array], Array]
    split: Callable[[Array], Array]
    apart: Mapping[str, int] = field(default_factory=lambda: {"generic": 1})
    panel_tiles: Mapping[str, PanelTile]
    usual_groups: tuple[int, ...] = (64, 128)
    blocks: Blocks | None = None

    @classmethod
    def of(cls, blocks: Blocks) -> Panels:
        """Those of a block encoding, whose name they have."""
        return cls(
            name=blocks.name, find_flaw=blocks.find_flaw, unpack_code=blocks.unpack_code,
            color=blocks.color, marker=blocks.marker, values=blocks.values, codes=blocks.codes,
            unpacks_slowly=blocks.unpacks_slowly, fields=blocks.fields,
            join=blocks.join, split=blocks.split,
            apart={tier: tile.apart for tier, tile in blocks.tiles.items()},
            panel_tiles=blocks.panel_tiles, blocks=blocks,
        )  # fmt: skip

    @property
    def bits(self) -> float:
        return 8 * self.planes / self.fields

    @property
    def block(self) -> int:
        """Weights of a whole block of a row."""
        return self.fields * BLOCK_BYTES

    @property
    def block_bytes(self) -> int:
        """Bytes of a whole block of a row."""
        return self.planes * BLOCK_BYTES

    @property
    def has_levels(self) -> bool:
        """Whether products take levels in the place of codes, which have too wide a range."""
        return self.is_table or self.greatest > MAX_CODE

    def make_unpack(self, apart: int, width: Any, is_signed: bool = False) -> Unpack:
        """The kernel code for vectors of a `ternops.isa.Width`; is_signed: of levels, as int8."""
        unpack: Unpack = self.kernel_code.make_unpack(self.fields, apart, width)
        if not self.has_levels and not is_signed:
            return unpack
        levels = import_module("ternops.encodings.unpack.levels")
        found: Unpack = levels.with_levels(unpack, self.greatest <= MAX_CODE, is_signed, width)
        return found

    def tail_bytes(self, columns: int) -> int:
        """Of a plane of the last block of a row, if it is shorter: the stride of its fields."""
        return -(-(columns % self.block) // (self.fields * _DWORD)) * _DWORD

    def row_bytes(self, columns: int) -> int:
        """Bytes of one packed row."""
        return self.planes * (columns // self.block * BLOCK_BYTES + self.tail_bytes(columns))

    def nbytes(self, rows: int, columns: int) -> int:
        return -(-rows // ROWS) * ROWS * self.row_bytes(columns)

    def pack(
        self, values: npt.NDArray[np.int8], levels: Sequence[int] | None = None
    ) -> npt.NDArray[np.uint8]:
        rows, columns = values.shape
        packed = np.zeros(self.nbytes(rows, columns) + SLACK, np.uint8)
        code = code_of(levels or self.values)
        for start, stop in spans(0, rows, rows_at_once(columns)):
            codes = code[values[start:stop].view(np.uint8)]
            for weights, lines in self._cut(packed, start, stop, columns):
                panels, blocks, steps = lines.shape[:3]
                whole = np.zeros((panels * ROWS, blocks * self.fields * steps * _DWORD), np.uint8)
                part = codes[:, weights]
                whole[: stop - start, : part.shape[1]] = part
                shape = panels, ROWS, blocks, self.fields, steps, _DWORD
                table = self._planes(self.join(np.moveaxis(whole.reshape(shape), 3, 0)))
                lines[:] = table.transpose(1, 3, 4, 0, 2, 5)
        return packed

    def unpack(
        self,
        packed: npt.NDArray[np.uint8],
        rows: int,
        columns: int,
        first: int = 0,
        last: int | None = None,
        levels: Sequence[int] | None = None,
    ) -> npt.NDArray[np.int8]:
        last = rows if last is None else last
        level = np.zeros(256, np.int8)
        level[: len(levels or self.values)] = levels or self.values
        values = np.empty((last - first, columns), np.int8)
        for start, stop in spans(first, last, rows_at_once(columns)):
            top = start // ROWS * ROWS
            for weights, lines in self._cut(packed, top, stop, columns):
                table = lines.transpose(3, 0, 4, 1, 2, 5)
                codes = np.moveaxis(self.split(self._bytes(table)), 0, 3)
                part = level[codes.reshape(len(lines) * ROWS, -1)]
                part = part[start - top : stop - top, : weights.stop - weights.start]
                values[start - first : stop - first, weights] = part
        return values

    def by_rows(self, packed: npt.NDArray[np.uint8], rows: int, columns: int) -> list[Array]:
        words = packed[: self.nbytes(rows, columns)].view(np.uint32)
        shape = -(-rows // ROWS), self.row_bytes(columns) // _DWORD, ROWS
        return [words.reshape(shape).swapaxes(1, 2)]

    def pieces(self, packed: npt.NDArray[np.uint8], rows: int, columns: int) -> Iterator[Array]:
        """As `split` takes them."""
        whole = LINE * self.planes
        for start, stop in spans(0, self.nbytes(rows, columns), PIECE // whole * whole):
            table = np.moveaxis(packed[start:stop].reshape(-1, self.planes, LINE), 1, 0)
            yield self._bytes(table)

    def check_codes(self, packed: Array, rows: int, columns: int, levels: int) -> None:
        """`check` of a matrix that has so many levels."""
        if levels == len(self.values):
            self.check(packed, rows, columns)
            return
        for piece in self.pieces(packed, rows, columns):
            if (greatest := self.split(piece).max(initial=0)) >= levels:
                raise ValueError(
                    f"packed: holds the code {greatest}, expected 0 to {levels - 1} "
                    f"(not {self.name}?)"
                )

    def _planes(self, table: Array) -> Array:
        """What `join` gives as (planes, ...)."""
        return table if self.planes > 1 else table[None]

    def _bytes(self, table: Array) -> Array:
        """(planes, ...) as `split` takes it."""
        return table if self.planes > 1 else table[0]

    @property
    def widened(self) -> Panels:
        """The same with as many values as a matrix may have levels: sums must have room for all."""
        return replace(self, values=tuple(range(self.codes))) if self.codes else self

    def _cut(
        self, packed: Array, start: int, stop: int, columns: int
    ) -> Iterator[tuple[slice, Array]]:
        """The columns of all whole blocks, and those of the shorter one, with their bytes in the
        panels of rows [start, stop): (panels, blocks, steps, planes, rows, 4)."""
        row = self.row_bytes(columns)
        panels = -(-(stop - start) // ROWS)
        lines = packed[start * row : (start + panels * ROWS) * row].reshape(panels, -1)
        whole, tail = columns - columns % self.block, self.tail_bytes(columns)
        middle = whole // self.block * self.block_bytes * ROWS
        for weights, part, size in (
            (slice(0, whole), lines[:, :middle], BLOCK_BYTES),
            (slice(whole, columns), lines[:, middle:], tail),
        ):
            if weights.start < weights.stop:
                yield weights, part.reshape(panels, -1, size // _DWORD, self.planes, ROWS, _DWORD)


def rows_at_once(columns: int) -> int:
    """Whole panels of about PIECE weights, of which values are made at a time."""
    return max(1, PIECE // max(1, columns) // ROWS) * ROWS


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
