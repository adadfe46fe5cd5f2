"""Choosing: candidates against the default, in rounds, and what wins by more than the noise.

At first the likeliest forms of a tile, then the two best of them at other prefetch distances, then
the best one against the default: it is kept if in that last series, which chose nothing, the median
of the paired ratios is at least MIN_GAIN and three quarters of them are above 1.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ternops.ahead.pool import compile_missing
from ternops.cost.probes import FEW
from ternops.cost.rounds import Memory, Spread, interleaved, memory_bytes, paired
from ternops.encodings import TERNARY
from ternops.files import check_writable
from ternops.isa.detect import TIER
from ternops.kernels.plan import forget_kernels, tiled
from ternops.kernels.tiles import Tile
from ternops.kernels.tuned import OFF, VARIABLE, forget, ignored, usual_path
from ternops.simd import kept
from ternops.threads import default_threads
from ternops.tuning.plan import Task, tasks
from ternops.tuning.report import Figures, write
from ternops.tuning.trials import Setting

#: How much faster than the default a tile must be: less is not worth a kernel to compile.
MIN_GAIN = 1.01
#: Seconds that all may take, and the part of them that is over when each step must have ended.
SECONDS = 90.0
_COMPILED_FIRST, _MEASURED_FIRST, _COMPILED, _MEASURED = 0.45, 0.65, 0.8, 0.88
_FIRST_ROUNDS, _ROUNDS = 5, 11
_SECONDS = 3.0  # of the rounds of one setting; slow CPUs make fewer
_BEST = 2

#: Called with what is done next, and the part of the time that is over by then at the most.
Announce = Callable[[str, float], None]
#: "cached" and "streamed" -> the encoding, and how fast each is beside the table's.
Chosen = dict[str, tuple[str, dict[str, Spread]]]


class _Clock:
    """The budget, and who is told how much of it is gone."""

    def __init__(self, seconds: float, announce: Announce) -> None:
        self._start, self._seconds, self._announce = time.monotonic(), seconds, announce

    def at(self, part: float) -> float:
        """The `time.monotonic` when a part of the budget is over."""
        return self._start + part * self._seconds

    def is_over(self, part: float) -> bool:
        """Whether it is."""
        return time.monotonic() >= self.at(part)

    def tell(self, what: str) -> None:
        """Say what is done next."""
        self._announce(what, 1.0 if self.is_over(1.0) else self.taken / self._seconds)

    @property
    def taken(self) -> float:
        """Seconds so far."""
        return time.monotonic() - self._start


def tune(seconds: float = SECONDS, announce: Announce = lambda what, part: None) -> str:
    """Measure which tiles are the fastest here, and keep them in a file; its path.

    seconds: that it may take; what is not reached by then keeps its default. From then on new
    matrices use what was found, in this process and in others of this CPU and tier. The file is the
    one that TERNOPS_TUNING names, or lies beside the cache of compiled kernels.

    Raises ValueError if there is no place for the file, OSError if it cannot be written.
    """
    path = _target()
    clock = _Clock(seconds, announce)
    try:
        with ignored():
            found, pairs, left_out = _searched(clock)
        write(path, found, pairs, clock.taken, left_out)
    finally:
        forget()
        forget_kernels()
    return str(path)


def _searched(clock: _Clock) -> tuple[list[Figures], Chosen, list[Task]]:
    """The best of each task, the encodings for "auto", and what there was no time for."""
    todo = list(tasks())
    ready = _built({task: task.first() for task in todo}, clock, _COMPILED_FIRST)
    memory = Memory(memory_bytes())
    best: dict[Task, list[Tile]] = {}
    for task in todo:
        if clock.is_over(_MEASURED_FIRST):
            break
        clock.tell(f"{task.encoding}, {task.subject.kind}")
        best[task] = _ranked(task, ready[task], memory)[:_BEST]
    ready = _built({task: task.variants(best[task]) for task in best}, clock, _COMPILED)
    for task in best:
        if not clock.is_over(_MEASURED) and set(ready[task]) - set(best[task]):
            clock.tell(f"{task.encoding}, {task.subject.kind}")
            best[task] = _ranked(task, ready[task], memory)
    found = []
    for task in best:
        if not clock.is_over(1.0):
            clock.tell(f"{task.encoding}, {task.subject.kind}, once more")
            found.append(_confirmed(task, best[task][0], memory))
    clock.tell("auto")
    left_out = [task for task in todo if task not in best]
    return found, encodings(found, memory), left_out


def wins(gain: Spread) -> bool:
    """Whether what is so many times as fast as the default is to take its place."""
    return gain.median >= MIN_GAIN and gain.low > 1


def _target() -> Path:
    named = os.environ.get(VARIABLE, "")
    path = Path(named) if named and named != OFF else usual_path()
    if path is None:
        raise ValueError(f"no folder to keep what is found in; {VARIABLE} names another file")
    path.parent.mkdir(parents=True, exist_ok=True)
    check_writable(path)
    return path


def _built(wanted: dict[Task, list[Tile]], clock: _Clock, part: float) -> dict[Task, list[Tile]]:
    """What of that could be compiled in time; the default always."""
    # The first of every task, then the second, ...: what comes later is less likely to win.
    jobs = {
        (task, tiles[i]): tiled(task.encoding, tiles[i]).multiply
        for i in range(max(map(len, wanted.values()), default=0))
        for task, tiles in wanted.items() if i < len(tiles)
    }  # fmt: skip

    def tell(done: int, count: int) -> None:
        clock.tell(f"compiling, {done} of {count}")

    compile_missing(jobs.values(), tell, clock.at(part))
    if not kept.is_shared():  # then here, one after the other
        for number, job in enumerate(jobs.values()):
            if clock.is_over(part):
                break
            tell(number, len(jobs))
            with suppress(Exception):  # one that cannot be compiled is left out
                _ = job.address
    return {
        task: [tile for tile in tiles if tile == task.default or jobs[task, tile].is_there]
        for task, tiles in wanted.items()
    }


def _settings(task: Task, memory: Memory) -> list[Setting]:
    threads = default_threads()
    counts = {threads} if task.subject.all_threads_only else {1, threads}
    return [
        Setting(task, shape, count, memory)
        for shape in task.subject.shapes for count in sorted(counts)
    ]  # fmt: skip


def _ranked(task: Task, tiles: Sequence[Tile], memory: Memory) -> list[Tile]:
    """The fastest first, over all settings."""
    logs = np.zeros(len(tiles))
    for setting in _settings(task, memory):
        values = interleaved([setting.trial(tile) for tile in tiles], _FIRST_ROUNDS, _SECONDS)
        logs += np.median(np.log(values), axis=1)
    return [tiles[i] for i in np.argsort(logs, kind="stable")]


def _confirmed(task: Task, tile: Tile, memory: Memory) -> Figures:
    """The best tile beside the default and the read probes."""
    tiles = list(dict.fromkeys([tile, task.default]))
    gains: list[npt.NDArray[np.float64]] = []
    reads: dict[str, npt.NDArray[np.float64]] = {}
    for setting in _settings(task, memory):
        probes = [] if task.subject.is_cached else [setting.probe(probe) for probe in FEW]
        values = interleaved([*map(setting.trial, tiles), *probes], _ROUNDS, _SECONDS)
        gains.append(values[-1 - len(probes)] / values[0])
        if probes:
            fastest = min(values[len(tiles) :], key=lambda each: float(np.median(each)))
            reads[str(setting)] = fastest / values[: len(tiles)]
    gain = Spread.of(np.exp(np.mean(np.log(paired(gains)), axis=0)))
    used = 0 if wins(gain) else -1
    shares = {name: Spread.of(each[used]) for name, each in reads.items()}
    return Figures(task, tile, gain, wins(gain), shares)


def encodings(found: Iterable[Figures], memory: Memory) -> Chosen:
    """For "cached" and "streamed": the encoding, and how fast each is beside the table's."""
    chosen: Chosen = {}
    for what, kind, default in zip(
        ("cached", "streamed"), ("one", "stream"), TIER.auto, strict=True
    ):
        figures = [
            each for each in found
            if each.task.subject.kind == kind and each.task.encoding in TERNARY
        ]  # fmt: skip
        names = [each.task.encoding for each in figures]
        if default not in names:
            continue
        logs: list[npt.NDArray[np.float64]] = []
        settings = [
            [s for s in _settings(each.task, memory) if s.threads == default_threads()]
            for each in figures
        ]
        for group in zip(*settings, strict=True):
            trials = [
                setting.trial(each.used) for setting, each in zip(group, figures, strict=True)
            ]
            sizes = np.array([setting.weight_bytes for setting in group])
            logs.append(np.log(interleaved(trials, _ROUNDS, _SECONDS) * sizes[:, None]))
        mean = np.mean(paired(logs), axis=0)
        gains = np.exp(mean[names.index(default)] - mean)
        spreads = {name: Spread.of(gain) for name, gain in zip(names, gains, strict=True)}
        best = max(spreads, key=lambda name: spreads[name].median)
        chosen[what] = (best if wins(spreads[best]) else default, spreads)
    return chosen
