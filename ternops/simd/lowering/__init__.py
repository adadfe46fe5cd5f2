"""What the words of the language become: Numba's types and intrinsics, and LLVM's code.

Imported when something must be compiled, and the only package that imports Numba; see
`ternops.simd.language.lowering`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ternops.simd.settings import check_numba

check_numba()

from numba import from_dtype
from numba.extending import typeof_impl

from ternops.simd import language
from ternops.simd.lowering import intrinsics, operators
from ternops.simd.lowering.compiler import (
    assembly,
    callable_function,
    compile_job,
    part,
    resolve,
)

__all__ = ["assembly", "callable_function", "compile_job", "operators", "part", "ready"]


# Numba asks for the type of every global and closed-over value of kernel code.
@typeof_impl.register(language.Vector)
@typeof_impl.register(language.Kind)
def _of_type(value: Any, context: Any) -> Any:
    return typeof_impl(intrinsics.type_of(value), context)


@typeof_impl.register(language.Record)
def _of_record(value: language.Record, context: Any) -> Any:
    return typeof_impl(from_dtype(value.dtype), context)


@typeof_impl.register(language.Operation)
def _of_operation(value: language.Operation, context: Any) -> Any:
    return resolve(getattr(import_module(f"{__name__}.{value.module}"), value.name))


@typeof_impl.register(language.Instruction)
def _of_instruction(value: language.Instruction, context: Any) -> Any:
    return resolve(intrinsics.instruction(value))


@typeof_impl.register(language.Constant)
def _of_constant(value: language.Constant, context: Any) -> Any:
    return resolve(intrinsics.constant(value))


@typeof_impl.register(language.Function)
def _of_function(value: language.Function, context: Any) -> Any:
    return typeof_impl(value.part, context)


#: Set last: whoever finds it need not wait for the import.
ready = True
