"""Timing in interleaved rounds, and the statistics of it.

A round runs every case once, so that a machine that drifts drifts for all of them, and value i of
two cases makes a fair pair.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyperf

from bench.core.errors import first_line
from bench.core.process import WorkerError

#: A share of the limit above this means that the probe missed the limit.
MAX_SHARE = 1.02


def nothing() -> None:
    """Takes no time."""


@dataclass
class Case:
    """Something to time: `run` does `loops` units of work; `values` are seconds a unit.

    before: what is done before each run and not timed. close: what is done once `run` is no longer
    needed. has_clock: `run` gives the seconds itself, because another process took the time.
    failure: why `run` failed in that process, in a line; it is not run again then.
    """

    name: str
    run: Callable[[], object]
    loops: int = 1
    metadata: dict[str, Any] = field(default_factory=dict)
    values: list[float] = field(default_factory=list)
    before: Callable[[], object] = nothing
    close: Callable[[], object] = nothing
    has_clock: bool = False
    failure: str = ""

    def release(self) -> None:
        """Let go of what `run` works on, which may be gigabytes; the values stay."""
        self.close()
        self.run = self.before = self.close = nothing

    @property
    def median(self) -> float:
        """Seconds a unit."""
        return float(np.median(self.values))

    @property
    def spread(self) -> float:
        return relative_spread(self.values)

    def benchmark(self) -> pyperf.Benchmark:
        """This case as a pyperf benchmark."""
        metadata = {"name": self.name, "unit": "second", "loops": self.loops, **self.metadata}
        run = pyperf.Run(self.values, metadata=metadata, collect_metadata=False)
        return pyperf.Benchmark([run])


def relative_spread(values: Sequence[float]) -> float:
    """Half the interquartile range over the median."""
    low, median, high = np.percentile(values, (25, 50, 75))
    return float(high - low) / 2 / float(median)


def loops_for(seconds: float, run: Callable[[], object]) -> int:
    """How often to run something so that it takes about that long; it is run twice to find out."""
    run()
    start = time.perf_counter()
    run()
    once = time.perf_counter() - start
    return max(1, math.ceil(seconds / max(once, 1e-9)))


def interleave(
    cases: Sequence[Case], rounds: int, advance: Callable[[str], None] = lambda name: None
) -> None:
    """Run every case once in each of `rounds` rounds, after one that does not count."""
    for number in range(rounds + 1):
        for case in cases:
            if not case.failure and (seconds := _seconds(case)) and number:
                case.values.append(seconds / case.loops)
            advance(case.name)


def _seconds(case: Case) -> float:
    """Of one run; 0 if it failed in its process, which leaves the case without values."""
    try:
        case.before()
        start = time.perf_counter()
        found = case.run()
    except WorkerError as error:
        case.failure = first_line(error)
        case.values.clear()
        return 0.0
    seconds = time.perf_counter() - start
    return float(found) if case.has_clock else seconds  # type: ignore[arg-type]


class Spread(NamedTuple):
    """A median with the quartiles around it, all in the unit of the sample."""

    median: float
    low: float
    high: float


def speedup(slower: Sequence[float], faster: Sequence[float]) -> Spread:
    """How many times faster the second of two interleaved series of seconds is.

    Value i of both was measured in the same round, so that slow drifts of the machine (clock,
    neighbours) cancel in each ratio: the result is the median of the ratios and their quartiles.
    """
    if len(slower) != len(faster) or not slower:
        raise ValueError(f"{len(slower)} and {len(faster)} values cannot be paired")
    low, median, high = np.percentile(np.asarray(slower) / np.asarray(faster), (25, 50, 75))
    return Spread(float(median), float(low), float(high))
