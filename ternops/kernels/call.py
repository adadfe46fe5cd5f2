"""The one maker of OPERANDS records: for products, the decoder, the cost model and benchmarks."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple

from ternops.absmean import MIN_ABSMAX
from ternops.kernels.levels import levels_of
from ternops.kernels.operands import CHANGING, FIXED, WHOLE
from ternops.kernels.plan import Plan, kind_of, make_plan

# They pack the two parts of a record faster than NumPy assigns its fields.
_FIXED, _CHANGING = struct.Struct(f"=d{len(FIXED)}q"), struct.Struct(f"={len(CHANGING)}q")


class Operand(NamedTuple):
    """A matrix in memory, (rows, columns): its bytes, and the float32 scales that belong to it.

    encoding: an encoding, or a name of `ternops.kernels.plan.UNPACKED`. scales: an address;
    scale_step: bytes from the scale of a row to that of the next, 0 for one of all rows, -1 for
    int32 sums that are not scaled.
    group: columns that share a scale, 0 for all; scales are then float16 or float32, as
    `ternops.encodings.panels.turn_scales` orders them, of scale_step bytes each.
    levels: what codes stand for, by default the encoding's values.
    """

    encoding: str
    address: int
    nbytes: int
    rows: int
    columns: int
    scales: int = 0
    scale_step: int = -1
    group: int = 0
    levels: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Call:
    """A product of one matrix with some tokens, but for where the arrays are.

    scratch_bytes: of each thread. prepared: room for this many prepared tokens. placed_bytes: of
    all of them. offsets_bytes: of the offsets of all of them, and as many of their steps.
    """

    fixed: bytes
    scratch_bytes: int
    prepared: int
    placed_bytes: int
    offsets_bytes: int

    @classmethod
    def of(
        cls,
        matrix: Operand,
        tokens: int,
        is_float: bool = True,
        *,
        kind: str | None = None,
        plan: Plan | None = None,
        floor: float = MIN_ABSMAX,
        out_stride: int | None = None,
        is_blocked: bool = False,
    ) -> Call:
        """The product of `tokens` tokens, float32 or int8.

        kind: a shape class, by default that of the sizes. plan: for these columns, by default that
        of the shape class. floor: the least max|x| of a token.
        out_stride: elements from token to token in the result, by default as many as rows.
        is_blocked: a float token has a step for each group of columns.
        """
        if plan is None:
            kind = kind or kind_of(
                matrix.encoding, tokens, matrix.nbytes, matrix.group, matrix.levels
            )
            plan = make_plan(
                matrix.encoding, matrix.columns, kind, group=matrix.group, levels=matrix.levels
            )
        levels = levels_of(matrix.encoding, matrix.levels)
        bits = matrix.group.bit_length() - 1 if matrix.group else WHOLE
        values = {
            "prepare": plan.prepare, "multiply": plan.multiply, "row_step": plan.row_step,
            "weights": matrix.address, "stride": plan.stride, "rows": matrix.rows,
            "columns": matrix.columns, "fields": plan.fields,
            "bias": levels.bias if plan.is_biased else 0,
            "scales": matrix.scales, "scale_step": matrix.scale_step, "is_float": is_float,
            "tokens": tokens, "token_block": plan.token_block, "placed_stride": plan.placed_bytes,
            "out_stride": out_stride or matrix.rows, "scratch_stride": plan.scratch_bytes,
            "group_bits": bits, "is_blocked": is_blocked, "levels": levels.table,
            "shift": levels.shift,
        }  # fmt: skip
        prepared = -(-tokens // plan.token_step) * plan.token_step
        return cls(
            _FIXED.pack(floor, *(values[name] for name in FIXED)),
            plan.scratch_bytes,
            prepared,
            prepared * plan.placed_bytes,
            4 * prepared * (matrix.columns // matrix.group if matrix.group else 1),
        )

    def memory_bytes(self, threads: int) -> int:
        """Of the memory that `write` takes."""
        return threads * self.scratch_bytes + self.placed_bytes + 2 * self.offsets_bytes

    def write(self, record: memoryview, x: int, out: int, memory: int, threads: int) -> None:
        """Fill in a record for arrays at these addresses; memory: a multiple of 64."""
        placed = memory + threads * self.scratch_bytes
        offsets = placed + self.placed_bytes
        self.write_apart(record, x, out, placed, offsets, offsets + self.offsets_bytes, memory)

    def write_apart(
        self, record: memoryview, x: int, out: int, placed: int, offsets: int, steps: int,
        scratch: int, listed: int = 0,
    ) -> None:  # fmt: skip
        """Fill in a record for memory that is not in one piece; see OPERANDS."""
        record[: _FIXED.size] = self.fixed
        _CHANGING.pack_into(record, _FIXED.size, x, out, placed, offsets, steps, scratch, listed)
