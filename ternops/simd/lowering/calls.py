"""Kernel code that calls a job by its address, for each kind of job, and others' functions."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import errors
from numba.extending import intrinsic

from ternops.simd.jobs import Job, LayerKernel, RowsKernel, TeamJob
from ternops.simd.lowering.types import I64


def _checked(names: tuple[str, ...], given: tuple[Any, ...]) -> None:
    for name, each in zip(names, given, strict=True):
        if not isinstance(each, types.Integer | types.IntegerLiteral):
            raise errors.TypingError(f"{name}: {each}, expected an integer")


def _generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """The call of a function of 64-bit integers, the first of which is its address."""
    function, *values = (
        context.cast(builder, value, each, types.intp)
        for value, each in zip(args, signature.args, strict=True)
    )
    pointer = ir.FunctionType(ir.VoidType(), [I64] * len(values)).as_pointer()
    builder.call(builder.inttoptr(function, pointer), values)
    return context.get_dummy_value()


def _caller(kind: type[Job]) -> Any:
    """Kernel code that calls the job of that kind whose compiled code lies at `address`."""
    names = ("address", *kind.parameters)

    def call(typing_context, address, a, b, c, d):
        given = (address, a, b, c, d)
        _checked(names, given)
        return types.none(*given), _generate

    call.__name__ = call.__qualname__ = f"call_{kind.__name__}"
    return intrinsic(call)


call_team_job, call_rows_kernel, call_layer_kernel = map(
    _caller, (TeamJob, RowsKernel, LayerKernel)
)


@intrinsic
def call_foreign(typing_context, address, a, b, c, d, e, f, g, h):
    """Call a C function of eight integers or pointers whose code lies at `address`; what it returns
    is lost. In the calling conventions of x86-64 and AArch64 an `int` is the low half of what a
    64-bit integer is handed over in."""
    given = (address, a, b, c, d, e, f, g, h)
    _checked(("address", *"abcdefgh"), given)
    return types.none(*given), _generate
