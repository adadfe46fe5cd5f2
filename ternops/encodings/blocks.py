"""Block encodings: how a row is cut, whatever the number of weights in a byte.

A row is cut into blocks of 64 bytes (one cache line). A byte has `fields` weights, a block 64 times
as many: byte m holds the weights m, m + 64, m + 128, ..., one in each field, so that the same field
of a vector is 64 neighbouring weights. The last, shorter block of r weights has the
stride s = ceil(r / fields) instead of 64 and takes s bytes: a row of k weights is
ceil(k / fields) bytes long. A weight has the code i of its value; codes of no weight are 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ternops.encodings.common import PIECE, SLACK, Array, padded, spans
from ternops.encodings.encoding import Encoding

BLOCK_BYTES = 64


def join_bits(codes: Array) -> Array:
    """Codes (fields, ...) -> bytes (...), the first field in the lowest bits."""
    bits = 8 // len(codes)
    return reduce(np.bitwise_or, (code << bits * field for field, code in enumerate(codes)))


def split_bits(fields: int, table: Array) -> Array:
    """The inverse of `join_bits`."""
    bits = 8 // fields
    return np.stack([table >> bits * field & ((1 << bits) - 1) for field in range(fields)])


class GemvTile(NamedTuple):
    """What the GEMV keeps in registers while it walks along the columns, and how it reads.

    rows: of the matrix at a time, each a stream of its own. apart: how many of a byte's fields are
    left where they are, with an accumulator each; 1: every field is shifted down to one
    accumulator. is_narrow: vectors of `ternops.isa.NARROW` and not the widest. ahead: bytes that
    each stream is prefetched ahead. panel: bytes of weights that a thread's streams share before
    they go on, so that they lie close together; 0: all of them. run: lines of a stream that
    are read before the next stream's, where dots add up int32.
    """

    rows: int
    apart: int
    is_narrow: bool = False
    ahead: int = 4096
    panel: int = 0
    run: int = 1

    def __str__(self) -> str:
        panel = f"p{self.panel >> 10}" if self.panel else ""
        run = f"r{self.run}" if self.run > 1 else ""
        return f"{self.rows}x{self.apart}{'n' if self.is_narrow else 'w'}{self.ahead}{panel}{run}"


class PanelTile(NamedTuple):
    """How the GEMV reads a matrix with a scale a group: panels of `ternops.encodings.panels` at
    once, each a stream of its own, bytes that each is prefetched ahead, and lines of a stream that
    are read before the next stream's, where a register has a line."""

    streams: int
    ahead: int
    run: int

    def __str__(self) -> str:
        return f"{self.streams}x{self.ahead}r{self.run}"


class Unpack(NamedTuple):
    """Kernel code that turns vectors of packed bytes into codes, compiled for one tile.

    hold(held, levels): fills `held`, registers of `holds` vectors, with constants, once; levels:
    the address of a matrix's (`ternops.kernels.levels`).
    open(opened, held): prepares packed bytes, the first of `opened`, registers of `opens` vectors.
    codes(opened, held, field): the codes of a field, a constant. With a < apart accumulators the
    codes of field f belong to accumulator a = f % apart, times 2 ** (shift * a).
    last_factor: 0, or the factor of the last field's codes, which then has one more accumulator.
    """

    holds: int
    opens: int
    hold: Any
    open: Any
    codes: Any
    shift: int
    last_factor: int = 0

    @property
    def last_inverse(self) -> int:
        """What undoes the last field's factor in int32, modulo 2**32; 1 where there is none."""
        return int(np.uint32(pow(self.last_factor or 1, -1, 1 << 32)).view(np.int32))


@dataclass(frozen=True, kw_only=True)
class Blocks(Encoding):
    """A block encoding, which differs from others in what a byte is.

    fields: weights of a byte. join, split: codes (fields, ...) -> bytes (...), and back.
    tiles: by tier, for one token; a tier without an entry uses that of the tier it was made from,
    and "tier@family" is for one family of CPUs (`ternops.isa.tier.FAMILIES`).
    stream_tiles: the same where weights come from memory, where they are others.
    batch_rows: by tier, rows of the tile for a few tokens, where they are not the tier's.
    pair_apart: by tier, `apart` for the tokens that such tiles leave over.
    panel_tiles: as `tiles`, where columns have scales by groups.
    has_narrow: whether tiles may have narrow vectors.
    """

    fields: int
    join: Callable[[Array], Array]
    split: Callable[[Array], Array]
    tiles: Mapping[str, GemvTile]
    batch_rows: Mapping[str, int]
    pair_apart: Mapping[str, int]
    stream_tiles: Mapping[str, GemvTile]
    panel_tiles: Mapping[str, PanelTile]
    has_narrow: bool = False

    @property
    def bits(self) -> float:
        return 8 / self.fields

    def make_unpack(self, apart: int, width: Any) -> Unpack:
        """The kernel code for a tile and vectors of a `ternops.isa.Width`."""
        unpack: Unpack = self.kernel_code.make_unpack(self.fields, apart, width)
        return unpack

    @property
    def block(self) -> int:
        """Weights of a whole block."""
        return self.fields * BLOCK_BYTES

    def tail_bytes(self, columns: int) -> int:
        """Of the last block of a row, if it is shorter: the stride of its fields."""
        return -(-(columns % self.block) // self.fields)

    def row_bytes(self, columns: int) -> int:
        """Bytes of one packed row."""
        return -(-columns // self.fields)

    def nbytes(self, rows: int, columns: int) -> int:
        return rows * self.row_bytes(columns)

    def pack(self, values: npt.NDArray[np.int8]) -> npt.NDArray[np.uint8]:
        rows, columns = values.shape
        packed = np.zeros(self.nbytes(rows, columns) + SLACK, np.uint8)
        table = self._table(packed, rows, columns)
        for start, stop in spans(0, rows, self._step(columns)):
            codes = (values[start:stop] - np.int8(self.values[0])).view(np.uint8)
            if self.step > 1:
                codes //= np.uint8(self.step)
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
        last = rows if last is None else last
        table = self._table(packed, rows, columns)[first:last]
        values = np.empty((last - first, columns), np.int8)
        for start, stop in spans(0, last - first, self._step(columns)):
            for weights, places, stride in self._cut(columns):
                codes = self.split(table[start:stop, places].reshape(stop - start, -1, stride))
                part = np.moveaxis(codes, 0, 2).reshape(stop - start, -1).view(np.int8)
                values[start:stop, weights] = part[:, : weights.stop - weights.start]
            if self.step > 1:
                values[start:stop] *= np.int8(self.step)
            values[start:stop] += np.int8(self.values[0])
        return values

    def by_rows(self, packed: npt.NDArray[np.uint8], rows: int, columns: int) -> list[Array]:
        return [self._table(packed, rows, columns)[None]]

    def place(self, activations: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
        """Activations (m, k) in the order in which a kernel meets them: m rows of whole blocks.

        Whole blocks stay as they are; in the last one, field f's activations start at 64 f, and
        zeros stand where the vector holds no weight of this row.
        """
        m, columns = activations.shape
        block = self.block
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
        rest = columns % self.block
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
