"""Cases for each limit: levels of memory that are read, instructions, barriers; and their rates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np

from bench.core.command import Advance
from bench.core.envelope import TIER
from bench.core.kernels import Limit, Timings, describe
from bench.core.measure import Case, interleave
from bench.limits.peaks import BARRIER, PEAKS, Peak, Unit
from ternops.cost.probes import PROBES, Probe, Reader
from ternops.cpu_caches import cpu_cache_bytes, last_level_bytes

#: Weights in memory: more than any cache holds.
DRAM_BYTES = 512 << 20
L2, LAST, DRAM = "L2", "last level", "DRAM"
LEVELS = (L2, LAST, DRAM)
#: Everything that is a limit: "" stands for instructions, and for barriers of several threads.
ALL = (*LEVELS, "")

_READ_AT_ONCE = 64 << 20  # bytes that a probe reads between two looks at the clock
_ROUNDS = 20_000  # of a peak: about a millisecond
_L2 = cpu_cache_bytes().get(2, 1 << 20)


def level_bytes(level: str, threads: int) -> int | None:
    """Bytes that fit a level which `threads` share; None where that is not certain."""
    if level == DRAM:
        return DRAM_BYTES
    if level == L2:
        return _L2 // 2 * threads
    half = last_level_bytes() // 2
    return half if max(cpu_cache_bytes(), default=0) > 2 and half >= 2 * _L2 * threads else None


def level_of(size: int, threads: int) -> str:
    """The fastest level that can hold a good part of `size` bytes."""
    if size <= 4 * _L2 * threads:
        return L2
    return LAST if size <= 2 * last_level_bytes() else DRAM


def probe_cases(what: str, reader: Reader, threads: int, times: int = 1) -> list[Case]:
    """A case for each way to read the buffer; `what` it is the limit of goes into the names."""

    def case(probe: Probe) -> Case:
        return Case(
            f"read {reader.size >> 20} MiB for {what}, {probe}, {threads} thread(s)",
            lambda: reader.run(probe, threads, times),
            times,
            metadata={
                "ternops_threads": threads, "ternops_bytes": reader.size,
                "ternops_probe": str(probe),
            },
        )  # fmt: skip

    return [case(probe) for probe in PROBES]


def bandwidth(probes: Sequence[Case], beside: Sequence[float]) -> float:
    """Bytes a second of the fastest probe, while the values `beside` were taken in turn with it.

    Where memory is fast for some seconds and throttled after them, as clouds do it, the median of
    the one may come from other rounds than the median of the other: their quotients are taken round
    by round, so that the median of `beside` over this has the median share of the limit.
    """
    fastest = max(probes, key=lambda case: case.metadata["ternops_bytes"] / case.median)
    values = np.asarray(beside)
    read = fastest.metadata["ternops_bytes"] / np.asarray(fastest.values)
    return float(1 / (np.median(values) * np.median(1 / (values * read))))


def read_limits(section: str, group: str, level: str, threads: int) -> list[Case]:
    """Every probe of a level of memory."""
    size = level_bytes(level, threads)
    if size is None:
        return []
    cases = probe_cases(group, Reader(size), threads, max(1, _READ_AT_ONCE // size))
    for case in cases:
        how = case.metadata["ternops_probe"]
        describe(case, Limit(section, group, level, how, threads, size, TIER))
    return cases


def peak_limits(
    section: str, group: str, threads: int, peaks: Iterable[Peak] = PEAKS
) -> list[Case]:
    """The rates of instructions."""
    unit = Unit()
    cases = []
    for peak in peaks:
        amount = max(1, peak.macs) * threads
        what = Limit(section, group, peak.what, peak.how, threads, amount, TIER)
        run = partial(unit.run, peak, threads, _ROUNDS)
        cases.append(describe(Case("", run, _ROUNDS), what))
    return cases


def all_limits(section: str, group: str, level: str, threads: int) -> list[Case]:
    """Those of one of ALL."""
    if level:
        return read_limits(section, group, level, threads)
    return peak_limits(section, group, threads, (*PEAKS, *([BARRIER] if threads > 1 else [])))


def steps(threads: list[int]) -> int:
    """How often `measure` calls advance."""
    return len(threads) * len(ALL)


def measure(threads: list[int], rounds: int, advance: Advance) -> list[dict[str, Any]]:
    """What the machine can do, measured at the beginning of a run.

    The fastest way found of each: "what", "threads", "rate", "unit", "how". Bytes are read from
    what fits the second-level cache of each thread, from half of the last level, and from memory.
    """
    found = []
    for count in threads:
        for level in ALL:
            cases = all_limits("limits", level or "instructions", level, count)
            interleave(cases, rounds)
            results = Timings(cases)
            for what in dict.fromkeys(limit.what for limit in results.limits):
                limit = results.fastest(what=what)
                assert limit is not None
                rate, unit = results.limit_rate(limit) / 1e9, "GB/s" if level else "GMAC/s"
                if what == BARRIER.what:
                    rate, unit = 1e6 * results.limits[limit].median, "us"
                found.append({
                    "what": what, "threads": count, "rate": rate, "unit": unit, "how": limit.how,
                })  # fmt: skip
            for case in cases:
                case.release()
            advance(f"{level or 'instructions'}, {count} thread(s)")
    return found
