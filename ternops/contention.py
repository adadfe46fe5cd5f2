"""Fewer threads while other processes keep the CPUs busy, and all of them when it is quiet.

A thread that lost its CPU holds up all others at the next barrier for a whole time slice, so that
two threads beside one busy process can be slower than one. Only the clock can tell what is best:
jobs are timed on fewer threads, by what they compute, and the faster number is kept for a while.

Nothing is tried, and nothing is timed, until threads have waited in vain for one of a job's.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Hashable

#: Nanoseconds of waiting in a job that look like a lost time slice, which is longer.
MIN_LATE = 500_000
#: Nanoseconds of jobs that a number of threads is judged by: several time slices of the system,
#: and before them those in which its scheduler, and workers that still spin, settle.
_WINDOW, _SETTLING = 40_000_000, 15_000_000
#: The share of a window lost in waiting from which on fewer threads are tried.
_MIN_LOST = 0.1
#: Fewer threads must be faster by this factor.
_GAIN = 1.05
#: For how many times as long as a trial took its outcome holds: at first, and after many failures.
_FIRST_REST, _MAX_REST = 3, 24


class Contention:
    """How many threads run a job where nobody said it. Not for two Python threads at a time."""

    def __init__(self) -> None:
        #: Whether jobs are to be timed, on as many threads as `choose` says.
        self.active = False
        self._window = _Window(1)
        self._before: _Window | None = None  # a trial runs: what it is compared with
        self._settling = 0  # nanoseconds of the trial that are still to be left out
        self._rest = _FIRST_REST
        self._rest_until = 0
        self._fewer_failed = False

    def begin(self, threads: int) -> None:
        """Threads waited in vain in a job that was not timed: watch the next ones."""
        if time.perf_counter_ns() >= self._rest_until:
            self._window, self._before = _Window(threads), None
            self.active = True

    def choose(self, threads: int) -> int:
        """How many of `threads` to use for the next job."""
        return min(threads, self._window.threads)

    def note(self, work: Hashable, asked: int, used: int, nanoseconds: int, late: int) -> None:
        """A job took so long on `used` of the `asked` threads, which waited for `late` in all.

        work: what tells it from jobs that compute something else.
        """
        window = self._window
        if used != window.threads:
            return  # a small job, which takes fewer anyway
        if self._before and self._settling > 0:
            self._settling -= nanoseconds
            return
        window.add(work, nanoseconds, late)
        if window.spent < _WINDOW:
            return
        if self._before:
            self._judge(self._before, window)
        elif window.threads >= asked and window.lost_share < _MIN_LOST:
            self.active = False
        elif time.perf_counter_ns() < self._rest_until:
            self._window = _Window(window.threads)
        else:
            self._before, self._window = window, _Window(self._candidate(window, asked))
            self._settling = _SETTLING

    def _candidate(self, window: _Window, asked: int) -> int:
        """The number to try after a window on another one."""
        step = max(1, window.threads // 8)
        is_late = window.lost_share >= _MIN_LOST and window.threads > 1
        if window.threads >= asked or (is_late and not self._fewer_failed):
            return max(1, window.threads - step)
        return min(asked, window.threads + step)

    def _judge(self, before: _Window, trial: _Window) -> None:
        """Keep the number of threads that was tried, or go back."""
        fewer = trial.threads < before.threads
        if trial.speed_over(before) >= (_GAIN if fewer else 1):
            kept, self._rest, self._fewer_failed = trial.threads, _FIRST_REST, False
        else:
            kept, self._rest = before.threads, min(2 * self._rest, _MAX_REST)
            self._fewer_failed = fewer
        self._rest_until = time.perf_counter_ns() + int(self._rest * trial.spent)
        self._window, self._before = _Window(kept), None


class _Window:
    """What jobs took on a number of threads."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.spent = 0  # nanoseconds
        self._lost = 0.0
        self._times: dict[Hashable, list[int]] = defaultdict(lambda: [0, 0])  # sum and count

    def add(self, work: Hashable, nanoseconds: int, late: int) -> None:
        """As `Contention.note`."""
        self.spent += nanoseconds
        self._lost += late / max(1, self.threads - 1)
        times = self._times[work]
        times[0] += nanoseconds
        times[1] += 1

    @property
    def lost_share(self) -> float:
        """The part of the time in which threads waited for one that was late."""
        return self._lost / self.spent

    def speed_over(self, other: _Window) -> float:
        """How many times as fast this one was, by the works that both have seen."""
        here = there = 0.0
        for work in self._times.keys() & other._times.keys():
            own, others = self._times[work], other._times[work]
            count = own[1] + others[1]
            here += own[0] / own[1] * count
            there += others[0] / others[1] * count
        if here:
            return there / here
        # No work twice: as if what was not lost had all been of use.
        own_part, other_part = (w.threads * (1 - w.lost_share) for w in (self, other))
        return own_part / max(other_part, 1e-9)
