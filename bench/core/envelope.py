"""What results say of themselves: the envelope of every file, and the head of run.json."""

from __future__ import annotations

import json
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numba
import numpy as np
import psutil

import ternops
from bench.core.errors import ResultsError
from ternops.cpu_caches import cpu_model, last_level_bytes
from ternops.files import replaced
from ternops.isa import detect
from ternops.simd.host import machine

#: Of this process.
TIER = detect.TIER.name
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


def resumed(
    found: dict[str, Any], fresh: Mapping[str, Any], path: Path,
    same: Sequence[str] = ("ternops", "cpu", "tier"),
) -> dict[str, Any]:  # fmt: skip
    """What an earlier run left, with both commits; ResultsError unless it was one like this."""
    for what in same:
        if found.get(what) != fresh[what]:
            raise ResultsError(
                f"--resume: {path} is of {what} {found.get(what)!r}, not {fresh[what]!r}"
            )
    return {**found, "commit": both(found.get("commit"), fresh["commit"])}


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


def load_json(path: Path, program: str, file_format: int) -> dict[str, Any]:
    """What a program has saved; ResultsError for a file of another kind."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ResultsError(f"{path}: no results of {program}: {error}") from error
    if not isinstance(found, dict) or found.get("format") != file_format:
        raise ResultsError(f"{path}: no results of {program} of format {file_format}: run it again")
    return found


def save_json(path: Path, found: Mapping[str, Any]) -> Path:
    """Write it, whole or not at all."""
    with replaced(path) as temporary:
        temporary.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    return path
