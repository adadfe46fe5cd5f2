"""Workers beside one another, a process each, that share out the jobs of one target or several."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NamedTuple

from ternops.simd import Job, kept
from ternops.simd.folder import PACKAGE
from ternops.threads import usable_cpus

#: Told of each job that is done: its key, and how many are done and to do of those known.
Advance = Callable[[str, int, int], None]


class Task(NamedTuple):
    """Jobs of one target. arguments: of the worker; keys: which jobs, or None for all there are."""

    name: str
    arguments: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    keys: tuple[str, ...] | None = None


class _Worker:
    """One process of `ternops.ahead.worker`."""

    def __init__(self, task: Task) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (as long as the worker)
        # This very package: a build's is not the one that is installed.
        root = str(PACKAGE.parent)
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "ternops.ahead.worker", *task.arguments],
            env={**os.environ, "PYTHONPATH": path, **dict(task.environment)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True,
        )  # fmt: skip
        self.keys: tuple[str, ...] = tuple(json.loads(self._answer()))

    def compile(self, key: str) -> None:
        """One job; raises RuntimeError if it fails."""
        assert self._process.stdin is not None
        print(key, file=self._process.stdin, flush=True)
        self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        if line := self._process.stdout.readline():
            return line
        self._process.wait()
        self._errors.seek(0)
        words = self._errors.read().strip().splitlines()
        raise RuntimeError(words[-1] if words else f"exit code {self._process.returncode}")

    def close(self) -> None:
        """End the process."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):  # it has ended by itself
                    pipe.close()
        self._process.terminate()
        self._process.wait()
        self._errors.close()


class _Pool:
    def __init__(self, tasks: Iterable[Task], advance: Advance) -> None:
        self._left = {task: None if task.keys is None else deque(task.keys) for task in tasks}
        self._busy = dict.fromkeys(self._left, 0)
        self._advance, self._done, self._count = advance, 0, 0
        self._count = sum(len(keys or ()) for keys in self._left.values())
        self._lock = threading.Lock()
        self.failure: Exception | None = None

    def serve(self) -> None:
        """What each of the threads does, which has one worker at a time."""
        worker = None
        try:
            while task := self._pick():
                worker = _Worker(task)
                self._learn(task, worker.keys)
                while key := self._next(task):
                    worker.compile(key)
                    self._note(key)
                worker.close()
                worker = None
        except Exception as error:
            self.failure = self.failure or error
        finally:
            if worker is not None:
                worker.close()

    def _pick(self) -> Task | None:
        """A target that nobody works for, else the one that most is left of."""
        with self._lock:
            open_ = [task for task, keys in self._left.items() if keys is None or keys]
            if self.failure or not open_:
                return None
            size = {task: len(keys) if (keys := self._left[task]) is not None else sys.maxsize
                    for task in open_}  # fmt: skip
            task = min(open_, key=lambda each: (self._busy[each], -size[each]))
            self._busy[task] += 1
            return task

    def _learn(self, task: Task, keys: tuple[str, ...]) -> None:
        with self._lock:
            if self._left[task] is None:
                self._left[task] = deque(keys)
                self._count += len(keys)

    def _next(self, task: Task) -> str | None:
        with self._lock:
            left = self._left[task]
            if left and not self.failure:
                return left.popleft()
            self._busy[task] -= 1
            return None

    def _note(self, key: str) -> None:
        with self._lock:
            self._done += 1
            self._advance(key, self._done, self._count)


def compile_all(tasks: list[Task], processes: int, advance: Advance) -> None:
    """All jobs of the tasks; raises RuntimeError, with the reason, if one cannot be compiled."""
    pool = _Pool(tasks, advance)
    threads = [threading.Thread(target=pool.serve, daemon=True) for _ in range(processes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if pool.failure:
        raise RuntimeError(str(pool.failure)) from pool.failure


def compile_missing(
    jobs: Iterable[Job], progress: Callable[[int, int], None] | None = None
) -> None:
    """Compile those of the package's jobs that no file has, several at a time.

    They are then in the user's folder. Does nothing where a process of its own would not find them
    there, or not compile the same: they are compiled when they are asked for.
    progress: called with the jobs that are there and all of them.
    """
    every = {job.key: job for job in jobs}
    missing = tuple(key for key, job in every.items() if not job.is_there)
    processes = min(usable_cpus(), len(missing))
    if processes < 2 or not kept.is_shared():
        return

    def advance(key: str, done: int, count: int) -> None:
        if progress is not None:
            progress(len(every) - len(missing) + done, len(every))

    # What a worker cannot, this process says when it tries itself.
    with suppress(RuntimeError, OSError):
        compile_all([Task("here", keys=missing)], processes, advance)
