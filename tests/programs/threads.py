"""Threads of a process at its end, amid forks and amid signals.

python -m tests.programs.threads PART [NUMBER]

Each part says what it prints. A child that hangs ends itself, and so does not outlive its test.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any

import ternops
from ternops import team
from ternops.kernels import reference
from ternops.team import TEAM
from tests.helpers import cases, internals

TRITS = cases.trits(100, 1000)
MATRIX, X = ternops.pack(TRITS), cases.activations(1000)
EXPECTED = reference.matmul_int32(X[None], TRITS)[0]


def right(threads: int) -> bool:
    """Whether a product on this number of threads is right."""
    return cases.same_bits(ternops.matmul(MATRIX, X, threads=threads), EXPECTED)


def wait_until_parked() -> None:
    """Return when all workers sleep."""
    while not internals.all_parked():
        time.sleep(0.01)


# The end of the interpreter


def end_unused() -> None:
    """Nothing is printed."""


def end_spinning() -> None:
    """Nothing is printed."""
    assert right(7)


def end_parked() -> None:
    """Nothing is printed."""
    assert right(7)
    wait_until_parked()


def end_stopped() -> None:
    """Nothing is printed."""
    assert right(7)
    TEAM.stop()


def end_with_an_error() -> None:
    """The traceback of a RuntimeError."""
    right(3)
    raise RuntimeError("as ever")


KEPT: list[Any] = []


class Late:
    """Multiplies when it is deleted."""

    def __del__(self) -> None:
        print(right(3))


def multiply_at_the_end() -> None:
    """Whether a product is right, and another one at the end, when no thread can be started."""
    KEPT.append(Late())
    print(right(3))


def end_while_a_daemon_runs() -> None:
    """Nothing is printed; a daemon thread multiplies on."""
    started = threading.Event()

    def forever() -> None:
        while True:
            right(3)
            started.set()

    threading.Thread(target=forever, daemon=True).start()
    started.wait()


def wake_up() -> None:
    """The number of workers, when they have slept and worked in turn."""
    for _ in range(3):
        assert right(4)
        wait_until_parked()
    print("done", len(internals.workers()))


# Forks


def fork(used: int) -> None:
    """ "done"; each child makes a team of its own."""
    assert right(used)
    for _ in range(3):
        child = os.fork()
        if child == 0:
            signal.alarm(240)
            os._exit(0 if right(3) and right(1) and right(5) else 3)
        assert right(3)
        assert os.waitpid(child, 0)[1] == 0
    print("done")


def fork_amid_products(compiled: int) -> None:
    """ "done" and what was wrong; another thread compiles, or runs the team, at each fork."""
    if compiled:
        right(3)
    stop, wrong = threading.Event(), list[Any]()

    def hammer() -> None:
        while not stop.is_set():
            if not right(3):
                wrong.append("parent")

    worker = threading.Thread(target=hammer)
    worker.start()
    for _ in range(20):
        child = os.fork()
        if child == 0:
            grandchild = os.fork()
            signal.alarm(240)
            fine = right(3)
            if grandchild:
                fine = os.waitpid(grandchild, 0)[1] == 0 and fine
            os._exit(0 if fine else 3)
        if status := os.waitpid(child, 0)[1]:
            wrong.append(status)
            break
    stop.set()
    worker.join()
    print("done", wrong)


def fork_amid_a_launch() -> None:
    """Whether there were several forks, each at another line of a launch."""
    steps = forks = wanted = 0
    child: int | None = None

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        def step(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal steps, child
            if event == "line":
                steps += 1
                if steps == wanted:
                    child = os.fork()
                    if child == 0:
                        signal.alarm(60)
            return step

        return step if frame.f_code is internals.RUN_TOGETHER else None

    assert right(3)
    for wanted in range(1, 30):
        steps, child = 0, None
        sys.settrace(trace)
        fine = right(3)
        sys.settrace(None)
        if child == 0:
            os._exit(0 if fine and right(3) else 3)
        assert fine
        if child is None:
            break
        forks += 1
        assert os.waitpid(child, 0)[1] == 0, wanted
    print(forks > 1)


# Interruptions


def interrupt_a_start() -> None:
    """Whether products are right after a KeyboardInterrupt before a worker says that it runs."""
    real = threading.Event.wait

    def interrupted(self: threading.Event, timeout: float | None = None) -> bool:
        threading.Event.wait = real  # type: ignore[method-assign]
        raise KeyboardInterrupt

    assert right(3)
    TEAM.stop()
    threading.Event.wait = interrupted  # type: ignore[method-assign]
    try:
        right(3)
    except KeyboardInterrupt:
        print(all(right(3) for _ in range(300)))


def interrupt_waking() -> None:
    """Whether two products are right after a KeyboardInterrupt before a worker is woken."""
    real = threading.Semaphore.release

    def interrupted(self: threading.Semaphore, n: int = 1) -> None:
        threading.Semaphore.release = real  # type: ignore[method-assign]
        raise KeyboardInterrupt

    assert right(3)
    wait_until_parked()
    threading.Semaphore.release = interrupted  # type: ignore[method-assign]
    try:
        right(3)
    except KeyboardInterrupt:
        print(right(3), right(3))


def signal_amid_a_start() -> None:
    """Whether a handler's product came at more than ten lines of a worker's start, in turn."""
    number = seen = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal seen
        if frame.f_code is internals.START_WORKER and event == "line":
            seen += 1
            if seen == number:
                signal.raise_signal(signal.SIGINT)
        return trace if frame.f_code.co_filename == team.__file__ else None

    def handler(number: int, frame: FrameType | None) -> None:
        assert right(3)

    assert right(1)
    signal.signal(signal.SIGINT, handler)
    while seen >= number:
        number, seen = number + 1, 0
        TEAM.stop()
        sys.settrace(trace)
        assert right(3)
        sys.settrace(None)
        for _ in range(20):
            assert right(3)
        names = [each.name for each in threading.enumerate() if each.name.startswith("ternops")]
        assert sorted(names) == ["ternops-1", "ternops-2"], (number, names)
    print(number > 10)


PARTS = {
    part.__name__: part
    for part in (
        end_unused, end_spinning, end_parked, end_stopped, end_with_an_error,
        end_while_a_daemon_runs,
        multiply_at_the_end, wake_up, fork, fork_amid_products, fork_amid_a_launch,
        interrupt_a_start, interrupt_waking, signal_amid_a_start,
    )
}  # fmt: skip

if __name__ == "__main__":
    internals.eager_threads().__enter__()  # for good: a product may come after this module's end
    PARTS[sys.argv[1]](*map(int, sys.argv[2:]))
