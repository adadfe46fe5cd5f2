"""What ternops found on this machine, and compiling its kernels ahead of their first use."""

from __future__ import annotations

import os
import platform
import sys
import time
from importlib.metadata import version

import numpy as np

from ternops.isa import REASON, TIER, available
from ternops.simd import Job, host
from ternops.simd.folder import cache_state
from ternops.threads import default_threads


def info() -> dict[str, str]:
    """CPU, tier and why, threads, threading layer, cache folder and versions, as text."""
    tiers = ", ".join(tier.name for tier in available())
    return {
        "cpu": f"{cpu_model()} ({host.machine()}, LLVM's {host.cpu_name()})",
        "tier": f"{TIER.name}: {REASON} (available: {tiers})",
        "threads": f"{default_threads()} of {os.cpu_count()} CPUs",
        "threading layer": "ternops' own team (Numba's layers are not used)",
        "cache": cache_state(),
        "versions": (
            f"python {platform.python_version()}, numba {version('numba')}, "
            f"llvmlite {version('llvmlite')}, numpy {np.__version__}"
        ),
    }


def warmup(decoder: bool = False) -> float:
    """Compile every kernel of the encodings that "auto" chooses among, for any number of tokens.

    decoder: those of a model besides, with any head and cache. Says so in one line on stderr;
    returns the seconds it took (next to none when cached).
    """
    from ternops.decoder.attention import CACHES
    from ternops.decoder.forward import forward
    from ternops.kernels.linear import linear
    from ternops.kernels.plan import KERNELS, UNPACKED
    from ternops.kernels.screen import quantize_head
    from ternops.matrix import matmul, pack

    print(f"ternops: compiling for {TIER.name} ...", end=" ", file=sys.stderr, flush=True)
    start = time.perf_counter()
    jobs: list[Job] = [linear]
    if decoder:
        jobs += [forward, quantize_head]
        jobs += [job for _, *both in CACHES.values() for job in both]
        jobs += [job for each in UNPACKED.values() for job in (each.prepare, each.multiply)]
    for (encoding, _), kernels in KERNELS.items():
        if encoding in TIER.auto:
            jobs += kernels
    for job in jobs:
        _ = job.address
    # Large enough for a second thread, so that the team's own functions are compiled too.
    matmul(pack(np.zeros((2048, 2048), np.int8)), np.zeros(2048, np.int8))
    seconds = time.perf_counter() - start
    print(f"{seconds:.1f} s", file=sys.stderr)
    return seconds


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
