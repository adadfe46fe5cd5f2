"""What the machine can do, measured at the beginning of a run: memory, instructions, barriers."""

from __future__ import annotations

from typing import Any

from bench.core.command import Advance
from bench.core.kernels import Timings
from bench.core.measure import Case, interleave
from bench.limits import levels

_BARRIER = "barrier"


def steps(threads: list[int]) -> int:
    """How often `measure` calls advance."""
    return len(threads) * (len(levels.LEVELS) + 1)


def measure(threads: list[int], rounds: int, advance: Advance) -> list[dict[str, Any]]:
    """The fastest way found of each: "what", "threads", "rate", "unit", "how".

    Bytes are read from what fits the second-level cache of each thread, from half of the last
    level, and from memory.
    """
    found = []
    for count in threads:
        for level in (*levels.LEVELS, ""):
            cases = levels.all_limits("limits", level or "instructions", level, count)
            interleave(cases, rounds)
            found += _fastest(cases, level, count)
            for case in cases:
                case.release()
            advance(f"{level or 'instructions'}, {count} thread(s)")
    return found


def _fastest(cases: list[Case], level: str, threads: int) -> list[dict[str, Any]]:
    results = Timings(cases)
    found = []
    for what in dict.fromkeys(limit.what for limit in results.limits):
        limit = results.fastest(what=what)
        assert limit is not None
        rate = results.limit_rate(limit)
        found.append({
            "what": what, "threads": threads,
            "rate": 1e6 * threads / rate if what == _BARRIER else rate / 1e9,
            "unit": "us" if what == _BARRIER else "GB/s" if level else "GMAC/s",
            "how": limit.how,
        })  # fmt: skip
    return found
