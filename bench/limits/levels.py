"""Cases for each limit: levels of memory that are read, instructions, barriers."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from bench.core.envelope import TIER
from bench.core.kernels import Limit, describe
from bench.core.measure import Case
from bench.limits.peaks import BARRIER, PEAKS, Peak, Unit
from bench.limits.probes import probe_cases
from ternops.cost.probes import Reader
from ternops.cpu_caches import cpu_cache_bytes, last_level_bytes

#: Weights in memory: more than any cache holds.
DRAM_BYTES = 512 << 20
L2, LAST, DRAM = "L2", "last level", "DRAM"
LEVELS = (L2, LAST, DRAM)

_READ_AT_ONCE = 64 << 20  # bytes that a probe reads between two looks at the clock
_ROUNDS = 20_000  # of a peak: about a millisecond
_L2 = cpu_cache_bytes().get(2, 1 << 20)


def level_bytes(level: str, threads: int) -> int | None:
    """A size that lies in a level while so many threads share it; None if none does for sure."""
    if level == DRAM:
        return DRAM_BYTES
    if level == L2:
        return _L2 // 2 * threads
    half = last_level_bytes() // 2
    return half if max(cpu_cache_bytes(), default=0) > 2 and half >= 2 * _L2 * threads else None


def level_of(size: int, threads: int) -> str:
    """The fastest level that can hold a good part of so many bytes."""
    if size <= 4 * _L2 * threads:
        return L2
    return LAST if size <= 2 * last_level_bytes() else DRAM


def read_limits(section: str, group: str, level: str, threads: int) -> list[Case]:
    """Every probe of a level of memory."""
    size = level_bytes(level, threads)
    if size is None:
        return []
    cases = probe_cases(group, Reader(size), threads, max(1, _READ_AT_ONCE // size))
    for case in cases:
        how = case.metadata["ternops_probe"]
        what = Limit(section, group, level, how, threads, size, TIER)
        describe(case, what)
    return cases


def peak_limits(
    section: str, group: str, threads: int, peaks: Iterable[Peak] = PEAKS
) -> list[Case]:
    """The rates of instructions; of a barrier where there are threads to wait for."""
    unit = Unit()
    cases = []
    for peak in peaks:
        what = Limit(
            section, group, peak.what, peak.how, threads, max(1, peak.macs) * threads,
            TIER,
        )  # fmt: skip
        run = partial(unit.run, peak, threads, _ROUNDS)
        cases.append(describe(Case("", run, _ROUNDS), what))
    return cases


def barrier_limit(section: str, group: str, threads: int) -> list[Case]:
    """One meeting of all threads."""
    return peak_limits(section, group, threads, [BARRIER]) if threads > 1 else []


def all_limits(section: str, group: str, level: str, threads: int) -> list[Case]:
    """Those of a level, or without one those of instructions and a barrier."""
    if level:
        return read_limits(section, group, level, threads)
    return peak_limits(section, group, threads) + barrier_limit(section, group, threads)
