"""What threads tell one another with, a hint for loops that wait, and the clock."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ternops.simd.host import ARM, machine
from ternops.simd.lowering.types import I32, I64, Pointer


def _atomic(name: str, arity: int, emit: Callable[..., Any], result: types.Type) -> Any:
    def check(*given: types.Type) -> Any:
        first, *rest = given
        if not isinstance(first, Pointer) or not all(isinstance(r, types.Integer) for r in rest):
            return None

        def generate(context, builder, signature, args):
            target = builder.bitcast(args[0], I64.as_pointer())
            values = [
                context.cast(builder, value, kind, types.int64)
                for value, kind in zip(args[1:], signature.args[1:], strict=True)
            ]
            emitted = emit(builder, target, *values)
            return context.get_dummy_value() if result == types.none else emitted

        return result(*given), generate

    makers: dict[int, Callable[..., Any]] = {
        1: lambda typing_context, a: check(a),
        2: lambda typing_context, a, b: check(a, b),
        3: lambda typing_context, a, b, c: check(a, b, c),
    }
    return intrinsic(makers[arity])


def _compare_and_swap(builder: Any, target: Any, expected: Any, new: Any) -> Any:
    pair = builder.cmpxchg(target, expected, new, "seq_cst", "seq_cst")
    return builder.extract_value(pair, 1)


#: int64 in memory: load, store, add (gives the old value) and compare-and-swap (gives success),
#: all sequentially consistent.
atomic_load = _atomic("load", 1, lambda b, p: b.load_atomic(p, "seq_cst", 8), types.int64)
atomic_store = _atomic("store", 2, lambda b, p, v: b.store_atomic(v, p, "seq_cst", 8), types.none)
atomic_add = _atomic("add", 2, lambda b, p, v: b.atomic_rmw("add", p, v, "seq_cst"), types.int64)
atomic_swap_if = _atomic("swap_if", 3, _compare_and_swap, types.boolean)


@intrinsic
def pause(typing_context):
    """Tell the core that this is a waiting loop."""

    def generate(context, builder, signature, args):
        if machine() in ("x86_64", "amd64"):
            name, values = "llvm.x86.sse2.pause", []
        elif machine() in ARM:
            name, values = "llvm.aarch64.hint", [ir.Constant(I32, 1)]  # yield
        else:
            return context.get_dummy_value()
        kind = ir.FunctionType(ir.VoidType(), [value.type for value in values])
        builder.call(cgutils.get_or_insert_function(builder.module, kind, name), values)
        return context.get_dummy_value()

    return types.none(), generate


@intrinsic
def nanoseconds(typing_context):
    """A steady clock as int64; 0 where the system has none that kernels can call (Windows)."""

    def generate(context, builder, signature, args):
        if os.name == "nt":
            return ir.Constant(I64, 0)
        pair = ir.ArrayType(I64, 2)  # struct timespec
        kind = ir.FunctionType(I32, [I32, pair.as_pointer()])
        function = cgutils.get_or_insert_function(builder.module, kind, "clock_gettime")
        time = cgutils.alloca_once(builder, pair)
        builder.call(function, [ir.Constant(I32, 6 if sys.platform == "darwin" else 1), time])
        parts = builder.load(time)
        seconds = builder.mul(builder.extract_value(parts, 0), ir.Constant(I64, 10**9))
        return builder.add(seconds, builder.extract_value(parts, 1))

    return types.int64(), generate
