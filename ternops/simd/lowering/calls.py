"""Kernel code that calls a job by its address, for each kind of job."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import errors
from numba.extending import intrinsic

from ternops.simd.jobs import Job, LayerKernel, RowsKernel, TeamJob
from ternops.simd.lowering.types import I64


def _caller(kind: type[Job]) -> Any:
    """Kernel code that calls the job of that kind whose compiled code lies at `address`."""
    names = ("address", *kind.parameters)

    def call(typing_context, address, a, b, c, d):
        given = (address, a, b, c, d)
        for name, each in zip(names, given, strict=True):
            if not isinstance(each, types.Integer | types.IntegerLiteral):
                raise errors.TypingError(f"{name}: {each}, expected an integer")

        def generate(context, builder, signature, args):
            pointer = ir.FunctionType(ir.VoidType(), [I64] * 4).as_pointer()
            function, *values = (
                context.cast(builder, value, each, types.intp)
                for value, each in zip(args, signature.args, strict=True)
            )
            builder.call(builder.inttoptr(function, pointer), values)
            return context.get_dummy_value()

        return types.none(*given), generate

    call.__name__ = call.__qualname__ = f"call_{kind.__name__}"
    return intrinsic(call)


call_team_job, call_rows_kernel, call_layer_kernel = map(
    _caller, (TeamJob, RowsKernel, LayerKernel)
)
