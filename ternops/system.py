"""What ternops found on this machine, and compiling its kernels ahead of their first use."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version

import numpy as np

from ternops.cpu_caches import cpu_model
from ternops.isa import REASON, TIER, available
from ternops.kernels import tuned
from ternops.simd import host
from ternops.simd.folder import cache_state
from ternops.threads import default_threads


def info() -> dict[str, str]:
    """CPU, tier and why, threads, threading layer, cache folder, tuning and versions, as text."""
    tiers = ", ".join(tier.name for tier in available())
    return {
        "cpu": f"{cpu_model()} ({host.machine()}, LLVM's {host.cpu_name()})",
        "tier": f"{TIER.name}: {REASON} (available: {tiers})",
        "threads": f"{default_threads()} of {os.cpu_count()} CPUs",
        "threading layer": "ternops' own team (Numba's layers are not used)",
        "cache": cache_state(),
        "tuning": tuned.state(),
        "versions": (
            f"python {platform.python_version()}, numba {version('numba')}, "
            f"llvmlite {version('llvmlite')}, numpy {np.__version__}"
        ),
    }


def warmup(decoder: bool = False, progress: Callable[[int, int], None] | None = None) -> float:
    """Compile every kernel of the encodings that "auto" chooses among, for any number of tokens.

    decoder: those of a model besides, with any head and cache. Several are compiled at a time, on
    the usable CPUs. progress: called with the kernels that are there and all; without it one line
    on stderr says so. Returns the seconds it took (next to none when they are there).
    """
    from ternops.ahead.jobs import needed
    from ternops.ahead.pool import compile_missing
    from ternops.kernels.tuning import auto

    if progress is None:
        print(f"ternops: compiling for {TIER.name} ...", end=" ", file=sys.stderr, flush=True)
    start = time.perf_counter()
    jobs = needed(auto(), decoder).values()
    # What a process beside this one cannot, this one says when it tries itself.
    with suppress(RuntimeError, OSError):
        compile_missing(jobs, progress)
    for job in jobs:
        _ = job.address
    seconds = time.perf_counter() - start
    if progress is None:
        print(f"{seconds:.1f} s", file=sys.stderr)
    return seconds
