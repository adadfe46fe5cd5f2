"""What a link between ranks takes, measured by those that `mpirun` has started.

Messages go back and forth between the first rank and each other one, and all gather the vectors
that decoders gather; the slowest pair counts. What mpi4py adds to a call in Python is measured on
a communicator of one rank, and left out of collectives.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ternops.cost.known_links import BANDWIDTH_UNIT, GATHER_UNIT, LATENCY_UNIT
from ternops.cost.layouts import SIZES

#: Elements of the vectors that are gathered, float32: hidden and inner ones of three layouts, and
#: what eight tokens of the largest are.
ELEMENTS = tuple(sorted(
    {getattr(SIZES[size], name) for size in ("2B4T", "7B", "70B") for name in ("hidden", "ffn")}
    | {8 * SIZES["70B"].ffn}
))  # fmt: skip
_SMALL, _LARGE = 8, 1 << 20  # bytes of messages that tell latency and bandwidth
_ROUNDS, _ROUND_S, _MOST = 7, 0.05, 2000  # rounds of a figure, seconds of one, turns in it
_LEAST_S = 1e-8  # as good as none
SOURCE = "measured by ternops calibrate --mpi"


class LinkFigures(NamedTuple):
    """In seconds and bytes/s. gathers: of a vector of each of ELEMENTS; local: whether all ranks
    are on one machine."""

    ranks: int
    latency: float
    bandwidth: float
    barrier: float
    gathers: tuple[float, ...]
    local: bool


def measure_link(mpi: Any, announce: Callable[[str], None] = lambda what: None) -> LinkFigures:
    """Of all ranks, which call it together, and of which the first one has the right figures.

    mpi: mpi4py's module. announce: called with what is measured next. Raises ValueError for one
    rank alone.
    """
    world = mpi.COMM_WORLD
    ranks = world.size
    if ranks < 2:
        raise ValueError("a link is between ranks: expected mpirun -n 2, or more")
    announce("messages")
    small, large = (
        max(
            _seconds(world, partial(_back_and_forth, world, other, size)) / 2
            for other in range(1, ranks)
        )
        for size in (_SMALL, _LARGE)
    )
    announce("barrier")
    barrier = _seconds(world, world.Barrier)
    announce("gathered vectors")
    gathers = [
        _seconds(world, partial(_gather, mpi, world, each))
        - _seconds(world, partial(_gather, mpi, mpi.COMM_SELF, each))
        for each in map(_buffer, ELEMENTS)
    ]
    local = world.Split_type(mpi.COMM_TYPE_SHARED).size == ranks
    bandwidth = (_LARGE - _SMALL) / max(_LEAST_S, large - small)
    # A longer vector takes no less, whatever disturbed the shorter one.
    rising = np.maximum.accumulate(np.maximum(gathers, _LEAST_S))
    return LinkFigures(ranks, small, bandwidth, barrier, tuple(rising.tolist()), local)


def table_of(found: LinkFigures) -> dict[str, Any]:
    """The link's table of a profile."""
    return {
        "latency": _figure(1e6 * found.latency, LATENCY_UNIT),
        "bandwidth": _figure(found.bandwidth / 1e9, BANDWIDTH_UNIT),
        "barrier": _figure(1e6 * found.barrier, LATENCY_UNIT),
        "local": found.local,
        "allgather": {
            "ranks": found.ranks,
            "time": {
                **_figure(0.0, GATHER_UNIT),
                "value": [float(f"{1e6 * each:.4g}") for each in found.gathers],
                "bytes": [4 * each for each in ELEMENTS],
            },
        },
    }


def _figure(value: float, unit: str) -> dict[str, Any]:
    return {"value": float(f"{value:.4g}"), "unit": unit, "source": SOURCE}


def _buffer(elements: int) -> npt.NDArray[np.float32]:
    return np.zeros(elements, np.float32)


def _back_and_forth(world: Any, other: int, size: int) -> None:
    """A message from the first rank to another one, and back."""
    buffer = np.zeros(size, np.uint8)
    if world.rank == 0:
        world.Send(buffer, other)
        world.Recv(buffer, other)
    elif world.rank == other:
        world.Recv(buffer, 0)
        world.Send(buffer, 0)


def _gather(mpi: Any, communicator: Any, buffer: npt.NDArray[np.float32]) -> None:
    """Each rank's part of a vector to all, in place."""
    ranks = communicator.size
    ends = [buffer.size * rank // ranks for rank in range(ranks + 1)]
    counts = [end - start for start, end in pairwise(ends)]
    communicator.Allgatherv(mpi.IN_PLACE, [buffer, counts, ends[:-1], mpi.FLOAT])


def _seconds(world: Any, run: Callable[[], object]) -> float:
    """A turn's, as the first rank sees it: the median of rounds of as many turns as it says."""
    start = time.perf_counter()
    for _ in range(2):
        run()
    each = (time.perf_counter() - start) / 2
    turns = np.array([min(_MOST, max(1, int(_ROUND_S / max(each, _LEAST_S))))], np.int64)
    world.Bcast(turns)
    taken = []
    for _ in range(_ROUNDS):
        world.Barrier()
        start = time.perf_counter()
        for _ in range(int(turns[0])):
            run()
        taken.append((time.perf_counter() - start) / int(turns[0]))
    return float(np.median(taken))
