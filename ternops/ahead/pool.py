"""Workers beside one another, a process each, that share out the jobs of one target or several."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NamedTuple

from ternops.kernels import tuned
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

    def keys(self) -> tuple[str, ...]:
        """Of all jobs that it knows; asked once, at first. RuntimeError if it has ended."""
        return tuple(json.loads(self._answer()))

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

    def end(self) -> None:
        """The process, whatever it is at: who waits for an answer gets RuntimeError."""
        self._process.terminate()

    def close(self) -> None:
        """End the process, which nobody waits for."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):  # it has ended by itself
                    pipe.close()
        self._process.terminate()
        self._process.wait()
        self._errors.close()


class _Pool:
    def __init__(self, tasks: Iterable[Task], advance: Advance, skips: bool) -> None:
        self._left = {task: None if task.keys is None else deque(task.keys) for task in tasks}
        self._busy = dict.fromkeys(self._left, 0)
        self._advance, self._done, self._count = advance, 0, 0
        self._count = sum(len(keys or ()) for keys in self._left.values())
        self._skips = skips
        self._lock = threading.Lock()
        self._workers: list[_Worker] = []
        self._ended = False
        self.failure: Exception | None = None

    def serve(self) -> None:
        """What each of the threads does, which has one worker at a time."""
        try:
            while task := self._pick():
                worker = self._start(task)
                try:
                    self._learn(task, worker.keys())
                    self._work(task, worker)
                finally:
                    self._stop(worker)
        except Exception as error:
            if not self._ended:
                self.failure = self.failure or error

    def end(self) -> None:
        """Let all workers end, whatever they are at."""
        with self._lock:
            self._ended = True
            for worker in self._workers:
                worker.end()

    def _start(self, task: Task) -> _Worker:
        worker = _Worker(task)
        with self._lock:
            self._workers.append(worker)
            if self._ended:
                worker.end()
        return worker

    def _stop(self, worker: _Worker) -> None:
        with self._lock:
            self._workers.remove(worker)
        worker.close()

    def _work(self, task: Task, worker: _Worker) -> None:
        while key := self._next(task):
            try:
                worker.compile(key)
            except (RuntimeError, OSError):  # the worker is gone
                if not self._skips:
                    raise
                with self._lock:
                    self._busy[task] -= 1
                return
            self._note(key)

    def _pick(self) -> Task | None:
        """A target that nobody works for, else the one that most is left of."""
        with self._lock:
            open_ = [task for task, keys in self._left.items() if keys is None or keys]
            if self.failure or self._ended or not open_:
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
            if left and not self.failure and not self._ended:
                return left.popleft()
            self._busy[task] -= 1
            return None

    def _note(self, key: str) -> None:
        with self._lock:
            self._done += 1
            self._advance(key, self._done, self._count)


def compile_all(
    tasks: list[Task],
    processes: int,
    advance: Advance,
    until: float = math.inf,
    skips: bool = False,
) -> None:
    """All jobs of the tasks; raises RuntimeError, with the reason, if one cannot be compiled.

    until: the `time.monotonic` from which on no more are. skips: go on without those that cannot;
    raises RuntimeError only if no worker can be started.
    """
    pool = _Pool(tasks, advance, skips)
    threads = [threading.Thread(target=pool.serve, daemon=True) for _ in range(processes)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(None if until == math.inf else max(0.0, until - time.monotonic()))
    finally:  # no process is left behind, by Ctrl-C either
        pool.end()
        for thread in threads:
            if thread.ident is not None:  # it has begun
                thread.join()
    if pool.failure:
        raise RuntimeError(str(pool.failure)) from pool.failure


def compile_missing(
    jobs: Iterable[Job],
    progress: Callable[[int, int], None] | None = None,
    until: float = math.inf,
) -> None:
    """Compile those of the package's jobs that no file has, several at a time.

    They are then in the user's folder. Does nothing where a process of its own would not find them
    there, or not compile the same: they are compiled when they are asked for. One that cannot be
    compiled is left out; RuntimeError or OSError if there can be no such process.
    progress: called with the jobs that are there and all of them. until: see `compile_all`.
    """
    every = {job.key: job for job in jobs}
    missing = tuple(key for key, job in every.items() if not job.is_there)
    if not missing or not kept.is_shared():
        return

    def advance(key: str, done: int, count: int) -> None:
        if progress is not None:
            progress(len(every) - len(missing) + done, len(every))

    # With the tables' tiles, whatever file there is: others are candidates.
    task = Task("here", environment=((tuned.VARIABLE, tuned.OFF),), keys=missing)
    compile_all([task], min(usable_cpus(), len(missing)), advance, until, skips=True)
