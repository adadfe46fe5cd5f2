"""What LLVM is told of the CPU that it compiles for."""

from __future__ import annotations

import functools
import os
from typing import Any

from ternops.simd import hwcap

ARM = ("aarch64", "arm64")  #: `machine` on 64-bit ARM


#: LLVM's name for a CPU without any optional feature.
FEATURELESS = "generic"
#: What NUMBA_CPU_NAME and NUMBA_CPU_FEATURES ask for; None: what LLVM finds.
CPU_NAME = os.environ.get("NUMBA_CPU_NAME")
CPU_FEATURES = os.environ.get(
    "NUMBA_CPU_FEATURES", "" if CPU_NAME and CPU_NAME.lower() == FEATURELESS else None
)


#: Whether what is compiled is for this machine.
IS_HERE = True


def llvm() -> Any:
    """llvmlite's bindings, which take longer to import than all that needs none of them."""
    import llvmlite.binding

    return llvmlite.binding


def compile_for(triple: str, cpu: str, features: str) -> None:
    """Compile for another machine from now on; nothing may have asked for this one's features."""
    global CPU_NAME, CPU_FEATURES, IS_HERE
    llvm().initialize_all_targets()
    llvm().initialize_all_asmprinters()
    for module in (llvm(), llvm().targets):
        module.get_process_triple = module.get_default_triple = lambda: triple
    CPU_NAME, CPU_FEATURES, IS_HERE = cpu, features, False


def machine() -> str:
    """The architecture that Numba compiles for, as LLVM names it: "x86_64", "aarch64", ..."""
    return llvm().get_process_triple().split("-")[0]


def cpu_name() -> str:
    """The CPU model that Numba compiles for, as LLVM names it."""
    return CPU_NAME or llvm().get_host_cpu_name()


def chosen_threads() -> int:
    """What NUMBA_NUM_THREADS asks for; 0 if it is not set."""
    return int(os.environ.get("NUMBA_NUM_THREADS") or 0)


_SCALABLE = ("sve", "sve2", "sme")


@functools.cache
def feature_list() -> str:
    """What LLVM is told of the CPU: what it finds itself, and on ARM what the system says.

    The name of an ARM core says what the model has, which the system may hide and an unknown model
    has all the same: each feature that tiers use is named, with or without. SVE is left out:
    kernels have vectors of one width, and LLVM 22 miscompiles some sums for SVE of 256 bits
    (llvm-project 204939).
    """
    asked = CPU_FEATURES
    found = llvm().get_host_cpu_features().flatten() if asked is None else asked
    if machine() not in ARM:
        return str(found)
    kept = [name for name in found.split(",") if name and not name[1:].startswith(_SCALABLE)]
    granted = hwcap.features().items() if asked is None else ()
    named = [("+" if has else "-") + name for name, has in granted]
    return ",".join([*kept, *named, *(f"-{name}" for name in _SCALABLE)])


@functools.cache
def features() -> frozenset[str]:
    """The CPU features that kernels are compiled with, and so the only ones they may use."""
    last = {name[1:]: name[:1] for name in feature_list().split(",")}  # as LLVM has it
    return frozenset(name for name, sign in last.items() if sign == "+")
