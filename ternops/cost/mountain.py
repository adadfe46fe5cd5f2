"""What the last-level cache really holds: reading by the size of the working set, and by time.

The memory mountain (Bryant and O'Hallaron, "Computer Systems", chapter 6), along its ridge. Of a
cache that a virtual machine shares with its neighbours the system tells the whole size: 480 MiB on
a Sapphire Rapids server where 64 were gone after 15 ms, and 160 could not be held at all.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ternops.cost.probes import Probe
from ternops.cost.rounds import Memory
from ternops.cpu_caches import cpu_cache_bytes, last_level_bytes

_STEP = 2 ** (1 / 3)  # from size to size
# A working set of this many second-level caches is not found in them.
_BEYOND = 8
# Caches that resist streams take what they have seen twice, and by and by.
_WARM, _TIMED = 6, 5
_GAPS = (0.004, 0.008, 0.016, 0.032)  # seconds between two readings
_HELD = 3  # the part of the capacity that is read after gaps
# Of the room that a probe finds for its one buffer, what a decoder finds, whose matrices, keys and
# activations lie apart. Seen with models of 131 to 147 MB on Sapphire Rapids.
_FOUND = 0.8
#: A cache that is not so many times as fast as the memory is none.
MIN_FASTER = 1.1
_ALIKE = 0.92  # of the largest rate: rates of what is found whole
# What is tried: bytes/s; edges; rooms, up to so many times the largest size.
_REFILLS = np.array((0.0, *np.geomspace(5e8, 3e10, 30)))
_EDGES = np.geomspace(1.2, 6, 16).tolist()
_ROOMS, _LARGEST = 80, 2


class Shared(NamedTuple):
    """A last-level cache as it is found, in bytes and bytes/s; see `Level`."""

    capacity: float
    edge: float
    refill: float


class Point(NamedTuple):
    """So many bytes were read again after some seconds, at a rate."""

    size: float
    seconds: float
    rate: float


def shared_cache(memory: Memory, probe: Probe) -> Shared | None:
    """The last-level cache behind those of the cores; None if there is none that is faster."""
    caches = cpu_cache_bytes()
    first = _BEYOND * caches.get(2, 0)
    if max(caches, default=0) < 3 or not 0 < first < memory.reader.size:
        return None
    largest = min(last_level_bytes(), memory.reader.size)
    count = 1 + int(math.log(max(1, largest / first), _STEP))
    sizes = [*(int(first * _STEP**i) for i in range(count)), memory.reader.size]
    points = [_read(memory, probe, size, 0.0) for size in sizes]
    found = shared_of(points, ())
    if found is None:
        return None
    size = int(found.capacity / _HELD)
    found = shared_of(points, [_read(memory, probe, size, gap) for gap in _GAPS])
    return found and found._replace(capacity=_FOUND * found.capacity)


def _read(memory: Memory, probe: Probe, size: int, gap: float) -> Point:
    """One thread, again and again."""
    taken = []
    for _ in range(_WARM + _TIMED):
        start = time.perf_counter()
        while time.perf_counter() < start + gap:
            pass
        start = time.perf_counter()
        memory.reader.run(probe, 1, 1, 0, size)
        taken.append(time.perf_counter() - start)
    seconds = float(np.median(taken[_WARM:]))
    return Point(size, gap + seconds, size / seconds)


def shared_of(points: Sequence[Point], held: Sequence[Point]) -> Shared | None:
    """The cache that such figures show.

    points: read without a pause, by rising sizes, the last of which is that of memory alone. held:
    one size that the cache has room for, by rising pauses.
    """
    sizes, seconds, rates = np.array([*points[:-1], *held]).T
    far = points[-1].rate
    # That of the sizes that are found whole, not of one that was lucky.
    near = float(np.median(rates[rates > _ALIKE * rates.max()]))
    if near < MIN_FASTER * far:
        return None
    shares = np.clip((1 / rates - 1 / far) / (1 / near - 1 / far), 0, 1)
    # What is brought in beside it from one reading to the next has its place there too. The best of
    # a grid: (1, refills, points) and (rooms, 1, 1) for each edge.
    held_too = np.log(sizes + _REFILLS[: None if held else 1, None] * seconds)[None]
    rooms = np.geomspace(sizes.min(), _LARGEST * sizes.max(), _ROOMS)
    found = []
    for edge in _EDGES:
        expected = 0.5 + (np.log(rooms)[:, None, None] - held_too) / math.log(edge)
        errors = np.sum((np.clip(expected, 0, 1) - shares) ** 2, axis=2)
        room, refill = np.unravel_index(np.argmin(errors), errors.shape)
        found.append((errors[room, refill], Shared(rooms[room], edge, _REFILLS[refill])))
    return Shared(*map(float, min(found)[1]))
