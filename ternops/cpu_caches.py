"""The CPU and the sizes of its caches, as the system tells them."""

from __future__ import annotations

import functools
import platform
from pathlib import Path

_FOLDER = Path("/sys/devices/system/cpu/cpu0/cache")
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
#: Taken for the last level where the system does not tell.
USUAL_LAST_LEVEL = 32 << 20


@functools.cache
def cpu_cache_bytes() -> dict[int, int]:
    """level -> bytes of the data or unified cache that CPU 0 reaches; empty where nobody tells."""
    sizes = {}
    for index in sorted(_FOLDER.glob("index*")):
        try:
            kind, level, size = (
                (index / name).read_text().strip() for name in ("type", "level", "size")
            )
            if kind != "Instruction":
                sizes[int(level)] = int(size[:-1]) * _UNITS[size[-1]]
        except (OSError, ValueError, KeyError, IndexError):
            continue
    return sizes


def last_level_bytes() -> int:
    """Bytes of the last-level cache."""
    sizes = cpu_cache_bytes()
    return sizes[max(sizes)] if sizes else USUAL_LAST_LEVEL


def cpu_model() -> str:
    """The CPU as the system names it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith(("model name", "Model")):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or "unknown CPU"
