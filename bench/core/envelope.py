"""What results say of themselves: the envelope of every file, and the head of run.json."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numba
import numpy as np
import psutil

import ternops
from bench.core.tiers import TIER
from ternops.caches import last_level_bytes
from ternops.simd.vector import machine
from ternops.system import cpu_model

#: What every results file says of itself. cpu: the machine, as its system names it.
ENVELOPE = ("format", "commit", "ternops", "tier", "cpu", "versions")
_PREFIX = "envelope_"


def envelope(file_format: int) -> dict[str, Any]:
    """The envelope of a file of a format that is written here and now."""
    return {
        "format": file_format,
        "commit": commit(),
        "ternops": ternops.__version__,
        "tier": TIER,
        "cpu": cpu_model(),
        "versions": f"Python {platform.python_version()}, NumPy {np.__version__}, "
        f"Numba {numba.__version__}, {platform.system()} {platform.release()}",
    }


def to_metadata(found: Mapping[str, Any]) -> dict[str, Any]:
    """The envelope among what is known of a file, as pyperf keeps it: numbers and texts."""
    known = {key: found.get(key) for key in ENVELOPE}
    return {_PREFIX + key: value for key, value in known.items()
            if value and isinstance(value, int | str)}  # fmt: skip


def from_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The envelope of a pyperf suite by its metadata, which may have none, or a part."""
    return {key: metadata[_PREFIX + key] for key in ENVELOPE if _PREFIX + key in metadata}


def about(arch: str, arguments: list[str], options: dict[str, Any]) -> dict[str, Any]:
    """The head of run.json but its format. options: what must be the same where it is resumed."""
    return {
        **{key: value for key, value in envelope(0).items() if key != "format"},
        "command": shlex.join(["python", "-m", "bench.run", *arguments]),
        "arch": arch,
        "memory": psutil.virtual_memory().total,
        "last_level": last_level_bytes(),
        "load": psutil.getloadavg()[0],
        "python": sys.implementation.name,
        "options": options,
        "done": [],
        "left_out": [],
    }


def both(old: Any, new: str) -> str:
    """The commits of results that were begun with `old` commits and are gone on with."""
    known = [each for each in str(old or "").split(", ") if each]
    return ", ".join(dict.fromkeys([*known, *filter(None, [new])]))


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
