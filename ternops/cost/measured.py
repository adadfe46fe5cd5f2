"""What a number of threads does on this machine, level by level: reading, products, fixed costs."""

from __future__ import annotations

import time
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from ternops.cost.fixed import Costs, fixed_costs
from ternops.cost.latency import reach_of
from ternops.cost.mountain import Shared
from ternops.cost.probes import FEW
from ternops.cost.rounds import ROUNDS, Memory, Products, Turn, interleaved
from ternops.cost.trials import meet
from ternops.cost.workload import KINDS, linear_bytes
from ternops.cpu_caches import cpu_cache_bytes

#: Levels by their names in profiles: the second, a last-level cache behind it, and memory.
SECOND, SHARED, MEMORY = "L2", "L3", "DRAM"
#: Good in most places.
PROBE = FEW[3]
#: Columns of matrices with short rows and with long ones: what a row costs is their difference.
_SHORT, _LONG = 768, 4096
_MOST_OF_A_ROW = 0.5
_USUAL_SECOND = 1 << 20  # bytes, where the system does not tell
# Of a matrix that is read from further out, about, a thread: the streams of a kernel are as far
# apart as in a model's; in matrices of 1 MB they are read 8% faster.
_BYTES = 1 << 22
_BEYOND = 8  # second-level caches that a working set fills which is read from the one behind
_PART = 1 << 26  # bytes of memory that are read in a turn
_MANY = (1024, 2048, 128)  # rows, columns and tokens of a GEMM
_EVICTED = 2  # times what fits a level, are read to leave nothing else there
_SETTLING, _SETTLED = 3.0, 5e-6  # seconds; of a barrier


class Figures(NamedTuple):
    """Of one number of threads, together.

    rates: bytes/s by level. macs, rows: seconds by kernel of a multiply-accumulate and of a row of
    one token's product from the second-level cache; many: of a multiply-accumulate of many tokens.
    reach: by level behind it and kernel. barrier: seconds. fixed: by level behind it.
    """

    rates: dict[str, float]
    macs: dict[str, float]
    rows: dict[str, float]
    many: dict[str, float]
    reach: dict[str, dict[str, float]]
    barrier: float
    fixed: dict[str, Costs]


def has_own_caches() -> bool:
    """Whether each core has a second-level cache of its own, as where a third one follows."""
    return max(cpu_cache_bytes(), default=0) > 2


def measured(memory: Memory, shared: Shared | None, threads: int) -> Figures:
    """All of it."""
    second = cpu_cache_bytes().get(2, _USUAL_SECOND) // 2 * (threads if has_own_caches() else 1)
    # By level a working set that is found there, and bytes that leave nothing else in it.
    sizes = {SECOND: (second, 2 * _EVICTED * second)}
    if shared:
        room = int(shared.capacity)
        sizes[SHARED] = (min(room // 2, _BEYOND * second), _EVICTED * room)
    sizes[MEMORY] = (memory.reader.size, 0)

    settle(threads)
    barrier = _median(Turn(partial(meet, threads)))
    found = Figures({}, {}, {}, {}, {}, barrier, {})
    _compute(memory, second, threads, found)
    for (_, (_, before)), (name, (size, _)) in pairwise(sizes.items()):
        _read(memory, name, size, threads, found)
        evict = partial(_evict, memory, before, threads)
        found.fixed[name] = fixed_costs(threads, barrier, evict)
    return found


def settle(threads: int) -> None:
    """Wait until threads that begin to work have each found a CPU, for a moment at the most."""
    end = time.monotonic() + _SETTLING
    barrier = Turn(partial(meet, threads))
    while barrier() > _SETTLED and time.monotonic() < end:
        pass


def _compute(memory: Memory, size: int, threads: int, found: Figures) -> None:
    """What kernels compute with weights from the second-level cache, and what is read there."""
    products = _products(memory, size, size, threads)
    read, seconds = _taken(products)
    if 2 in cpu_cache_bytes():
        found.rates[SECOND] = 1 / read
    for kind in KINDS:
        found.macs[kind], found.rows[kind] = split(seconds[kind, _SHORT], seconds[kind, _LONG])
    many = [Products(kind, *_MANY, "many", threads, memory, 0, 0) for kind in KINDS]
    times = np.median(interleaved([each.multiply for each in many], ROUNDS), axis=1)
    for kind, each, value in zip(KINDS, many, times, strict=True):
        found.many[kind] = float(value) * each.bytes_per_mac


def split(short: float, long: float) -> tuple[float, float]:
    """Seconds of a multiply-accumulate and of a row besides, from those of a multiply-accumulate
    with all that belongs to it, in short rows and in long ones.

    Whatever disturbed them, no row costs less than nothing, nor most of what a long one takes.
    """
    row = (short - long) / (1 / _SHORT - 1 / _LONG)
    row = min(max(0.0, row), _MOST_OF_A_ROW * long * _LONG)
    return long - row / _LONG, row


def _read(memory: Memory, name: str, size: int, threads: int, found: Figures) -> None:
    """How fast a level is read, and at what part of that by kernels."""
    products = _products(memory, size, min(_BYTES * threads, size), threads)
    read, seconds = _taken(products)
    found.rates[name] = 1 / read
    found.reach[name] = {
        kind: float(np.sqrt(np.prod([
            reach_of(
                read * products[kind, columns].bytes_per_mac,
                found.macs[kind] + found.rows[kind] / columns, seconds[kind, columns],
            )
            for columns in (_SHORT, _LONG)
        ])))
        for kind in KINDS
    }  # fmt: skip


def _products(
    memory: Memory, size: int, matrix: int, threads: int
) -> dict[tuple[str, int], Products]:
    """Of matrices of about so many bytes in a working set; those of every kernel and both shapes.

    A decoder has the kernels for weights from memory, wherever these are found.
    """
    step = 64 * threads  # rows

    def rows(kind: str, columns: int) -> int:
        return max(1, matrix * 64 // linear_bytes(kind, 64, columns) // step) * step

    return {
        (kind, columns): Products(
            kind, rows(kind, columns), columns, 1, "stream", threads, memory, size, _PART
        )
        for kind in KINDS for columns in (_SHORT, _LONG)
    }  # fmt: skip


def _taken(
    products: dict[tuple[str, int], Products],
) -> tuple[float, dict[tuple[str, int], float]]:
    """Seconds of a byte that is only read, and of each product's multiply-accumulate."""
    some = next(iter(products.values()))
    reads = [partial(some.read, probe) for probe in FEW]
    multiplies = [each.multiply for each in products.values()]
    values = np.median(interleaved([*multiplies, *reads], ROUNDS), axis=1).tolist()
    each = zip(products.items(), values, strict=False)
    return min(values[len(products) :]), {
        key: value * product.bytes_per_mac for (key, product), value in each
    }


def _evict(memory: Memory, size: int, threads: int) -> None:
    """Read so much that nothing else is left in the caches before a level."""
    size = min(size, memory.reader.size)
    first = memory.next_part(memory.reader.size // size) * size
    memory.reader.run(PROBE, threads, 1, first, first + size)


def _median(turn: Turn) -> float:
    return float(np.median(interleaved([turn], ROUNDS)))
