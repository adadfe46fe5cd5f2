"""Measuring this machine's profile: memory by level, every kernel, fixed costs; within a minute.

Kernels alone are timed, and decoders without weights to speak of: what a whole token takes is for
`ternops.cost.predict` to say. At every level kernels and read probes take turns over the same
bytes, so that a machine that drifts drifts for both.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ternops.cost.measured import PROBE, SECOND, SHARED, Figures, has_own_caches, measured
from ternops.cost.mountain import Shared, shared_cache
from ternops.cost.profile import EDGE_UNIT, FIXED, FIXED_UNIT, KERNEL_UNITS, REACH, REACH_UNIT
from ternops.cost.rounds import ROUNDS, Memory, Turn, interleaved, memory_bytes
from ternops.cost.trials import Attention, Chain, Rows
from ternops.cost.workload import ATTENTION, ELEMENTWISE, KINDS
from ternops.cpu_caches import cpu_cache_bytes, cpu_model
from ternops.isa import available
from ternops.simd import host
from ternops.threads import check_threads, default_threads

#: Called with what is measured next.
Announce = Callable[[str], None]

_COLUMNS = 2048  # of what is prepared and of norms
_HEAD_DIM, _POSITIONS = 128, 512
_TRIES, _MIN_SCALING = 3, 0.7
_MIN_ROW = 1e-9  # as good as none: a profile's figures are above 0
_USUAL_CLOCK = 3.0  # GHz, where the system does not tell
_SOURCE = "measured by ternops calibrate"


def calibrate(threads: Sequence[int] | None = None, announce: Announce = lambda what: None) -> Any:
    """The profile of this machine as tables for `profile.parse` or a TOML file.

    threads: counts to measure with, by default 1, 2 and all. Raises TypeError or ValueError for
    what is no count of threads.
    """
    counts, (clock, told) = chosen_threads(threads), _clock()
    memory = Memory(memory_bytes())
    announce("caches")
    shared = shared_cache(memory, PROBE)
    found = {}
    for count in counts:
        announce(f"{count} thread(s)")
        for _ in range(_TRIES):
            found[count] = measured(memory, shared, count)
            if _scales(found):
                break
    profile = {
        "name": cpu_model(),
        "arch": "x86" if host.machine() in ("x86_64", "amd64") else "arm",
        "tiers": [tier.name for tier in reversed(available())],
        "memory": _figure(_memory() / 1e9, "GB", "the system"),
        "cores": [{
            "kind": "usable", "count": default_threads(),
            "clock": _figure(clock / 1e9, "GHz", told),
        }],
        "levels": [_level(name, shared, found) for name in found[counts[0]].rates],
        "kernels": _kernels(found, clock),
    }  # fmt: skip
    several = [count for count in counts if count > 1]
    if several:
        times = [1e6 * found[count].barrier for count in several]
        profile["barrier"] = {"time": _curve(times, several, "us")}
    return profile


def chosen_threads(threads: Sequence[int] | None) -> list[int]:
    """In order, each once; TypeError or ValueError for what is no count."""
    most = default_threads()
    chosen = (1, min(2, most), most) if threads is None or not len(threads) else threads
    return sorted({check_threads(each) for each in chosen})


def _scales(found: Mapping[int, Figures]) -> bool:
    """Whether the most threads read their own caches nearly as fast as fewer do, each of them.

    If not, another program had their CPUs meanwhile.
    """
    fewest, most = min(found), max(found)
    each = [found[count].rates.get(SECOND, count) / count for count in (fewest, most)]
    return not has_own_caches() or each[1] >= _MIN_SCALING * each[0]


def _level(name: str, shared: Shared | None, found: Mapping[int, Figures]) -> dict[str, Any]:
    """A level's table."""
    counts = list(found)
    table: dict[str, Any] = {"name": name}
    is_private = name == SECOND and has_own_caches()
    if name == SECOND:
        table["capacity"] = _figure(cpu_cache_bytes()[2] / 2**20, "MiB", "the system")
    elif name == SHARED and shared:
        table["capacity"] = _figure(shared.capacity / 2**20, "MiB", _SOURCE)
        table["edge"] = _figure(shared.edge, EDGE_UNIT, _SOURCE)
        if shared.refill:
            table["refill"] = _figure(shared.refill / 1e9, "GB/s", _SOURCE)
    if "capacity" in table:
        table["shared"] = not is_private
    shown = counts[:1] if is_private else counts
    rates = [found[count].rates[name] / 1e9 for count in shown]
    if is_private:
        rates = [rates[0] / shown[0]]
        shown = [1]
    table["bandwidth"] = _curve(rates, shown, "GB/s")
    if all(name in each.fixed for each in found.values()):
        table["fixed"] = {
            what: _curve([1e6 * found[count].fixed[name][i] for count in counts], counts,
                         FIXED_UNIT)
            for i, what in enumerate(FIXED)
        }  # fmt: skip
    return table


def _kernels(found: Mapping[int, Figures], clock: float) -> dict[str, Any]:
    """The tables of all kernels, in units of cycles."""
    counts = list(found)
    kernels: dict[str, Any] = {}
    for kind in KINDS:
        figures = {
            "gemv": [1 / found[count].macs[kind] / clock / count for count in counts],
            "row": [max(_MIN_ROW, found[count].rows[kind] * clock * count) for count in counts],
            "gemm": [1 / found[count].many[kind] / clock / count for count in counts],
        }
        kernels[kind] = {
            name: _curve(values, counts, KERNEL_UNITS[name]) for name, values in figures.items()
        }
        kernels[kind]["prepare"] = _per_cycle(_prepared(kind) / clock)
        kernels[kind][REACH] = {
            level: _curve([found[count].reach[level][kind] for count in counts], counts, REACH_UNIT)
            for level, by_kind in found[counts[0]].reach.items() if by_kind
        }  # fmt: skip
    attention = [_attention(count) / clock for count in counts]
    kernels[ATTENTION] = {
        name: _curve(attention, counts, KERNEL_UNITS[name]) for name in ("gemv", "gemm")
    }
    rows = Rows(_COLUMNS, 1)
    kernels[ELEMENTWISE] = {"prepare": _per_cycle(rows.count / _seconds(rows.run) / clock)}
    return kernels


def _prepared(kind: str) -> float:
    """Activations a second that one thread prepares."""
    chain = Chain(kind, 64, _COLUMNS, 1, 1, "stream", 1)
    return chain.prepared / _seconds(chain.prepare)


def _attention(threads: int) -> float:
    """Multiply-accumulates a second of one of some threads."""
    trial = Attention(_HEAD_DIM, _POSITIONS, threads)
    return trial.macs / _seconds(trial.run)


def _seconds(run: Callable[[int], object]) -> float:
    return float(np.median(interleaved([Turn(run)], ROUNDS)))


def _figure(value: float, unit: str, source: str) -> dict[str, Any]:
    return {"value": float(f"{value:.4g}"), "unit": unit, "source": source}


def _per_cycle(value: float) -> dict[str, Any]:
    return _figure(value, KERNEL_UNITS["prepare"], _SOURCE)


def _curve(values: Sequence[float], threads: Sequence[int], unit: str) -> dict[str, Any]:
    return {
        "value": [float(f"{each:.4g}") for each in values], "threads": list(threads),
        "unit": unit, "source": _SOURCE,
    }  # fmt: skip


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
