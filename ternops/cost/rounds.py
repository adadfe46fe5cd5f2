"""Trials in interleaved rounds: products and read probes, over bytes that all of them share.

A round runs each once, so that a machine that drifts drifts for all of them; what is compared is
always two values of one round. Weights are whatever the shared bytes are: kernels take as long for
any, and nothing is drawn or packed.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ternops.cost.probes import MAX_PROBED, Probe, Reader
from ternops.cost.trials import Chain, matrix_step
from ternops.cpu_caches import last_level_bytes

_MIN_BYTES = 1 << 26
_STEP = 1 << 24  # bytes of which a memory has a whole number
_TURN = 0.002  # seconds that a turn takes at least
#: In which something is measured.
ROUNDS = 7
_MIN_ROUNDS = 3


class Spread(NamedTuple):
    """A median and the quartiles around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: npt.ArrayLike) -> Spread:
        """Of a sample."""
        low, median, high = np.percentile(np.asarray(values, np.float64), (25, 50, 75))
        return cls(float(median), float(low), float(high))


def memory_bytes() -> int:
    """As many bytes as no cache holds twice, of a quarter of the memory that is free."""
    try:
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        free = 1 << 31
    wanted = max(_MIN_BYTES, min(2 * last_level_bytes(), MAX_PROBED, free // 4))
    return wanted // _STEP * _STEP


class Memory:
    """Bytes that all trials read, a part at a time, another one each time."""

    def __init__(self, size: int) -> None:
        self.reader = Reader(size)
        self.bytes = self.reader.buffer(huge_pages=True)
        self._turn = 0

    def next_part(self, parts: int) -> int:
        """The number of the part that was read longest ago."""
        self._turn += 1
        return self._turn % parts


class Products:
    """Products of one shape with the bytes of a memory as their weights, some of them a turn.

    kind, shape: as `Chain` has them. size: bytes of all matrices together. part: of those of a
    turn, which are read as often as takes a while. part_bytes: of what a turn reads once.
    """

    def __init__(
        self, kind: str, rows: int, columns: int, tokens: int, shape: str, threads: int,
        memory: Memory, size: int, part: int,
    ) -> None:  # fmt: skip
        self._memory, self._threads = memory, threads
        each = matrix_step(kind, rows, columns)
        self._count = max(1, (min(size, memory.reader.size) - 64) // each)
        self.part = max(1, min(part // each, self._count))
        self.part_bytes = self.part * each
        self.chain = Chain(
            kind, rows, columns, self._count, tokens, shape, threads, memory.bytes
        )  # fmt: skip
        self.bytes_per_mac = each * self._count / self.chain.macs
        self._times = 1
        self.multiply()
        self._times = max(1, round(_TURN / max(self.multiply() * self.part_bytes, 1e-7)))

    def multiply(self) -> float:
        """Seconds of a byte."""
        first = self._next()
        start = time.perf_counter()
        self.chain.multiply(self._times, first, first + self.part)
        return (time.perf_counter() - start) / (self._times * self.part_bytes)

    def read(self, probe: Probe) -> float:
        """Seconds of a byte where as many are read and nothing is done with them."""
        first = self._next() * self._memory.reader.size // self._count
        start = time.perf_counter()
        self._memory.reader.run(probe, self._threads, self._times, first, first + self.part_bytes)
        return (time.perf_counter() - start) / (self._times * self.part_bytes)

    def _next(self) -> int:
        """The first matrix of the next part."""
        parts = self._count // self.part
        return self._memory.next_part(parts) * self.part


class Turn:
    """Something that is told how often to run; a call gives the seconds of once."""

    def __init__(self, run: Callable[[int], object]) -> None:
        self._run = run
        run(1)
        self._times = 1
        self._times = max(1, round(_TURN / max(self(), 1e-7)))

    def __call__(self) -> float:
        start = time.perf_counter()
        self._run(self._times)
        return (time.perf_counter() - start) / self._times


def interleaved(
    trials: Sequence[Callable[[], float]], rounds: int, seconds: float = math.inf
) -> npt.NDArray[np.float64]:
    """(trials, rounds) values, after a round that does not count.

    Fewer rounds, but three at least, where this first one tells that they take more seconds.
    """
    start = time.perf_counter()
    _round(trials)
    once = time.perf_counter() - start
    most = rounds if math.isinf(seconds) else int(seconds / max(once, 1e-9)) - 1
    count = min(rounds, max(_MIN_ROUNDS, most))
    return np.transpose([_round(trials) for _ in range(count)])


def paired(series: Sequence[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    """Series of several settings as one array; of the longer ones, the first rounds."""
    count = min(each.shape[-1] for each in series)
    return np.array([each[..., :count] for each in series])


def _round(trials: Sequence[Callable[[], float]]) -> list[float]:
    return [trial() for trial in trials]
