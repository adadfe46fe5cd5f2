"""Python's operators on vectors, pointers and registers."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import lower_builtin, type_callable

from ternops.simd.lowering.types import I64, Pointer, Registers, VectorType, splat, to_element

_INTEGER_OPERATORS = {
    operator.add: "add",
    operator.sub: "sub",
    operator.mul: "mul",
    operator.and_: "and_",
    operator.or_: "or_",
    operator.xor: "xor",
    operator.lshift: "shl",
    operator.rshift: "ashr",
}
_FLOAT_OPERATORS = {
    operator.add: "fadd",
    operator.sub: "fsub",
    operator.mul: "fmul",
    operator.truediv: "fdiv",
}


def _register_operator(op: Callable[..., Any]) -> None:
    def allowed(vector: types.Type, other: types.Type) -> bool:
        if not isinstance(vector, VectorType):
            return False
        if op not in (_FLOAT_OPERATORS if vector.is_float else _INTEGER_OPERATORS):
            return False
        return other == vector or isinstance(
            other, types.Number if vector.is_float else types.Integer
        )

    @type_callable(op)
    def typing(context: Any) -> Callable[..., Any]:
        def typer(left: types.Type, right: types.Type) -> types.Type | None:
            return left if allowed(left, right) else None

        return typer

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> ir.Value:
        vector = signature.return_type
        left, right = args
        if not isinstance(signature.args[1], VectorType):
            scalar = to_element(context, builder, right, signature.args[1], vector)
            right = splat(builder, scalar, vector.ir)
        name = (_FLOAT_OPERATORS if vector.is_float else _INTEGER_OPERATORS)[op]
        if name == "ashr" and vector.is_unsigned:
            name = "lshr"
        return getattr(builder, name)(left, right)

    for right in (VectorType, types.Number):
        lower_builtin(op, VectorType, right)(lower)


for _op in {**_INTEGER_OPERATORS, **_FLOAT_OPERATORS}:
    _register_operator(_op)


@type_callable(operator.add)
def _type_pointer_add(context: Any) -> Callable[..., Any]:
    def typer(base: types.Type, offset: types.Type) -> types.Type | None:
        if isinstance(base, Pointer) and isinstance(offset, types.Integer):
            return base
        return None

    return typer


@lower_builtin(operator.add, Pointer, types.Integer)
def _lower_pointer_add(context: Any, builder: Any, signature: Any, args: Any) -> ir.Value:
    # A GEP, not integer arithmetic: LLVM 22 miscompiles some ptrtoint/add/inttoptr chains.
    offset = context.cast(builder, args[1], signature.args[1], types.intp)
    return builder.gep(args[0], [offset])


@type_callable(operator.getitem)
def _type_register_get(context: Any) -> Callable[..., Any]:
    def typer(registers: types.Type, index: types.Type) -> types.Type | None:
        if isinstance(registers, Registers) and isinstance(index, types.Integer):
            return registers.vector
        return None

    return typer


@type_callable(operator.setitem)
def _type_register_set(context: Any) -> Callable[..., Any]:
    def typer(registers: types.Type, index: types.Type, value: types.Type) -> Any:
        if isinstance(registers, Registers) and value == registers.vector:
            return types.none
        return None

    return typer


def _register_slot(context: Any, builder: Any, signature: Any, args: Any) -> ir.Value:
    index = context.cast(builder, args[1], signature.args[1], types.intp)
    return builder.gep(args[0], [ir.Constant(I64, 0), index], inbounds=True)


@lower_builtin(operator.getitem, Registers, types.Integer)
def _lower_register_get(context: Any, builder: Any, signature: Any, args: Any) -> ir.Value:
    return builder.load(_register_slot(context, builder, signature, args))


@lower_builtin(operator.setitem, Registers, types.Integer, types.Any)
def _lower_register_set(context: Any, builder: Any, signature: Any, args: Any) -> ir.Value:
    builder.store(args[2], _register_slot(context, builder, signature, args))
    return context.get_dummy_value()
