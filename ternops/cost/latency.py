"""How long each part of a pass takes: computing and reading together, barriers, and fixed costs.

The roofline model (Williams, Waterman and Patterson, CACM 2009), part by part, with what the
execution-cache-memory model adds to it (Treibig and Hager, PPAM 2009): a kernel's rate is that from
the second-level cache, every level further out has a bandwidth of its own, and computing overlaps
with reading, but not wholly. Instead of that model's sum of what does not overlap, which is for one
core and known instructions, the ridge is a rounded corner, `together`.

What is read comes from the levels of memory in the proportion in which the working set lies in
them: whole in a level up to a size, not at all from another one on, and straight on a logarithmic
scale in between, because caches evict by parts. In a cache that is shared with neighbours, what
these bring in until the next pass counts as well: a slower kernel finds less there (the
characteristic time of a cache; Che, Tung and Wang, 2002).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ternops.cost.hardware import Curve, Fixed, Hardware, Kernel
from ternops.cost.workload import Part, Workload

#: The exponent of `together`. Encodings that compute as long as they read take 2**(1/5) = 1.15
#: times as long as either; measured on Sapphire Rapids from its L3: 1.12.
CORNER = 5.0
#: A kernel may read faster than the fastest probe, by little: 1.1 times on Sapphire Rapids.
MAX_REACH = 1.25
_PASSES = 64  # after which a pass takes as long as the one before


@dataclass(frozen=True)
class Timed:
    """A part in seconds: computing, reading, preparing activations, meeting, and fixed costs.

    compute, memory: each if there were nothing else. product: both, as they overlap. bytes: by
    level. known: False where the profile has no rate for the kernel, so that reading alone counts
    and `seconds` is the least that there can be.
    """

    part: Part
    compute: float
    memory: float
    product: float
    prepare: float
    barriers: float
    fixed: float
    bytes: dict[str, float]
    known: bool = True

    @property
    def seconds(self) -> float:
        """Of the part."""
        return self.product + self.prepare + self.barriers + self.fixed

    @property
    def bound(self) -> str:
        """What takes most of it: "compute", "memory", "prepare", "barriers" or "fixed"."""
        terms = {
            "memory": self.memory, "compute": self.compute, "prepare": self.prepare,
            "barriers": self.barriers, "fixed": self.fixed,
        }  # fmt: skip
        return max(terms, key=lambda name: terms[name])


def together(compute: float, memory: float) -> float:
    """Seconds of computing and reading beside one another.

    The larger where the other one is small, as in the roofline model; more where neither is.
    """
    larger, smaller = max(compute, memory), min(compute, memory)
    return larger * (1 + (smaller / larger) ** CORNER) ** (1 / CORNER) if larger else 0.0


def reach_of(read: float, compute: float, whole: float) -> float:
    """The reach of a kernel that took so long where reading alone took `read`, computing `compute`.

    Nothing is known where computing takes as long alone; then, and at the most, MAX_REACH.
    """
    memory = whole * max(0.0, 1 - (compute / whole) ** CORNER) ** (1 / CORNER)
    return min(MAX_REACH, read / memory) if memory else MAX_REACH


def residence(
    hardware: Hardware, working_set: float, threads: int, seconds: float = 0.0
) -> dict[str, float]:
    """Level -> the share of a working set, read over and over, that is found there.

    seconds: from one time to the next.
    """
    shares, found = {}, 0.0
    for level in hardware.levels:
        size = working_set + level.refill * seconds
        within = max(found, _within(size, level.room(threads), level.edge))
        shares[level.name] = within - found
        found = within
    return shares


def _within(working_set: float, room: float, edge: float) -> float:
    if math.isinf(room):
        return 1.0
    share = 0.5 + (math.log(room) - math.log(max(working_set, 1.0))) / math.log(edge)
    return min(1.0, max(0.0, share))


def timed(work: Workload, hardware: Hardware, threads: int) -> list[Timed]:
    """Every part of a workload on a number of threads."""
    size = work.bytes / work.passes
    # The first passes find nothing; each may find more than the one before, as it is faster.
    shares = residence(hardware, math.inf, threads)
    for _ in range(_PASSES):
        parts = [_timed(part, hardware, threads, shares) for part in work.parts]
        seconds = math.fsum(part.seconds for part in parts) / work.passes
        before, shares = shares, residence(hardware, size, threads, seconds)
        if shares == before:
            break
    return parts


def _timed(part: Part, hardware: Hardware, threads: int, shares: dict[str, float]) -> Timed:
    kernel, cycles = hardware.kernel(part.kernel), hardware.clock(threads)
    several = part.tokens > 1
    rate = kernel.gemm if several else kernel.gemv
    compute = _at(part.macs, rate, cycles * threads, threads)
    if kernel.row and not several:
        compute += part.rows * kernel.row.at(threads) / (cycles * threads)
    memory = product = fixed = 0.0
    read = {}
    for level in hardware.levels:
        share = shares[level.name]
        if share:
            read[level.name] = share * part.bytes
            seconds = part.bytes / (_reach(kernel, level.name, threads) * level.rate(threads))
            memory += share * seconds
            # As if all were there, by shares: what is read at one level does not hide what is
            # computed with the bytes of another.
            product += share * together(compute, seconds)
            fixed += share * _sum(part, level.fixed, threads)
    # One token is prepared by every thread for itself, more are shared out.
    preparing = threads if several else 1
    return Timed(
        part, compute, memory, product,
        _at(part.prepared, kernel.prepare, cycles * preparing, threads),
        part.barriers * hardware.barrier.at(threads) if threads > 1 else 0.0,
        fixed, read, known=bool(rate) or not part.macs,
    )  # fmt: skip


def _reach(kernel: Kernel, level: str, threads: int) -> float:
    return kernel.reach[level].at(threads) if level in kernel.reach else 1.0


def _sum(part: Part, fixed: Fixed, threads: int) -> float:
    counts = ((part.passes, fixed.token), (part.layers, fixed.layer), (part.heads, fixed.head))
    return sum(count * curve.at(threads) for count, curve in counts)


def _at(count: int, rate: Curve | None, cycles: float, threads: int) -> float:
    """Seconds of a number of operations at a rate a cycle; 0 if that is unknown."""
    return count / (rate.at(threads) * cycles) if rate else 0.0
