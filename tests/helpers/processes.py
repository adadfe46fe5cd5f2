"""Fresh Python processes: for another tier, another CPU model, or a crash that must not spread."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ternops.isa import detect

ROOT = Path(__file__).parents[2]


def cpu(name: str, features: str) -> dict[str, str]:
    """The environment in which Numba compiles for a CPU that has these features and no other."""
    return {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": f"+{features.replace(' ', ',+')}"}


AVX2 = "avx2 f16c fma avx sse4.2 bmi bmi2 popcnt"
_AVX512 = f"{AVX2} avx512f avx512bw avx512vl avx512dq avx512cd avx512vnni"
#: Numba then compiles for a CPU that has no optional feature at all.
FEATURELESS = {"NUMBA_CPU_NAME": "generic"}
#: tier -> an honest CPU of it: one that has nothing of a better tier.
CPUS = {
    "avx512vbmi": cpu("icelake-client", f"{_AVX512} avx512vbmi"),
    "avx512vnni": cpu("cascadelake", _AVX512),
    "avxvnni": cpu("alderlake", f"{AVX2} avxvnni"),
    "avx2": cpu("haswell", AVX2),
    "generic": FEATURELESS,
}

#: What a test can run under: a name -> the environment that chooses it.
SETTINGS = {tier.name: {"TERNOPS_ISA": tier.name} for tier in detect.TIERS}
SETTINGS["featureless"] = FEATURELESS

_CHOOSING = ("TERNOPS_ISA", "NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES")


def environment(**changes: str) -> dict[str, str]:
    """This process's environment without its choice of tier, and with `changes`."""
    kept = {key: value for key, value in os.environ.items() if key not in _CHOOSING}
    return {**kept, "PYTHONPATH": str(ROOT), **changes}


def current() -> dict[str, str]:
    """What this process's own choice of tier was made by."""
    return {key: os.environ[key] for key in _CHOOSING if key in os.environ}


def lacking(setting: str) -> str:
    """Why this CPU cannot run one of SETTINGS, in words; empty if it can."""
    for tier in detect.TIERS:
        if tier.name == setting and (missing := detect.missing(tier)):
            return f"this CPU lacks {missing} for {setting}"
    return ""


def is_current(setting: str) -> bool:
    """Whether this very process already runs under one of SETTINGS."""
    if os.environ.get("NUMBA_CPU_NAME") == "generic":
        return setting == "featureless"
    return setting == detect.TIER.name


@contextlib.contextmanager
def beside_one_another(calls: dict[str, Callable[[], Any]]) -> Iterator[dict[str, Future[Any]]]:
    """The calls' futures, by name, while two of them at a time are run; what is late is dropped."""
    with ThreadPoolExecutor(2) as pool:
        futures = {name: pool.submit(call) for name, call in calls.items()}
        try:
            yield futures
        finally:
            pool.shutdown(cancel_futures=True)


def python(
    *arguments: str, timeout: float = 500, **changes: str
) -> subprocess.CompletedProcess[str]:
    """Run Python with `arguments` from the project's folder; a hang is a TimeoutExpired."""
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment(**changes),
        cwd=ROOT,
        timeout=timeout,
        capture_output=True,
        text=True,
        check=False,
    )


def run_code(code: str, timeout: float = 500, **changes: str) -> str:
    """What a piece of Python prints in a process of its own, which must end with success."""
    done = python("-c", code, timeout=timeout, **changes)
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def program(name: str, *arguments: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    """Run one of tests/programs; `settings` as `python` takes them."""
    return python("-m", f"tests.programs.{name}", *arguments, **settings)


def run_program(name: str, *arguments: str, **settings: Any) -> str:
    """What one of tests/programs prints; it must end with success."""
    done = program(name, *arguments, **settings)
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout
