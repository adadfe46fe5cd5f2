"""Timing tiles and read probes in interleaved rounds, over the same bytes.

A round runs each once, so that a machine that drifts drifts for all of them; what is compared is
always two values of one round.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ternops.cost.probes import Probe, Reader
from ternops.cost.trials import Chain
from ternops.cpu_caches import cpu_cache_bytes, last_level_bytes
from ternops.encodings import ENCODINGS
from ternops.kernels.plan import make_plan
from ternops.kernels.tiles import Tile
from ternops.tuning.plan import Shape, Task

_MIN_BYTES, _MAX_BYTES = 1 << 26, 1 << 30
_PART = 1 << 27  # bytes that a trial reads of those
_PART_OF_SEVERAL = 1 << 24  # where several tokens are multiplied, which takes longer
_TURN = 0.002  # seconds that a trial in a cache takes
_MIN_ROUNDS = 3
#: Those that were the fastest on some machine.
PROBES = (
    Probe(1, 4096, True), Probe(2, 4096, True), Probe(4, 512, True), Probe(4, 1024, True),
    Probe(6, 4096, True), Probe(8, 2048, True),
)  # fmt: skip


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
    wanted = max(_MIN_BYTES, min(2 * last_level_bytes(), _MAX_BYTES, free // 4))
    return wanted // _PART_OF_SEVERAL * _PART_OF_SEVERAL


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


class Setting:
    """Where tiles of a task are compared: a shape on a number of threads."""

    def __init__(self, task: Task, shape: Shape, threads: int, memory: Memory) -> None:
        self.task, self.shape, self.threads, self._memory = task, shape, threads, memory
        each = ENCODINGS[task.encoding].nbytes(shape.rows, shape.columns)
        if task.subject.is_cached:
            size = cpu_cache_bytes().get(2, 1 << 20) // 2 * threads
            self._size = self._part = max(1, size // each)
        else:
            part = _PART if shape.tokens == 1 else _PART_OF_SEVERAL
            self._size = max(1, (memory.reader.size - 64) // each)
            self._part = max(1, min(part // each, self._size))
        self._chain = Chain(
            task.encoding, shape.rows, shape.columns, self._size, shape.tokens, task.subject.kind,
            threads, memory.bytes,
        )  # fmt: skip
        self.part_bytes = self._part * each
        self.weight_bytes = each / (shape.rows * shape.columns)
        self._times = 1
        if task.subject.is_cached:
            self._multiply(1)
            self._times = max(1, round(_TURN / max(self._multiply(1), 1e-6)))

    def __str__(self) -> str:
        where = "cached" if self.task.subject.is_cached else "memory"
        tokens = f", {self.shape.tokens} tokens" if self.shape.tokens > 1 else ""
        rows, columns = self.shape[:2]
        return f"{rows} x {columns}{tokens}, {self.threads} thread(s), {where}"

    def trial(self, tile: Tile) -> Callable[[], float]:
        """A function that gives the seconds of a byte."""
        plan = make_plan(self.task.encoding, self.shape.columns, self.task.subject.kind, tile)

        def run() -> float:
            self._chain.use(plan)
            return self._multiply(self._times) / (self._times * self.part_bytes)

        return run

    def probe(self, probe: Probe) -> Callable[[], float]:
        """The same of reading alone."""

        def run() -> float:
            first = self._next() * self._memory.reader.size // self._size
            start = time.perf_counter()
            self._memory.reader.run(
                probe, self.threads, self._times, first, first + self.part_bytes
            )
            return (time.perf_counter() - start) / (self._times * self.part_bytes)

        return run

    def _multiply(self, times: int) -> float:
        first = self._next()
        start = time.perf_counter()
        self._chain.multiply(times, first, first + self._part)
        return time.perf_counter() - start

    def _next(self) -> int:
        """The first matrix of the next part."""
        parts = self._size // self._part
        return self._memory.next_part(parts) * self._part


def interleaved(
    trials: Sequence[Callable[[], float]], rounds: int, seconds: float
) -> npt.NDArray[np.float64]:
    """(trials, rounds) values, after a round that does not count.

    Fewer rounds, but three at least, where this first one tells that they take more seconds.
    """
    start = time.perf_counter()
    _round(trials)
    once = time.perf_counter() - start
    count = max(_MIN_ROUNDS, min(rounds, int(seconds / max(once, 1e-9)) - 1))
    return np.transpose([_round(trials) for _ in range(count)])


def paired(series: Sequence[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    """Series of several settings as one array; of the longer ones, the first rounds."""
    count = min(each.shape[-1] for each in series)
    return np.array([each[..., :count] for each in series])


def _round(trials: Sequence[Callable[[], float]]) -> list[float]:
    return [trial() for trial in trials]
