"""Fresh Python processes: for another tier, another CPU model, or a crash that must not spread."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ternops.simd import targets

ROOT = Path(__file__).parent.parent

HASWELL = {
    "NUMBA_CPU_NAME": "haswell",
    "NUMBA_CPU_FEATURES": "+avx2,+f16c,+fma,+avx,+sse4.2,+bmi,+bmi2,+popcnt",
}
#: Numba then compiles for a CPU that has no optional feature at all.
FEATURELESS = {"NUMBA_CPU_NAME": "generic"}

#: What a test can run under: a name -> the environment that chooses it.
SETTINGS = {tier.name: {"TERNOPS_ISA": tier.name} for tier in targets.TIERS}
SETTINGS["featureless"] = FEATURELESS

_CHOOSING = ("TERNOPS_ISA", "NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES")


def environment(**changes: str) -> dict[str, str]:
    """This process's environment without its choice of tier, and with `changes`."""
    kept = {key: value for key, value in os.environ.items() if key not in _CHOOSING}
    return {**kept, "PYTHONPATH": str(ROOT), **changes}


def lacking(setting: str) -> str:
    """Why this CPU cannot run one of SETTINGS, in words; empty if it can."""
    for tier in targets.TIERS:
        if tier.name == setting and (missing := targets.missing(tier)):
            return f"this CPU lacks {missing} for {setting}"
    return ""


def is_current(setting: str) -> bool:
    """Whether this very process already runs under one of SETTINGS."""
    if os.environ.get("NUMBA_CPU_NAME") == "generic":
        return setting == "featureless"
    return setting == targets.TIER.name


def python(
    *arguments: str, timeout: float = 900, **changes: str
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


def run_code(code: str, timeout: float = 900, **changes: str) -> str:
    """What a piece of Python prints in a process of its own, which must end with success."""
    done = python("-c", code, timeout=timeout, **changes)
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout
