"""Signs of life: all processes end when one of them gives none.

A process that has died ends the others by what `mpirun` does. One that hangs, or whose machine is
gone, would keep them waiting for ever: each tells the first one every second that it is there, and
that one tells all others.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ternops.ranks.world import mpi

#: Seconds between two signs, and without any after which all processes end.
_EVERY, LIMIT = 1.0, 8.0


class Watch:
    """Made in all processes together. hosts: of each of them. end: called with what is wrong, in a
    thread of its own; it ends all."""

    def __init__(self, hosts: list[str], end: Callable[[str], None]) -> None:
        found = self._mpi = mpi()
        self._hosts, self._end = hosts, end
        self._signs = found.COMM_WORLD.Dup()
        rank, ranks = self._signs.rank, self._signs.size
        self._others = range(1, ranks) if rank == 0 else range(1)
        # One of those that miss the first process says so; the others would a little later.
        self._limit = LIMIT + 0.3 * max(0, min(rank - 1, 4))
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ternops-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Watch no longer."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        sign, found = np.zeros(1, np.uint8), np.zeros(1, np.uint8)
        seen = dict.fromkeys(self._others, time.monotonic())
        sent: list[Any] = []
        while not self._over.wait(_EVERY):
            sent = [each for each in sent if not each.Test()]
            # What a process that hangs does not take is enough until it goes on.
            if len(sent) < len(self._others):
                sent += [self._signs.Isend(sign, other) for other in self._others]
            status = self._mpi.Status()
            while self._signs.Iprobe(self._mpi.ANY_SOURCE, self._mpi.ANY_TAG, status):
                self._signs.Recv(found, status.source, status.tag)
                seen[status.source] = time.monotonic()
            for other, at in seen.items():
                if time.monotonic() - at > self._limit:
                    place = f"rank {other} on {self._hosts[other]}"
                    self._end(f"{place} has given no sign of life for {LIMIT:.0f} s")
                    return
