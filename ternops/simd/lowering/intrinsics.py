"""LLVM's intrinsics and constants as functions of kernel code."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ternops.simd.language import Constant, Instruction, Kind, Vector
from ternops.simd.lowering.types import POINTER, Pointer, VectorType, ir_type

_KINDS = {
    "integer": types.intp, "int32": types.int32, "pointer": POINTER, "void": types.none,
    # Any integer type but those above: it is told from them by identity alone.
    "immediate": types.uint8,
}  # fmt: skip
_IMMEDIATE = _KINDS["immediate"]


def type_of(each: Vector | Kind) -> types.Type:
    """Numba's type for what an instruction takes or gives."""
    return _KINDS[each.name] if isinstance(each, Kind) else VectorType(each.element, each.lanes)


@cache
def instruction(each: Instruction) -> Any:
    """Numba's intrinsic for one of LLVM's."""
    name, result, arguments = each.name, type_of(each.result), [*map(type_of, each.arguments)]

    def call(context, builder, signature, args):
        kind = ir.FunctionType(
            ir_type(context, result), [ir_type(context, each) for each in arguments]
        )
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        values = [
            ir.Constant(ir.IntType(8), given.literal_value) if wanted is _IMMEDIATE else
            value if isinstance(wanted, VectorType | Pointer) else
            context.cast(builder, value, given, wanted)
            for value, given, wanted in zip(args, signature.args, arguments, strict=True)
        ]  # fmt: skip
        called = builder.call(function, values)
        return context.get_dummy_value() if result == types.none else called

    def fits(given: types.Type, wanted: types.Type) -> bool:
        if wanted is _IMMEDIATE:
            return isinstance(given, types.IntegerLiteral)
        return given == wanted or (isinstance(given, types.Integer) and wanted == types.intp)

    def check(*given: types.Type) -> Any:
        if all(map(fits, given, arguments)):
            return result(*given), call
        return None

    # Numba reads the number of arguments off the Python signature.
    makers: dict[int, Callable[..., Any]] = {
        0: lambda typing_context: check(),
        1: lambda typing_context, a: check(a),
        2: lambda typing_context, a, b: check(a, b),
        3: lambda typing_context, a, b, c: check(a, b, c),
        4: lambda typing_context, a, b, c, d: check(a, b, c, d),
        5: lambda typing_context, a, b, c, d, e: check(a, b, c, d, e),
    }
    return intrinsic(makers[len(arguments)])


@cache
def constant(each: Constant) -> Any:
    """Numba's intrinsic for a constant."""
    vector, lanes, in_memory = type_of(each.vector), list(each.lanes), each.in_memory
    digest = hashlib.sha256(repr((vector.name, lanes)).encode()).hexdigest()[:16]

    def check(typing_context: Any) -> Any:
        def generate(context, builder, signature, args):
            if not in_memory:
                return ir.Constant(vector.ir, lanes)
            name = f"ternops.constant.{digest}"
            place = builder.module.globals.get(name)
            if place is None:
                place = ir.GlobalVariable(builder.module, vector.ir, name)
                place.initializer = ir.Constant(vector.ir, lanes)
                place.linkage = "weak"
                place.align = vector.bytes
            return builder.load(place)

        return vector(), generate

    return intrinsic(check)
