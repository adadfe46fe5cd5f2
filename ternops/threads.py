"""How many threads run a product or a model: what was asked for, what there is, and a limit."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from ternops.simd import host
from ternops.team import MAX_THREADS, TEAM

_SECONDS_BETWEEN_LOOKS = 1.0
#: What NUMBA_NUM_THREADS asks for; 0: nothing.
_ASKED = min(host.chosen_threads(), MAX_THREADS)


def default_threads() -> int:
    """The threads used where none are asked for: NUMBA_NUM_THREADS, else `usable_cpus`.

    At most 256.
    """
    return _ASKED or _usable.count()


def check_threads(threads: int | None) -> int:
    """`threads`, or the default for None. Raises TypeError or ValueError for what is neither."""
    if threads is None:
        return default_threads()
    if type(threads) is int and 1 <= threads <= MAX_THREADS:  # the usual case, at once
        return threads
    if isinstance(threads, bool) or not isinstance(threads, int | np.integer):
        raise TypeError(f"threads={threads!r}: expected an integer or None")
    if not 1 <= threads <= MAX_THREADS:
        raise ValueError(f"threads={threads}: expected 1 to {MAX_THREADS}")
    return int(threads)


def get_num_threads() -> int:
    """The most threads that products and models use at present."""
    return min(TEAM.limit, default_threads())


def set_num_threads(threads: int | None) -> _Limit:
    """Limit products and models to at most this many threads from now on; None: no limit.

    It holds for the whole process, for models that exist already, and for any number in
    ``threads=``; results are the same bits. As a context manager it holds until the block ends:

    >>> with ternops.set_num_threads(1):
    ...     y = x @ W.T

    Raises TypeError for what is no integer, ValueError for one below 1 or above 256.
    """
    limit = _Limit(TEAM.limit)
    TEAM.limit = MAX_THREADS if threads is None else check_threads(threads)
    return limit


class _Limit:
    """What `set_num_threads` gives: puts the limit before it back when a ``with`` block ends."""

    def __init__(self, before: int) -> None:
        self._before = before

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        TEAM.limit = self._before


def usable_cpus() -> int:
    """The CPUs that this process may run on, and no more than its control group's quota fills."""
    try:
        count = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # macOS, Windows
        count = os.cpu_count() or 1
    quota = _quota()
    return count if quota is None else max(1, min(count, -int(-quota // 1)))


def _quota(
    root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> float | None:
    """CPUs' worth of time that control groups (version 2, or 1) grant, the least of all levels."""
    try:
        lines = own.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    found: list[float] = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        mounts = (
            [root / controllers, root / "cpu", root] if controllers else [root, root / "unified"]
        )
        for mount in mounts:
            place = mount / path.lstrip("/")
            for level in (place, *(each for each in place.parents if each.is_relative_to(mount))):
                found += _quota_of(level)
    return min(found, default=None)


def _quota_of(folder: Path) -> list[float]:
    """What one group grants, if it limits anything."""
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = (
                (folder / f"cpu.cfs_{each}_us").read_text().strip() for each in ("quota", "period")
            )
        return [int(quota) / int(period)] if int(quota) > 0 and int(period) > 0 else []
    except (OSError, ValueError):  # not there, or "max"
        return []


class _Usable:
    """`usable_cpus`, looked up once a second: affinity and quota may change while we run."""

    def __init__(self) -> None:
        self._count, self._until = 1, float("-inf")

    def count(self) -> int:
        """At most 256."""
        now = time.monotonic()
        if now >= self._until:
            self._count = min(usable_cpus(), MAX_THREADS)
            self._until = now + _SECONDS_BETWEEN_LOOKS
        return self._count


_usable = _Usable()


def _register_with_threadpoolctl() -> None:
    """Let `threadpoolctl.threadpool_limits` limit us, too, where that package is installed."""
    try:
        from threadpoolctl import LibController, register
    except ImportError:
        return

    class TernopsController(LibController):
        """The team of threads; its code is compiled by llvmlite's library, which is looked for."""

        user_api = internal_api = "ternops"
        filename_prefixes = ("libllvmlite", "llvmlite")

        def get_num_threads(self) -> int:
            return get_num_threads()

        def set_num_threads(self, num_threads: int) -> None:
            # What `get_num_threads` says without a limit is put back as none.
            limits = num_threads < default_threads()
            set_num_threads(int(num_threads) if limits else None)

        def get_version(self) -> Any:
            return sys.modules["ternops"].__version__

    register(TernopsController)


_register_with_threadpoolctl()
