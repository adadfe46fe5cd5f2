"""The types of the language: vectors, pointers and registers as Numba values.

Idea: a vector is a Numba type whose data model is an LLVM vector, so a kernel reads
``acc = dot(acc, w & 3, a)`` in plain ``@kernel`` code and LLVM keeps ``acc`` in a register.
Arrays of vectors (``registers``) become registers too once their constant loops are unrolled.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import models, register_model

ELEMENTS: dict[str, ir.Type] = {
    "u8": ir.IntType(8),
    "i8": ir.IntType(8),
    "u16": ir.IntType(16),
    "i16": ir.IntType(16),
    "i32": ir.IntType(32),
    "f16": ir.HalfType(),
    "f32": ir.FloatType(),
}
I32 = ir.IntType(32)
I64 = ir.IntType(64)
BYTE_POINTER = ir.IntType(8).as_pointer()


class VectorType(types.Type):
    """A `ternops.simd.Vector`."""

    def __init__(self, element: str, lanes: int) -> None:
        self.element = element
        self.lanes = lanes
        super().__init__(name=f"{element}x{lanes}")

    @property
    def ir(self) -> ir.VectorType:
        return ir.VectorType(ELEMENTS[self.element], self.lanes)

    @property
    def is_float(self) -> bool:
        return self.element[0] == "f"

    @property
    def is_unsigned(self) -> bool:
        return self.element[0] == "u"

    @property
    def bytes(self) -> int:
        return self.lanes * int(self.element[1:]) // 8


class Pointer(types.Type):
    """An address in memory; ``pointer + n`` moves it by n bytes."""

    def __init__(self) -> None:
        super().__init__(name="pointer")


class Registers(types.Type):
    """A short array of vectors with constant indices, which LLVM turns into registers."""

    def __init__(self, vector: VectorType, count: int) -> None:
        self.vector = vector
        self.count = count
        super().__init__(name=f"registers({vector.name}, {count})")

    @property
    def ir(self) -> ir.ArrayType:
        return ir.ArrayType(self.vector.ir, self.count)


POINTER = Pointer()


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: VectorType) -> None:
        super().__init__(manager, vector, vector.ir)


@register_model(Pointer)
class _PointerModel(models.PrimitiveModel):
    def __init__(self, manager: Any, pointer: Pointer) -> None:
        super().__init__(manager, pointer, BYTE_POINTER)


@register_model(Registers)
class _RegistersModel(models.PrimitiveModel):
    def __init__(self, manager: Any, registers: Registers) -> None:
        super().__init__(manager, registers, registers.ir.as_pointer())


def type_behind(reference: types.Type) -> types.Type | None:
    """The type behind a type named in kernel code, a VectorType or a Numba scalar."""
    inner = getattr(reference, "instance_type", None)
    return inner if isinstance(inner, VectorType | types.Number) else None


def ir_type(context: Any, kind: types.Type) -> ir.Type:
    if kind == types.none:
        return ir.VoidType()
    return kind.ir if isinstance(kind, VectorType) else context.get_value_type(kind)


def splat(builder: ir.IRBuilder, scalar: ir.Value, vector: ir.VectorType) -> ir.Value:
    lane = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.Constant(I32, 0))
    order = ir.Constant(ir.VectorType(I32, vector.count), [0] * vector.count)
    return builder.shuffle_vector(lane, lane, order)


def to_element(context: Any, builder: Any, value: Any, kind: Any, vector: VectorType) -> ir.Value:
    """A scalar of Numba type `kind` as an element of `vector`."""
    element = ELEMENTS[vector.element]
    if vector.is_float:
        return context.cast(builder, value, kind, types.float32)
    wide = context.cast(builder, value, kind, types.int64)
    return builder.trunc(wide, element)


def element_suffix(vector: VectorType) -> str:
    """The element's name inside the names of LLVM intrinsics."""
    return ("f" if vector.is_float else "i") + vector.element[1:]
