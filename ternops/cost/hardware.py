"""What a machine can do, in bytes, seconds, hertz, joules and watts.

`ternops.cost.profile` reads it from a TOML file. What nobody measured or published is unknown here
(None or NaN), and `ternops.cost.predict` says what it could not know.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ternops.cost.link import Link


@dataclass(frozen=True)
class Curve:
    """A figure by the number of threads: straight between the points, constant outside of them."""

    threads: tuple[int, ...]
    values: tuple[float, ...]

    def at(self, threads: int) -> float:
        """The value for a number of threads."""
        return float(np.interp(threads, self.threads, self.values))


@dataclass(frozen=True)
class Cores:
    """Cores of one kind. clock: hertz with all of them busy."""

    kind: str
    count: int
    clock: float


@dataclass(frozen=True)
class Fixed:
    """Seconds of a token whatever the sizes, by threads: mostly waiting for the first bytes of what
    lies apart. token: once, with what Python does. layer, head: of each, head in attention."""

    token: Curve = Curve((1,), (0.0,))
    layer: Curve = Curve((1,), (0.0,))
    head: Curve = Curve((1,), (0.0,))


NOTHING = Fixed()
#: Of a level: caches evict by parts, and are shared with others.
USUAL_EDGE = 4.0


@dataclass(frozen=True)
class Level:
    """A level of memory.

    capacity: bytes; infinite for DRAM. bandwidth: bytes/s of a number of threads together. Both are
    a core's own where the level is not shared. energy: joules a byte, NaN if unknown. edge: how
    many times as large the smallest working set is that is not found in it at all as the largest
    one that is found whole. refill: bytes/s that others bring into it, which drive out what is not
    read again in time. fixed: what a token costs besides when its data lie there.
    """

    name: str
    bandwidth: Curve
    capacity: float = math.inf
    shared: bool = True
    energy: float = math.nan
    edge: float = USUAL_EDGE
    refill: float = 0.0
    fixed: Fixed = NOTHING

    def room(self, threads: int) -> float:
        """Bytes of it that a number of threads have together."""
        return self.capacity * (1 if self.shared else threads)

    def rate(self, threads: int) -> float:
        """Bytes/s that a number of threads read from it together."""
        return self.bandwidth.at(threads) * (1 if self.shared else threads)


@dataclass(frozen=True)
class Kernel:
    """What a kernel does on one core: each a curve by threads, None if unknown.

    gemv, gemm: multiply-accumulates a cycle. row: cycles of a row of one token's product besides.
    prepare: activations a cycle. reach: by level of memory, of the bandwidth there the part that a
    kernel reads at while it waits for nothing else.
    """

    gemv: Curve | None = None
    gemm: Curve | None = None
    row: Curve | None = None
    prepare: Curve | None = None
    reach: Mapping[str, Curve] = field(default_factory=dict)


@dataclass(frozen=True)
class Hardware:
    """A machine. levels: the fastest first, DRAM last. memory: bytes. barrier: seconds by threads.

    idle, core: watts of the machine without work, and that a busy core adds; NaN if unknown. node:
    whose operations `ternops.cost.arithmetic` takes. link: between ranks, None if unknown.
    sources: key -> where its figure comes from.
    """

    name: str
    arch: str
    tiers: tuple[str, ...]
    memory: float
    cores: tuple[Cores, ...]
    levels: tuple[Level, ...]
    barrier: Curve = Curve((1,), (0.0,))
    idle: float = math.nan
    core: float = math.nan
    kernels: Mapping[str, Kernel] = field(default_factory=dict)
    node: str = "7 nm"
    file: str = ""
    link: Link | None = None
    sources: Mapping[str, str] = field(default_factory=dict)

    @property
    def threads(self) -> int:
        """As many as there are cores."""
        return sum(each.count for each in self.cores)

    def clock(self, threads: int) -> float:
        """Hertz of the slowest of the first `threads` cores, for which the others wait."""
        clocks = [each.clock for each in self.cores for _ in range(each.count)]
        return min(clocks[:threads])

    def kernel(self, name: str) -> Kernel:
        """Of an encoding, or "attention" or "elementwise"; all unknown if the profile has none."""
        return self.kernels.get(name, Kernel())
