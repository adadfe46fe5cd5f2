"""How kernels are compiled: for this CPU, whatever Numba is told to do with other code."""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import os
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import llvmlite.binding as llvm
from llvmlite import ir
from numba import config, types
from numba.core import caching, ccallback, codegen, errors, registry
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


def _named(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """A function of that name. It is compiled after the one that it calls: only then do constant
    bounds that a factory closes over unroll the loops (see CONTRIBUTING)."""

    def job(a, b, c, d):
        function(a, b, c, d)

    job.__name__ = job.__qualname__ = name
    return job


class Job:
    """A compiled function that other compiled code, or a team, calls by its address.

    Its kinds are the classes below: what a function's parameters must be, all of them integers.
    A decorator; or, with a name, for an `inlined` function that a factory made: Numba's own cache
    would not find such a one again, since it compares what a closure holds (numba#6264). Here the
    name tells it apart, and the folder's the state of the sources. Compiled, or loaded from the
    disk cache, when `address` is first asked for.
    Raises TypeError for other parameters.
    """

    parameters: ClassVar[tuple[str, str, str, str]]

    def __init__(self, function: Callable[..., Any], name: str | None = None) -> None:
        source = getattr(function, "py_func", function)
        found = tuple(inspect.signature(source).parameters)
        if found != self.parameters:
            raise TypeError(
                f"{function.__name__}({', '.join(found)}): expected the parameters "
                f"({', '.join(self.parameters)}) of a {type(self).__name__}"
            )
        self.__doc__ = function.__doc__
        self.name = name or function.__name__
        self._function = _named(function, name) if name else function
        self._cache = Cache(self._function, name, source.__code__.co_filename)
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
            self._address = int(self._compile(self._cache).address)
        return self._address

    def assembly(self) -> str:
        """The machine code as text, with LLVM's remarks on what is spilled.

        Compiled anew: what comes from the cache has lost its text.
        """
        library = self._compile(caching.NullCache())._library
        library.codegen._tm.set_asm_verbosity(True)
        return str(library.get_asm_str())


class TeamJob(Job):
    """What a team's threads run together: the addresses of a record and of the team's control
    block, this thread's number, how many take part."""

    parameters = ("record", "team", "thread", "threads")


class RowsKernel(Job):
    """A part of a product: rows or tokens [first, last) of the operands at an address."""

    parameters = ("operands", "first", "last", "thread")


class LayerKernel(Job):
    """A part of one layer that all threads of a team run: its number, and theirs."""

    parameters = ("record", "layer", "thread", "threads")


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
