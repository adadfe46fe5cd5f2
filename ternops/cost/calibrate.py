"""Measuring this machine's profile: memory by level, every kernel, barriers; within a minute.

Kernels alone are timed, no decoder: what a whole token takes is for `ternops.cost.predict` to say.
"""

from __future__ import annotations

import os
import re
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ternops.cost.probes import PROBES, Reader
from ternops.cost.profile import KERNEL_UNITS
from ternops.cost.trials import Attention, Chain, Rows, meet
from ternops.cost.workload import ATTENTION, ELEMENTWISE, FP16
from ternops.cpu_caches import cpu_cache_bytes, cpu_model, last_level_bytes
from ternops.encodings import ENCODINGS
from ternops.isa import available
from ternops.simd import host
from ternops.threads import check_threads, default_threads

#: Called with what is measured next.
Announce = Callable[[str], None]

_COLUMNS = 2048  # of every matrix, and elements of every row
_ROWS = 2048  # of the matrices that are read from memory
_TOKENS = 128  # of a GEMM
_HEAD_DIM, _POSITIONS = 128, 512
_ROUNDS = 7
_TURN = 0.002  # seconds between two looks at the clock, at least
# Data this many times as large as the last-level cache is not found in it again.
_CACHES = 8
_MIN_EXPOSED = 0.001  # as good as none: a profile's figures are above 0
_USUAL_CLOCK = 3.0  # GHz, where the system does not tell


class _Trial(NamedTuple):
    """Something to time: `run` is told how often to do it."""

    run: Callable[[int], object]
    times: int


def calibrate(threads: Sequence[int] | None = None, announce: Announce = lambda what: None) -> Any:
    """The profile of this machine as tables for `profile.parse` or a TOML file.

    threads: counts to measure with, by default 1, 2 and all. Raises TypeError or ValueError for
    what is no count of threads.
    """
    most, counts = default_threads(), chosen_threads(threads)
    clock, told = _clock()
    levels = [_level(name, size, counts, announce) for name, size in _sizes(counts[-1])]
    kernels = {kind: _kernel(kind, counts, clock, announce) for kind in (FP16, *ENCODINGS)}
    announce(ATTENTION)
    kernels[ATTENTION] = _attention(counts, clock)
    kernels[ELEMENTWISE] = _elementwise(clock)
    profile = {
        "name": cpu_model(),
        "arch": "x86" if host.machine() in ("x86_64", "amd64") else "arm",
        "tiers": [tier.name for tier in reversed(available())],
        "memory": _figure(_memory() / 1e9, "GB", "the system"),
        "cores": [{
            "kind": "usable", "count": most, "clock": _figure(clock / 1e9, "GHz", told)
        }],
        "levels": levels,
        "kernels": kernels,
    }  # fmt: skip
    if len(counts) > 1:
        announce("barriers")
        profile["barrier"] = {"time": _barrier([each for each in counts if each > 1])}
    return profile


def chosen_threads(threads: Sequence[int] | None) -> list[int]:
    """In order, each once; TypeError or ValueError for what is no count."""
    most = default_threads()
    chosen = (1, min(2, most), most) if threads is None or not len(threads) else threads
    return sorted({check_threads(each) for each in chosen})


def _seconds(trials: Sequence[_Trial]) -> list[float]:
    """The median seconds of one go of each trial, in interleaved rounds, after one to warm up."""
    taken: list[list[float]] = [[] for _ in trials]
    for number in range(_ROUNDS + 1):
        for trial, values in zip(trials, taken, strict=True):
            start = time.perf_counter()
            trial.run(trial.times)
            if number:
                values.append((time.perf_counter() - start) / trial.times)
    return [statistics.median(each) for each in taken]


def _trial(run: Callable[[int], object]) -> _Trial:
    """As often as takes a while."""
    run(1)
    start = time.perf_counter()
    run(1)
    once = time.perf_counter() - start
    return _Trial(run, max(1, round(_TURN / max(once, 1e-7))))


def _figure(value: float, unit: str, source: str) -> dict[str, Any]:
    return {"value": float(f"{value:.4g}"), "unit": unit, "source": source}


def _curve(values: Sequence[float], threads: Sequence[int], unit: str) -> dict[str, Any]:
    return {
        "value": [float(f"{each:.4g}") for each in values], "threads": list(threads),
        "unit": unit, "source": "measured by ternops calibrate",
    }  # fmt: skip


def _sizes(most: int) -> list[tuple[str, int]]:
    """Levels and their bytes; DRAM has none. A cache that cores share is the last one."""
    caches = cpu_cache_bytes()
    sizes = [(f"L{level}", size) for level, size in sorted(caches.items()) if level > 1]
    return [*sizes, ("DRAM", 0)]


def _level(name: str, size: int, counts: Sequence[int], announce: Announce) -> dict[str, Any]:
    """A level's table: the fastest way to read half of it, or of DRAM several caches."""
    announce(f"{name} bandwidth")
    is_private = name == "L2" and len(cpu_cache_bytes()) > 2
    rates = []
    for threads in [1] if is_private else counts:
        reader = Reader(size // 2 if size else _CACHES * last_level_bytes())
        trials = [_trial(partial(reader.run, probe, threads)) for probe in PROBES]
        rates.append(reader.size / min(_seconds(trials)) / 1e9)
    table: dict[str, Any] = {"name": name}
    if size:
        table["capacity"] = _figure(size / 2**20, "MiB", "the system")
        table["shared"] = not is_private
    table["bandwidth"] = _curve(rates, [1] if is_private else counts, "GB/s")
    return table


def _kernel(kind: str, counts: Sequence[int], clock: float, announce: Announce) -> dict[str, Any]:
    """One encoding's figures: computing from a cache, many tokens, and reading from memory."""
    announce(f"{kind} kernels")
    found: dict[str, list[float]] = {name: [] for name in ("gemv", "gemm", "exposed")}
    one = Chain(kind, _cached_rows(kind), _COLUMNS, 1, 1, "stream", 1)
    times, prepared = _seconds([_trial(one.multiply), _trial(one.prepare)])
    count = -(-_CACHES * last_level_bytes() // one.total * one.macs // (_ROWS * _COLUMNS))
    for threads in counts:
        # A decoder has the kernels for weights from memory, wherever these are found.
        cached = Chain(kind, _cached_rows(kind) * threads, _COLUMNS, 1, 1, "stream", threads)
        many = Chain(kind, _ROWS // 2, _COLUMNS, 1, _TOKENS, "many", threads)
        times, together = _seconds([_trial(cached.multiply), _trial(many.multiply)])
        found["gemv"].append(cached.macs / times / clock / threads)
        found["gemm"].append(many.macs / together / clock / threads)
        found["exposed"].append(_exposed(kind, int(count), threads, cached.macs / times))
    table = {name: _curve(found[name], counts, KERNEL_UNITS[name]) for name in found}
    rate = one.prepared / prepared / clock
    table["prepare"] = _figure(rate, KERNEL_UNITS["prepare"], "measured by ternops calibrate")
    return table


def _cached_rows(kind: str) -> int:
    """Rows of a matrix that is found in the second-level cache of one core."""
    size = cpu_cache_bytes().get(2, 1 << 20) // 4
    row = 2 * _COLUMNS if kind == FP16 else ENCODINGS[kind].nbytes(64, _COLUMNS) // 64
    return max(1, size // row // 64) * 64


def _exposed(kind: str, count: int, threads: int, rate: float) -> float:
    """What a chain of matrices from DRAM takes beyond reading, measured in turn, of computing.

    rate: multiply-accumulates a second from a cache.
    """
    chain = Chain(kind, _ROWS, _COLUMNS, count, 1, "stream", threads)
    reader = Reader(_CACHES * last_level_bytes())
    trials = [
        _Trial(chain.multiply, 1), _Trial(partial(meet, threads), 1000),
        *(_Trial(partial(reader.run, probe, threads), 1) for probe in PROBES),
    ]  # fmt: skip
    multiply, barrier, *reads = _seconds(trials)
    alone = multiply - count * (barrier if threads > 1 else 0.0)
    reading = chain.total / (reader.size / min(reads))
    return min(1.0, max(_MIN_EXPOSED, (alone - reading) / (chain.macs / rate)))


def _attention(counts: Sequence[int], clock: float) -> dict[str, Any]:
    rates = []
    for threads in counts:
        trial = Attention(_HEAD_DIM, _POSITIONS, threads)
        (seconds,) = _seconds([_trial(trial.run)])
        rates.append(trial.macs / seconds / clock)
    return {name: _curve(rates, counts, KERNEL_UNITS[name]) for name in ("gemv", "gemm")}


def _elementwise(clock: float) -> dict[str, Any]:
    rows = Rows(_COLUMNS, 1)
    (seconds,) = _seconds([_trial(rows.run)])
    source = "measured by ternops calibrate"
    return {"prepare": _figure(rows.count / seconds / clock, KERNEL_UNITS["prepare"], source)}


def _barrier(counts: Sequence[int]) -> dict[str, Any]:
    values = [1e6 * _seconds([_trial(partial(meet, threads))])[0] for threads in counts]
    return _curve(values, counts, "us")


def _memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        raise ValueError("memory: the system does not tell how much there is") from None


def _clock() -> tuple[float, str]:
    """Hertz, and who says so. Rates a cycle and the clock are only ever used together."""
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        text = ""
    found = re.search(r"^cpu MHz\s*:\s*(\d+(?:\.\d+)?)$", text, re.MULTILINE)
    if found and float(found[1]):  # some virtual machines say 0
        return float(found[1]) * 1e6, "/proc/cpuinfo"
    return _USUAL_CLOCK * 1e9, "assumed: the system does not tell; rates a cycle are for it"
