"""Types of weights: matrices of one model may differ in encoding, group and levels."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ternops.absmean import floor_of
from ternops.decoder.records import PLACED, TYPE
from ternops.decoder.weights import Weights, operand_of
from ternops.kernels.call import Call, Operand
from ternops.kernels.operands import OPERANDS
from ternops.kernels.plan import Plan, kind_of, make_plan


class WeightType(NamedTuple):
    """How a matrix is packed: an encoding, "fp16" or "bf16"; columns that share a scale (0: all of
    a row); what codes stand for."""

    encoding: str
    group: int
    levels: tuple[int, ...]

    @classmethod
    def of(cls, operand: Operand) -> WeightType:
        return cls(operand.encoding, operand.group, operand.levels)

    @property
    def is_blocked(self) -> bool:
        """Whether activations have a step for each group: models with such weights are trained on
        weights alone, and BitNet's with a step a token."""
        return self.group > 0

    def shape_class(self, tokens: int) -> str:
        """Of the products of a pass with so many tokens."""
        return "stream" if tokens == 1 else kind_of(self.encoding, tokens, 0, *self[1:])

    def plan(self, columns: int, shape_class: str) -> Plan:
        return make_plan(self.encoding, columns, shape_class, group=self.group, levels=self.levels)

    def call(self, columns: int, tokens: int, shape_class: str) -> Call:
        """The product with float tokens of a matrix of this type, which is anywhere."""
        operand = Operand(self.encoding, 0, 0, 0, columns, group=self.group, levels=self.levels)
        return Call.of(
            operand, tokens, kind=shape_class, floor=floor_of(self.is_blocked),
            is_blocked=self.is_blocked,
        )  # fmt: skip


def types_of(weights: Weights) -> tuple[WeightType, ...]:
    """Those of all linear layers, in the order in which they come."""
    matrices = (each for layer in weights.layers for each in layer.linear.values())
    return tuple(dict.fromkeys(WeightType.of(operand_of(each)) for each in matrices))


class TypeTable:
    """What a pass of up to `tokens` tokens needs to know of each type: `TYPE` records in `table`.

    lengths: columns of the matrices, one for each of PLACED. shape_classes: one a type.
    calls, plans: of the first length, and of each, type by type.
    """

    def __init__(
        self, types: tuple[WeightType, ...], shape_classes: tuple[str, ...],
        lengths: tuple[int, ...], tokens: int,
    ) -> None:  # fmt: skip
        pairs = list(zip(types, shape_classes, strict=True))
        self.plans = [[each.plan(n, kind) for n in lengths] for each, kind in pairs]
        self.calls = [each.call(lengths[0], tokens, kind) for each, kind in pairs]
        every = [plan for plans in self.plans for plan in plans]
        #: Threads share rows in multiples of it.
        self.row_step = math.lcm(*(plan.row_step for plan in every))
        #: Bytes of a prepared token, and of a thread's scratch.
        self.placed_bytes = max(plan.placed_bytes for plan in every)
        self.scratch_bytes = max(plan.scratch_bytes for plan in every)
        #: Prepared tokens that there is room for.
        self.prepared = max(call.prepared for call in self.calls)
        #: Of a token, the most offsets: one, or one for each group that has a scale.
        self.groups = max(max(lengths) // each.group if each.group else 1 for each in types)
        self.table: Any = np.zeros(len(types), TYPE)
        for row, call, plans in zip(self.table, self.calls, self.plans, strict=True):
            operands: Any = np.zeros((), OPERANDS)
            call.write_apart(operands.reshape(1).view(np.uint8).data, 0, 0, 0, 0, 0, 0)
            for name in set(TYPE.names or ()) & set(OPERANDS.names or ()):
                row[name] = operands[name]
            for name, plan in zip(PLACED, plans, strict=True):
                row[name] = plan.placed_bytes
            row["unit"] = plans[0].unit
            if tokens == 1:
                row["streams"], row["panel"] = plans[0].streams, plans[0].panel
