"""Compiling candidates, in processes beside one another where what they compile is kept.

python -m ternops.tuning.build

is one of those: it reads lines "encoding kind number" and answers each with one.
"""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence

from ternops.isa.detect import TIER
from ternops.kernels.gemv import blocks_kernel
from ternops.kernels.tiles import Tile, candidates
from ternops.kernels.tuned import OFF, VARIABLE
from ternops.simd.folder import PACKAGE, cache_folder
from ternops.threads import default_threads

#: An encoding, a shape class, and one of its candidates.
Item = tuple[str, str, Tile]
_MAX_WORKERS = 8


def compile_all(
    items: Sequence[Item], deadline: float, announce: Callable[[Item], None]
) -> list[Item]:
    """Those of some kernels that were compiled until the deadline (`time.monotonic`), in order.

    One that the compiler fails on is left out; so is what is not finished in time.
    """
    items = list(dict.fromkeys(items))
    count = min(default_threads(), _MAX_WORKERS, len(items))
    if count < 2 or not cache_folder():
        return [item for item in items if _compiled_here(item, deadline, announce)]
    waiting: queue.SimpleQueue[Item] = queue.SimpleQueue()
    for item in items:
        waiting.put(item)
    done: set[Item] = set()

    def built(item: Item) -> None:
        done.add(item)
        announce(item)

    workers = [_Worker(waiting, built) for _ in range(count)]
    try:
        for worker in workers:
            worker.join(max(0.0, deadline - time.monotonic()))
    finally:
        for worker in workers:
            worker.stop()
    return [item for item in items if item in done]


def _compiled_here(item: Item, deadline: float, announce: Callable[[Item], None]) -> bool:
    if time.monotonic() >= deadline:
        return False
    encoding, _, tile = item
    _ = blocks_kernel(encoding, tile).address
    announce(item)
    return True


class _Worker(threading.Thread):
    """Feeds one process, and starts another where one ends."""

    def __init__(self, waiting: queue.SimpleQueue[Item], built: Callable[[Item], None]) -> None:
        super().__init__(daemon=True)
        self._waiting, self._built = waiting, built
        self._process: subprocess.Popen[str] | None = None
        self._stopped = False
        self.start()

    def run(self) -> None:
        while not self._stopped:
            try:
                item = self._waiting.get_nowait()
            except queue.Empty:
                break
            if self._process is None:
                self._process = _start()
            if self._compile(self._process, item):
                if not self._stopped:
                    self._built(item)
            else:  # it ended
                self._process = None
        self.stop()

    def _compile(self, process: subprocess.Popen[str], item: Item) -> bool:
        encoding, kind, tile = item
        number = candidates(encoding, kind, TIER).index(tile)
        assert process.stdin
        assert process.stdout
        try:
            print(encoding, kind, number, file=process.stdin, flush=True)
            return bool(process.stdout.readline())
        except (OSError, ValueError):  # it is gone, or stopped
            return False

    def stop(self) -> None:
        """End the process, whatever it is at."""
        self._stopped = True
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def _start() -> subprocess.Popen[str]:
    path = os.pathsep.join(filter(None, [str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")]))
    return subprocess.Popen(
        [sys.executable, "-m", "ternops.tuning.build"], text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": path, "TERNOPS_ISA": TIER.name, VARIABLE: OFF},
    )  # fmt: skip


def main() -> None:
    """Compile what the lines on stdin name."""
    for line in sys.stdin:
        encoding, kind, number = line.split()
        _ = blocks_kernel(encoding, candidates(encoding, kind, TIER)[int(number)]).address
        print("done", flush=True)


if __name__ == "__main__":
    main()
