"""Fresh Python processes: for another tier, another CPU model, or a crash that must not spread."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ternops.isa import detect
from ternops.simd import host

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

#: tier -> the environment of a process that has it, for which its kernels are compiled once for
#: all tests: an honest CPU that chooses it by itself, or the tier by name where there is none.
SETTINGS = {
    tier.name: CPUS.get(tier.name, {}) if host.machine() in ("x86_64", "amd64") else {}
    for tier in detect.TIERS
}
SETTINGS = {name: found or {"TERNOPS_ISA": name} for name, found in SETTINGS.items()}

_CHOOSING = ("TERNOPS_ISA", "NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES")


def environment(**changes: str) -> dict[str, str]:
    """This process's environment without its choice of tier, and with `changes`."""
    kept = {key: value for key, value in os.environ.items() if key not in _CHOOSING}
    return {**kept, "PYTHONPATH": str(ROOT), **changes}


def current() -> dict[str, str]:
    """What this process's own choice of tier was made by."""
    return {key: os.environ[key] for key in _CHOOSING if key in os.environ}


def lacking(tier: str) -> str:
    """Why this CPU cannot run a tier, in words; empty if it can."""
    for each in detect.TIERS:
        if each.name == tier and (missing := detect.missing(each)):
            return f"this CPU lacks {missing} for {tier}"
    return ""


def skip_unless_another(tier: str) -> None:
    """Leave a test of another process to those tiers that this one can start and is not of."""
    if tier == detect.TIER.name:
        pytest.skip("this very process is of that tier")
    if reason := lacking(tier):
        pytest.skip(reason)


def _stay_on_one_cpu() -> None:
    """Another one in each of xdist's workers."""
    if hasattr(os, "sched_setaffinity"):
        cpus = sorted(os.sched_getaffinity(0))
        worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
        os.sched_setaffinity(0, {cpus[int(worker) % len(cpus)]})


def python(
    *arguments: str, timeout: float = 500, one_cpu: bool = False, **changes: str
) -> subprocess.CompletedProcess[str]:
    """Run Python with `arguments` from the project's folder; a hang is a TimeoutExpired.

    one_cpu: its threads take turns. Beside another process they wait for one another otherwise,
    which takes twice the time of all.
    """
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment(**changes),
        cwd=ROOT,
        timeout=timeout,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=_stay_on_one_cpu if one_cpu else None,
    )


def run_code(code: str, timeout: float = 500, **changes: Any) -> str:
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
