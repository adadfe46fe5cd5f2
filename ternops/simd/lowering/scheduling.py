"""Threads that wait, sleep and move: the calls of the system that they need for it.

On Linux by their numbers through `syscall`, which is in every C library.
"""

from __future__ import annotations

import functools
import os
import sys
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ternops.simd.host import machine
from ternops.simd.lowering.types import I32, I64, Pointer

#: The numbers of Linux's system calls, by `machine`.
_X86 = {"futex": 202, "sched_setaffinity": 203, "sched_getaffinity": 204, "getcpu": 309}
_ARM = {"futex": 98, "sched_setaffinity": 122, "sched_getaffinity": 123, "getcpu": 168}
_CALLS = {"x86_64": _X86, "amd64": _X86, "aarch64": _ARM, "arm64": _ARM}
#: Words of a set of CPUs: 1024 of them, as the C library's; of a larger system nothing is known.
_WORDS = 16
_SET = ir.ArrayType(I64, _WORDS)


def _has_calls() -> bool:
    return sys.platform == "linux" and machine() in _CALLS


def _call(builder: Any, name: str, *arguments: Any) -> Any:
    """What it gives, or -1."""
    kind = ir.FunctionType(I64, [I64], var_arg=True)
    function = cgutils.get_or_insert_function(builder.module, kind, "syscall")
    return builder.call(function, [ir.Constant(I64, _CALLS[machine()][name]), *arguments])


def _yield(builder: Any) -> None:
    name = "SwitchToThread" if os.name == "nt" else "sched_yield"
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(I32, []), name)
    builder.call(function, [])


@intrinsic
def yield_thread(typing_context):
    """Give the rest of the time slice to another thread."""

    def generate(context, builder, signature, args):
        _yield(builder)
        return context.get_dummy_value()

    return types.none(), generate


def _futex(builder: Any, address: Any, operation: int, value: Any) -> None:
    private, none = 128, ir.Constant(I64, 0)  # no timeout, and no other process's futex
    what = ir.Constant(I64, operation | private)
    _call(builder, "futex", address, what, value, none, none, none)


@intrinsic
def futex_wait(typing_context, address, value):
    """Sleep until `futex_wake`, if the int64 at `address` is still `value` (Linux; maybe sooner).

    Only the lower 32 bits are compared. Where there is no such call it is `yield_thread`.
    """
    if not isinstance(address, Pointer):
        return None

    def generate(context, builder, signature, args):
        if not _has_calls():
            _yield(builder)
            return context.get_dummy_value()
        value = context.cast(builder, args[1], signature.args[1], types.int64)
        low = builder.and_(value, ir.Constant(I64, 2**32 - 1))
        _futex(builder, builder.ptrtoint(args[0], I64), 0, low)
        return context.get_dummy_value()

    return types.none(address, value), generate


@intrinsic
def futex_wake(typing_context, address):
    """Wake all threads that sleep in `futex_wait` at this address."""
    if not isinstance(address, Pointer):
        return None

    def generate(context, builder, signature, args):
        if _has_calls():
            everybody = ir.Constant(I64, 2**31 - 1)
            _futex(builder, builder.ptrtoint(args[0], I64), 1, everybody)
        return context.get_dummy_value()

    return types.none(address), generate


@intrinsic
def cpu_number(typing_context):
    """The CPU that this thread runs on, as int64; -1 where nobody can tell (Linux can)."""

    def generate(context, builder, signature, args):
        if not _has_calls():
            return ir.Constant(I64, -1)
        cpu = cgutils.alloca_once_value(builder, ir.Constant(I32, -1))
        none = ir.Constant(I64, 0)
        _call(builder, "getcpu", builder.ptrtoint(cpu, I64), none, none)
        return builder.sext(builder.load(cpu), I64)

    return types.int64(), generate


@intrinsic
def leave_cpu(typing_context, cpu, threads):
    """Go on on another CPU than number `cpu`, if this thread may use one, and as many as `threads`.

    For this once: which CPUs it may use stays as it was. Nothing where the system has no such call.
    """
    if not isinstance(cpu, types.Integer) or not isinstance(threads, types.Integer):
        return None

    def generate(context, builder, signature, args):
        if not _has_calls():
            return context.get_dummy_value()
        cpu, threads = (
            context.cast(builder, value, kind, types.int64)
            for value, kind in zip(args, signature.args, strict=True)
        )
        allowed = cgutils.alloca_once_value(builder, ir.Constant(_SET, None))
        whole = (
            ir.Constant(I64, 0), ir.Constant(I64, 8 * _WORDS), builder.ptrtoint(allowed, I64)
        )  # fmt: skip
        known = _call(builder, "sched_getaffinity", *whole)
        words, count = builder.load(allowed), ir.Constant(I64, 0)
        for i in range(_WORDS):
            count = builder.add(count, builder.ctpop(builder.extract_value(words, i)))
        fits = [
            builder.icmp_signed(">", known, ir.Constant(I64, 0)),
            builder.icmp_signed(">", count, ir.Constant(I64, 1)),
            builder.icmp_signed(">=", count, threads),
            builder.icmp_unsigned("<", cpu, ir.Constant(I64, 64 * _WORDS)),
        ]
        with builder.if_then(functools.reduce(builder.and_, fits), likely=False):
            place = builder.lshr(cpu, ir.Constant(I64, 6))
            word = builder.gep(allowed, [ir.Constant(I64, 0), place])
            before = builder.load(word)
            bit = builder.shl(ir.Constant(I64, 1), builder.and_(cpu, ir.Constant(I64, 63)))
            builder.store(builder.and_(before, builder.not_(bit)), word)
            _call(builder, "sched_setaffinity", *whole)
            builder.store(before, word)
            _call(builder, "sched_setaffinity", *whole)
        return context.get_dummy_value()

    return types.none(cpu, threads), generate
