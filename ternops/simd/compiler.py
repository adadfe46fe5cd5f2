"""How kernels are compiled: for this CPU, whatever Numba is told to do with other code."""

from __future__ import annotations

import contextlib
import copy
import functools
import os
from collections.abc import Callable, Iterator
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import config, types
from numba.core import caching, ccallback, codegen, registry
from numba.core.compiler_lock import global_compiler_lock
from numba.extending import intrinsic

from ternops.simd.cache import Cache
from ternops.simd.host import feature_list
from ternops.simd.types import I64

#: Numba's settings that change code, at their defaults.
_SETTINGS = {
    "OPT": config._OptLevel(3),
    "LOOP_VECTORIZE": 1,
    "SLP_VECTORIZE": 0,
    "LLVM_REFPRUNE_PASS": 1,
    "LLVM_REFPRUNE_FLAGS": "all",
    "BOUNDSCHECK": None,
    "DEBUGINFO_DEFAULT": 0,
    "EXTEND_VARIABLE_LIFETIMES": 0,
    "DEBUG_JIT": 0,
    "CACHE_LOCATOR_CLASSES": "",  # whose folder would know nothing of tiers
}


@contextlib.contextmanager
def _plain_settings() -> Iterator[None]:
    """Compile in here: kernels are the same whatever Numba is told to do with other code."""
    with global_compiler_lock:
        config.reload_config()  # now, and so not in the middle
        told = {name: getattr(config, name) for name in _SETTINGS}
        vars(config).update(_SETTINGS)
        try:
            yield
        finally:
            vars(config).update(told)


class _Codegen(codegen.JITCPUCodegen):
    """Numba's, with our list of features."""

    def _get_host_cpu_features(self) -> str:
        return feature_list()


class _Target(registry.CPUTarget):
    """Numba's CPU target, in all but the code generator: whose code is compiled before us, and
    how, changes nothing."""

    @functools.cached_property
    def _toplevel_target_context(self) -> Any:
        context = copy.copy(registry.cpu_target.target_context)
        with _plain_settings():
            context._internal_codegen = _Codegen("ternops")
        context.cached_internal_func = {}
        return context

    @property
    def typing_context(self) -> Any:
        return registry.cpu_target.typing_context


_TARGET = _Target("cpu")


class _Dispatcher(registry.CPUDispatcher):
    targetdescr = _TARGET

    def compile(self, signature: Any) -> Any:
        with _plain_settings():
            return super().compile(signature)


class _CFunc(ccallback.CFunc):
    _targetdescr = _TARGET

    def compile(self) -> None:
        with _plain_settings():
            super().compile()


_OPTIONS = {"nopython": True, "error_model": "numpy", "boundscheck": False}


def inlined(function: Callable[..., Any]) -> Any:
    """A function of kernel code that is inlined where it is called, so that constant arguments
    unroll its loops.

    Call it from kernel code: `njit` itself compiles for what LLVM finds out about the CPU, which on
    ARM may lack the instruction.
    """
    return _Dispatcher(function, targetoptions={**_OPTIONS, "nogil": True, "forceinline": True})


def kernel(function: Callable[..., Any]) -> Any:
    """A function of kernel code that is called."""
    return _Dispatcher(function, targetoptions={**_OPTIONS, "nogil": True})


def entry(function: Callable[..., Any]) -> Any:
    """A compiled function that Python calls; its code is kept on disk."""
    dispatcher = kernel(function)
    dispatcher._cache = Cache(function)
    return dispatcher


def _lock_compiler() -> None:
    global_compiler_lock.acquire()
    llvm.ffi.lib._lock._lock.acquire()


def _unlock_compiler() -> None:
    llvm.ffi.lib._lock._lock.release()
    global_compiler_lock.release()


if hasattr(os, "register_at_fork"):
    # No fork while another thread compiles: the child would wait for its locks for ever.
    os.register_at_fork(
        before=_lock_compiler, after_in_parent=_unlock_compiler, after_in_child=_unlock_compiler
    )


class Job:
    """A compiled function that a team's threads call: ``f(record, team, thread, threads)``.

    All four are integers: the address of the job's record, the address of the team's control
    block (for barriers), this thread's number, and how many take part. Compiled, or loaded from
    the disk cache, when `address` is first asked for.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.__doc__ = function.__doc__
        self.name = function.__name__
        self._function = function
        self._address: int | None = None

    def _compile(self, cache: Any) -> Any:
        signature = ((types.intp,) * 4, types.void)
        compiled: Any = _CFunc(self._function, signature, {}, dict(_OPTIONS))
        compiled._cache = cache
        compiled.compile()
        return compiled

    @property
    def address(self) -> int:
        """Of the machine code."""
        # No cached_property: Python 3.11's holds a lock meanwhile, which a fork would inherit.
        if self._address is None:
            self._address = int(self._compile(Cache(self._function)).address)
        return self._address

    def assembly(self) -> str:
        """The machine code as text, with LLVM's remarks on what is spilled.

        Compiled anew: what comes from the cache has lost its text.
        """
        library = self._compile(caching.NullCache())._library
        library.codegen._tm.set_asm_verbosity(True)
        return str(library.get_asm_str())


@intrinsic
def call_job(typing_context, address, record, team, thread, threads):
    """Call the job (see `Job`) whose compiled code lies at `address`."""
    given = (address, record, team, thread, threads)

    def generate(context, builder, signature, args):
        kind = ir.FunctionType(ir.VoidType(), [I64] * 4)
        function, *values = (
            context.cast(builder, value, each, types.intp)
            for value, each in zip(args, signature.args, strict=True)
        )
        builder.call(builder.inttoptr(function, kind.as_pointer()), values)
        return context.get_dummy_value()

    return types.none(*given), generate
