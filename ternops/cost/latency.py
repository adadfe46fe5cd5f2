"""How long each part of a pass takes: the larger of computing and reading, and the barriers.

The roofline model (Williams, Waterman and Patterson, CACM 2009), part by part. What is read comes
from the levels of memory in the proportion in which the working set lies in them: a set of half a
level's capacity is all in it, one of twice as much not at all, and straight on a logarithmic scale
in between, because caches evict by parts and are shared with others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ternops.cost.hardware import Curve, Hardware
from ternops.cost.workload import Part, Workload


@dataclass(frozen=True)
class Timed:
    """A part in seconds: computing, reading, preparing activations, and meeting.

    memory: reading, and what of computing does not overlap with it. hidden: of computing, what was
    measured together with reading, so that `memory` has it.

    bytes: by level. known: False where the profile has no rate for the kernel, so that reading
    alone counts and `seconds` is the least that there can be.
    """

    part: Part
    compute: float
    memory: float
    prepare: float
    barriers: float
    bytes: dict[str, float]
    known: bool = True
    hidden: float = 0.0

    @property
    def seconds(self) -> float:
        """Of the part."""
        return max(self.compute - self.hidden, self.memory) + self.prepare + self.barriers

    @property
    def bound(self) -> str:
        """What takes most of it: "compute", "memory", "prepare" or "barriers"."""
        terms = {
            "memory": self.memory, "compute": self.compute - self.hidden, "prepare": self.prepare,
            "barriers": self.barriers,
        }  # fmt: skip
        return max(terms, key=lambda name: terms[name])


def residence(hardware: Hardware, working_set: float, threads: int) -> dict[str, float]:
    """Level -> the share of a working set, read over and over, that is found there."""
    shares, found = {}, 0.0
    for level in hardware.levels:
        within = max(found, _within(working_set, level.room(threads)))
        shares[level.name] = within - found
        found = within
    return shares


def _within(working_set: float, room: float) -> float:
    if math.isinf(room):
        return 1.0
    return min(1.0, max(0.0, math.log2(2 * room / max(working_set, 1.0)) / 2))


def timed(work: Workload, hardware: Hardware, threads: int) -> list[Timed]:
    """Every part of a workload on a number of threads."""
    shares = residence(hardware, work.bytes / work.passes, threads)
    return [_timed(part, hardware, threads, shares) for part in work.parts]


def _timed(part: Part, hardware: Hardware, threads: int, shares: dict[str, float]) -> Timed:
    kernel, cycles = hardware.kernel(part.kernel), hardware.clock(threads)
    several = part.tokens > 1
    rate = kernel.gemm if several else kernel.gemv
    compute = _at(part.macs, rate, cycles * threads, threads)
    read = {level: share * part.bytes for level, share in shares.items() if share}
    memory = sum(read.get(level.name, 0.0) / level.rate(threads) for level in hardware.levels)
    hidden = 0.0
    if kernel.exposed and not several:
        # Measured from DRAM, where computing and reading overlap: there its rate from a cache is no
        # bound besides.
        hidden = compute * shares[hardware.levels[-1].name]
        memory += kernel.exposed.at(threads) * hidden
    # One token is prepared by every thread for itself, more are shared out.
    preparing = threads if several else 1
    return Timed(
        part, compute, memory,
        _at(part.prepared, kernel.prepare, cycles * preparing, threads),
        part.barriers * hardware.barrier.at(threads) if threads > 1 else 0.0,
        read, known=bool(rate) or not part.macs, hidden=hidden,
    )  # fmt: skip


def _at(count: int, rate: Curve | None, cycles: float, threads: int) -> float:
    """Seconds of a number of operations at a rate a cycle; 0 if that is unknown."""
    return count / (rate.at(threads) * cycles) if rate else 0.0
