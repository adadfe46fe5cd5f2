"""What a run says of itself: how it was started, with which versions, on which machine."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numba
import numpy as np
import psutil

import ternops
from ternops.isa import detect
from ternops.simd.host import machine
from ternops.system import cpu_model


def about(arch: str, arguments: list[str], options: dict[str, Any]) -> dict[str, Any]:
    """The head of run.json. options: what must be the same where a run is resumed."""
    return {
        "ternops": ternops.__version__,
        "commit": commit(),
        "command": shlex.join(["python", "-m", "bench.run", *arguments]),
        "arch": arch,
        "cpu": cpu_model(),
        "tier": detect.TIER.name,
        "memory": psutil.virtual_memory().total,
        "load": psutil.getloadavg()[0],
        "versions": f"Python {platform.python_version()}, NumPy {np.__version__}, "
        f"Numba {numba.__version__}, {platform.system()} {platform.release()}",
        "python": sys.implementation.name,
        "options": options,
        "done": [],
        "left_out": [],
    }


def commit() -> str:
    """The commit of this checkout, marked where files differ from it; empty outside of one."""
    folder = Path(__file__).parent
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=folder, check=True,
            capture_output=True, text=True,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return ""


def host_arch() -> str:
    """The architecture this runs on, as --arch and the paper's tables name it."""
    return "arm" if machine() in ("aarch64", "arm64", "arm") else "x86"
