"""Timing in interleaved rounds.

A round runs every case once, so that a machine that drifts drifts for all of them, and value i of
two cases makes a fair pair.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyperf

#: A share of the limit above this means that the probe missed the limit.
MAX_SHARE = 1.02


def _nothing() -> None:
    pass


@dataclass
class Case:
    """Something to time: `run` does `loops` units of work; `values` are seconds a unit.

    before: what is done before each run and not timed. close: what is done once `run` is no longer
    needed.
    """

    name: str
    run: Callable[[], object]
    loops: int = 1
    metadata: dict[str, Any] = field(default_factory=dict)
    values: list[float] = field(default_factory=list)
    before: Callable[[], object] = _nothing
    close: Callable[[], object] = _nothing

    def release(self) -> None:
        """Let go of what `run` works on, which may be gigabytes; the values stay."""
        self.close()
        self.run = self.before = self.close = _nothing

    @property
    def median(self) -> float:
        """Seconds a unit."""
        return float(np.median(self.values))

    @property
    def spread(self) -> float:
        """Half the interquartile range over the median."""
        low, high = np.percentile(self.values, (25, 75))
        return float(high - low) / 2 / self.median

    def benchmark(self) -> pyperf.Benchmark:
        """This case as a pyperf benchmark."""
        metadata = {"name": self.name, "unit": "second", "loops": self.loops, **self.metadata}
        run = pyperf.Run(self.values, metadata=metadata, collect_metadata=False)
        return pyperf.Benchmark([run])


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
            case.before()
            start = time.perf_counter()
            case.run()
            seconds = (time.perf_counter() - start) / case.loops
            if number:
                case.values.append(seconds)
            advance(case.name)
