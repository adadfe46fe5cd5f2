"""How kernels are compiled: to object code, whatever Numba is told to do with other code."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Any, NamedTuple

from llvmlite import ir
from llvmlite.binding import Linkage, newpassmanagers
from numba import config, types
from numba.core import ccallback, codegen, cpu, registry
from numba.core.compiler_lock import global_compiler_lock

from ternops.simd import host
from ternops.simd.lowering.symbols import check_symbols

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


class _Library(codegen.JITCodeLibrary):
    """Numba's, which makes no machine code at its end: jobs get theirs in `compile_job`, and what
    Python calls when it is called."""

    #: What it was before others were linked into it; None as long as it is that.
    _plain: Any = None

    def _finalize_specific(self) -> None:
        self._codegen._scan_and_fix_unresolved_refs(self._final_module)

    def add_linking_library(self, library: Any) -> None:
        # Not finalized here, as Numba's is: `optimize_as_one` has no use for what parts become.
        self._linking_libraries.append(library)

    def finalize(self) -> None:
        self._plain = self._final_module.clone()
        super().finalize()

    def optimize_as_one(self, symbol: str) -> None:
        """Finalize it with all its parts, of which none has been optimized by itself.

        A part is else optimized once for each level of calls above it: half of the time that
        `forward` takes, of whose 150 parts few are loops.
        """
        libraries = dict.fromkeys(self._linking_libraries)
        for library in (pending := [*libraries]):
            new = [each for each in library._linking_libraries if each not in libraries]
            libraries.update(dict.fromkeys(new))
            pending += new
        for library in libraries:
            module = (getattr(library, "_plain", None) or library._final_module).clone()
            for each in module.functions:
                if not each.is_declaration and each.linkage != Linkage.internal:
                    each.linkage = "weak_odr"  # which is linked whether it is called so far or not
            self._final_module.link_in(module)
        for each in self._final_module.functions:
            if not each.is_declaration and each.name != symbol:
                each.linkage = "internal"
        self._optimize_final_module()
        self._final_module.verify()
        self._finalized = True

    def _get_module_for_linking(self) -> Any:
        # LLVM's code generator rewrites the loops of what it is given. Those that call a function
        # link the rewritten form: from the plain one a GEMV's loop has 33 instructions, not 31.
        self._ensure_finalized()
        if self._shared_module is None:
            self._codegen._tm.emit_object(self._final_module)
        return super()._get_module_for_linking()


class _Codegen(codegen.JITCPUCodegen):
    """Numba's, with our CPU and our list of features."""

    _library_class = _Library

    def _get_host_cpu_name(self) -> str:
        return host.cpu_name()

    def _get_host_cpu_features(self) -> str:
        return host.feature_list()


class _Context(cpu.CPUContext):
    """Numba's, with a wrapper for C that needs no Python, and none for Python where none is
    called for."""

    def get_executable(self, library: Any, descriptor: Any, env: Any) -> Any:
        names = {each.name for each in library._final_module.functions}
        if descriptor.llvm_cpython_wrapper_name not in names:
            return object()  # what Numba knows the function by
        return super().get_executable(library, descriptor, env)

    def create_cfunc_wrapper(self, library: Any, descriptor: Any, env: Any, helper: Any) -> None:
        module = self.create_module("job")
        arguments = descriptor.argtypes
        kind = self.call_conv.get_function_type(descriptor.restype, arguments)
        function = ir.Function(module, kind, descriptor.llvm_func_name)
        kind = ir.FunctionType(
            self.get_value_type(descriptor.restype), [*map(self.get_value_type, arguments)]
        )
        wrapper = ir.Function(module, kind, descriptor.llvm_cfunc_wrapper_name)
        builder = ir.IRBuilder(wrapper.append_basic_block("entry"))
        # The status is always good: no code passes `compile_job` that can raise.
        _, result = self.call_conv.call_function(
            builder, function, descriptor.restype, arguments, wrapper.args, attrs=("noinline",)
        )
        builder.ret(result)
        library.add_ir_module(module)


class _Target(registry.CPUTarget):
    """Numba's CPU target, in all but the code generator: whose code is compiled before us, and
    how, changes nothing."""

    @functools.cached_property
    def _toplevel_target_context(self) -> Any:
        context: Any = _Context.__new__(_Context)  # a copy, of this class
        context.__dict__.update(registry.cpu_target.target_context.__dict__)
        with _plain_settings():
            context._internal_codegen = _Codegen("ternops")
        context.cached_internal_func = {}
        return context

    @property
    def typing_context(self) -> Any:
        return registry.cpu_target.typing_context


_TARGET = _Target("cpu")


_OPTIONS = {"nopython": True, "error_model": "numpy", "boundscheck": False}


class _Function(registry.CPUDispatcher):
    """A function that Python calls."""

    targetdescr = _TARGET

    def compile(self, signature: Any) -> Any:
        with _plain_settings():
            return super().compile(signature)


class _Part(_Function):
    """A function that compiled code calls: it needs no wrapper, which would be as long as itself
    where it is inlined."""

    def __init__(self, function: Callable[..., Any], targetoptions: dict[str, Any]) -> None:
        super().__init__(function, targetoptions=targetoptions)
        self._compiler._customize_flags = _without_wrappers

    def add_overload(self, compiled: Any) -> None:
        self.overloads[tuple(compiled.signature.args)] = compiled


def _without_wrappers(flags: Any) -> Any:
    flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
    return flags


def part(function: Callable[..., Any], inlined: bool) -> Any:
    """Numba's object for a function that kernel code calls."""
    return _Part(function, {**_OPTIONS, **({"forceinline": True} if inlined else {})})


def callable_function(function: Callable[..., Any]) -> Any:
    """Numba's object for a function of kernel code that Python calls."""
    return _Function(function, targetoptions={**_OPTIONS, "nogil": True})


class _CFunc(ccallback.CFunc):
    _targetdescr = _TARGET


def resolve(intrinsic: Any) -> Any:
    """Numba's type of an intrinsic, which may have been made just now."""
    context = registry.cpu_target.typing_context
    found = context._lookup_global(intrinsic)
    if found is None:
        context.refresh()
        found = context._lookup_global(intrinsic)
    return found


#: In the name of what Numba keeps of an exception in a module that can raise it.
_EXCEPTION = "picklebuf"


class Compiled(NamedTuple):
    """Machine code as an object file, and the name of the function in it that others call."""

    code: bytes
    symbol: str


def compile_job(
    function: Callable[..., Any], name: str, arity: int, returns: bool, as_one: bool
) -> Compiled:
    """A function of `arity` integers, which gives one or nothing, as an object file.

    as_one: not part by part, which takes longer, and suits the loops of products. (Attention to
    1500 positions takes as long either way.)
    """
    with _plain_settings():
        library, symbol = _compiled(function, arity, returns, as_one)
        module = _stripped(library, symbol)
        if any(_EXCEPTION in each.name for each in module.global_variables):
            raise TypeError(f"{name}: kernels may not raise exceptions, and its code can")
        code = library.codegen._tm.emit_object(module)
        check_symbols(name, code)
        return Compiled(code, symbol)


def assembly(function: Callable[..., Any], arity: int, returns: bool, as_one: bool) -> str:
    """The same as text, with LLVM's remarks on what is spilled."""
    with _plain_settings():
        library, symbol = _compiled(function, arity, returns, as_one)
        machine = library.codegen._tm
        machine.set_asm_verbosity(True)
        return str(machine.emit_assembly(_stripped(library, symbol)))


def _compiled(
    function: Callable[..., Any], arity: int, returns: bool, as_one: bool
) -> tuple[Any, str]:
    signature = (types.intp,) * arity, types.intp if returns else types.void
    job: Any = _CFunc(function, signature, {}, dict(_OPTIONS))
    library, descriptor = attrgetter("library", "fndesc")(job._compile_uncached())
    if as_one:
        library.optimize_as_one(descriptor.llvm_cfunc_wrapper_name)
    library._ensure_finalized()
    return library, descriptor.llvm_cfunc_wrapper_name


def _stripped(library: Any, symbol: str) -> Any:
    """The library's code with no name but `symbol` to be seen from outside, and nothing unused.

    Names that Numba counts up are those of other functions in another process's object.
    """
    module = library._final_module.clone()
    for each in (*module.functions, *module.global_variables):
        if not each.is_declaration and each.name != symbol:
            each.linkage = "internal"
    passes = newpassmanagers.create_new_module_pass_manager()
    passes.add_global_dead_code_eliminate_pass()
    passes.run(module, library.codegen._pass_builder())
    return module
