"""The environment's settings of Numba, checked before anything is compiled with them.

Numba warns of some bad values in a dozen lines and goes on, fails half-way through its import for
others, and LLVM aborts the process for a third kind: here each is a ValueError of one line.
"""

from __future__ import annotations

import os
import re
import sys
import warnings

from ternops.simd.host import FEATURELESS

_UNREADABLE = "Environment variable 'NUMBA_"
#: What LLVM does with a CPU and its features in a process of its own, which it may abort.
_TRIAL = """
import sys
import llvmlite.binding as llvm
llvm.initialize_native_target()
llvm.initialize_native_asmprinter()
target = llvm.Target.from_default_triple()
machine = target.create_target_machine(cpu=sys.argv[1], features=sys.argv[2])
machine.emit_object(llvm.parse_assembly("define void @f() { ret void }"))
"""


#: What needs no Numba to be checked, or to be used.
_KNOWN = {
    "NUMBA_CACHE_DIR", "NUMBA_CPU_FEATURES", "NUMBA_CPU_NAME", "NUMBA_DISABLE_JIT",
    "NUMBA_FUNCTION_CACHE_SIZE", "NUMBA_NUM_THREADS",
}  # fmt: skip


def check() -> None:
    """ValueError, naming the variable and its value, where a setting cannot be used.

    Numba, whose import takes a while, is asked only where one is set that it alone can read.
    """
    for name, least in (("NUMBA_NUM_THREADS", 1), ("NUMBA_FUNCTION_CACHE_SIZE", 0)):
        number = _integer(name)
        if number is not None and number < least:
            raise ValueError(f"{name}={os.environ[name]!r}: expected {least} or more")
    if _integer("NUMBA_DISABLE_JIT"):
        raise _no_jit(os.environ["NUMBA_DISABLE_JIT"])
    # What a program itself has set is its own affair: a CPU to look at the code for, say.
    cpu, features = (os.environ.get(f"NUMBA_CPU_{each}") for each in ("NAME", "FEATURES"))
    if cpu is not None or features is not None:
        _check_cpu(cpu, features)
    if any(each.startswith("NUMBA_") and each not in _KNOWN for each in os.environ):
        check_numba()


def _integer(name: str) -> int | None:
    """What a variable says, as Numba reads it."""
    value = os.environ.get(name)
    if value is None:
        return None
    try:
        return int(value)
    except ValueError as error:
        raise ValueError(f"{name}={value!r}: Numba cannot read it ({error})") from None


def _no_jit(value: object) -> ValueError:
    return ValueError(
        f"NUMBA_DISABLE_JIT={value!r}: ternops has no kernels without Numba's JIT, expected 0"
    )


def check_numba() -> None:
    """Import Numba; ValueError where it cannot read a setting."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", _UNREADABLE, RuntimeWarning)
        try:
            from numba import config
        except RuntimeWarning as warning:
            raise ValueError(_unreadable(str(warning))) from None
    if config.DISABLE_JIT:
        raise _no_jit(os.environ.get("NUMBA_DISABLE_JIT", config.DISABLE_JIT))


def _unreadable(warning: str) -> str:
    """The one line of a warning that ends with a traceback."""
    name, value = re.findall(r"'([^']*)'", warning)[:2]
    reason = warning.strip().splitlines()[-1].split(": ", 1)[-1]
    return f"{name}={value!r}: Numba cannot read it ({reason})"


def _check_cpu(name: str | None, features: str | None) -> None:
    import llvmlite.binding as llvm

    asked = [each.strip() for each in (features or "").split(",") if each.strip()]
    for each in asked:
        if each[0] not in "+-":
            raise ValueError(
                f"NUMBA_CPU_FEATURES={features!r}: {each!r}, expected +{each} or -{each}"
            )
    for kind, word in (("processor", name or ""), *(("feature", each) for each in asked)):
        if word.lstrip("+-") == "help":  # for which LLVM prints its lists
            raise _unknown(kind, word, name, features)
    found = llvm.get_host_cpu_features()
    is_plain = name in (None, FEATURELESS, llvm.get_host_cpu_name())
    if is_plain and all(each[0] == "+" and each[1:] in found for each in asked):
        return
    import subprocess

    tried = name or llvm.get_host_cpu_name(), found.flatten() if features is None else features
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _TRIAL, *tried],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
    except OSError:  # no process can be started here
        return
    if unknown := re.search(r"'(.*)' is not a recognized (processor|feature)", done.stderr):
        raise _unknown(unknown[2], unknown[1], name, features)
    if done.returncode < 0 or "LLVM ERROR" in done.stderr:
        given = {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": features}
        text = " ".join(f"{each}={value!r}" for each, value in given.items() if value is not None)
        raise ValueError(f"{text}: LLVM cannot compile for that here")


def _unknown(kind: str, word: str, name: str | None, features: str | None) -> ValueError:
    variable, value = ("NAME", name) if kind == "processor" else ("FEATURES", features)
    return ValueError(f"NUMBA_CPU_{variable}={value!r}: LLVM knows no {kind} {word}")
