"""Threads of the caller, forked children and the end of the interpreter: right, and no hang."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading

import pytest

import ternops
from ternops import workspace
from ternops.kernels import reference
from ternops.team import TEAM, Team
from ternops.threads import check_threads, default_threads
from tests.helpers import cases, processes

pytestmark = pytest.mark.usefixtures("eager_threads")

FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="no os.fork here")

SETUP = """
import os, signal, sys, threading, time
import numpy as np
import ternops
from ternops.kernels import reference, tuning
from ternops.team import TEAM
from tests.helpers import cases
tuning.BYTES_A_THREAD = 1
trits = cases.trits(100, 1000)
matrix, x = ternops.pack(trits), cases.activations(1000)
expected = reference.matmul_int32(x[None], trits)[0]
def right(threads):
    return cases.same_bits(ternops.matmul(matrix, x, threads=threads), expected)
def all_parked():
    return all(state == 1 for state in TEAM._states[1 : len(TEAM._threads) + 1])
"""


@pytest.mark.parametrize("encoding", cases.ENCODINGS)
@pytest.mark.parametrize(("callers", "threads"), [(2, 1), (2, 2), (5, 1), (5, 3)])
def test_many_python_threads_share_one_matrix(callers, threads, encoding):
    """Each gets its own right result, however they take turns."""
    trits = cases.trits(100, 1000, encoding=encoding)
    matrix = ternops.pack(trits, encoding=encoding)
    start, wrong = threading.Barrier(callers), []

    def hammer(seed):
        try:
            start.wait()
            for i in range(60):
                m = (1, 3, 9, 40)[i % 4]
                x = cases.activations(m, 1000, seed=seed * 1000 + i)
                expected = reference.matmul_int32(x, trits)
                if not cases.same_bits(ternops.matmul(x, matrix.T, threads=threads), expected):
                    wrong.append((seed, i))
        except BaseException as error:
            wrong.append(error)

    workers = [threading.Thread(target=hammer, args=(seed,)) for seed in range(callers)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("encoding", cases.ENCODINGS)
def test_a_signal_handler_multiplies_amid_a_product(encoding, threads):
    """At every line of a product a handler runs another one, of another size: both are right."""
    product = importlib.import_module("ternops.product")
    files = {product.__file__, workspace.__file__}
    outer, inner = (
        cases.trits(100, 1000, encoding=encoding),
        cases.trits(70, 3001, seed=1, encoding=encoding),
    )
    x, y = cases.activations(5, 1000), cases.activations(9, 3001)
    expected, wanted = reference.matmul_int32(x, outer), reference.matmul_int32(y, inner)
    other, handled, wrong = ternops.pack(inner, encoding=encoding), [], []

    def handler(number, frame):
        handled.append(number)
        for tokens in (y, y[:1]):
            if not cases.same_bits(tokens @ other.T, wanted[: len(tokens)]):
                wrong.append(len(handled))

    def trace(frame, event, argument):
        if frame.f_code.co_filename not in files:
            return None
        if event == "line":
            signal.raise_signal(signal.SIGINT)
        return trace

    ternops.matmul(y, other.T, threads=threads)  # starts the workers
    before = signal.signal(signal.SIGINT, handler)
    try:
        for m in (5, 1):
            matrix = ternops.pack(outer, encoding=encoding)
            sys.settrace(trace)
            found = ternops.matmul(x[:m], matrix.T, threads=threads)
            sys.settrace(None)
            assert cases.same_bits(found, expected[:m])
    finally:
        sys.settrace(None)
        signal.signal(signal.SIGINT, before)
    assert len(handled) > 50
    assert wrong == []


@pytest.mark.parametrize("encoding", cases.ENCODINGS)
@pytest.mark.parametrize("kind", ["none", "scalar", "rows"])
def test_results_do_not_depend_on_the_number_of_threads(kind, encoding):
    """The same bits from 1, 2, 3 and 7, for one token and for several."""
    matrix = ternops.pack(
        cases.trits(101, 1021, encoding=encoding), cases.scales(101)[kind], encoding
    )
    for make in (cases.activations, cases.floats):
        for m in (1, 9):
            x = make(m, 1021)
            expected = ternops.matmul(x, matrix.T, threads=1)
            for threads in cases.THREADS:
                found = ternops.matmul(x, matrix.T, threads=threads)
                assert cases.same_bits(found, expected), (m, threads)


def test_a_stopped_team_starts_again():
    """`stop` ends the workers, more than once if asked; the next product makes new ones."""
    matrix, x = ternops.pack(cases.trits(64, 64)), cases.activations(64)
    expected = ternops.matmul(matrix, x, threads=1)
    for threads in (3, 7, 2):
        assert cases.same_bits(ternops.matmul(matrix, x, threads=threads), expected)
        before = list(TEAM._threads)
        TEAM.stop()
        TEAM.stop()
        assert TEAM._threads == []
        assert not any(worker.is_alive() for worker in before)


def test_two_teams_do_not_mix():
    """Another team has workers and a control block of its own."""
    team = Team()
    assert team.address % 64 == 0
    assert team.address != TEAM.address
    team.stop()


def test_a_parked_team_wakes_up():
    """After its workers have gone to sleep a product is right, and again."""
    code = SETUP + (
        "for _ in range(3):\n"
        "    assert right(4)\n"
        "    while not all_parked(): time.sleep(0.01)\n"
        "print('done', len(TEAM._threads))"
    )
    assert processes.run_code(code).split() == ["done", "3"]


@pytest.mark.parametrize("state", ["unused", "spinning", "parked", "stopped"])
def test_the_interpreter_ends_cleanly(state):
    """Exit code 0 and not a word, whatever the workers are doing."""
    code = (
        SETUP
        + {
            "unused": "",
            "spinning": "assert right(7)\n",
            "parked": "assert right(7)\nwhile not all_parked(): time.sleep(0.01)\n",
            "stopped": "assert right(7)\nTEAM.stop()\n",
        }[state]
    )
    done = processes.python("-c", code + "sys.exit(0)")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_product_at_the_very_end_of_the_interpreter():
    """In a `__del__`, when no thread can be started any more: on one."""
    code = SETUP + (
        "class Late:\n    def __del__(self): print(right(3))\nlate = Late()\nprint(right(3))"
    )
    assert processes.run_code(code, timeout=120).split() == ["True", "True"]


def test_the_interpreter_ends_with_its_error():
    """An exception after a product ends the process as ever: traceback, exit code 1."""
    done = processes.python("-c", SETUP + "right(3)\nraise RuntimeError('as ever')")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "RuntimeError: as ever"


def test_the_interpreter_ends_while_a_daemon_multiplies():
    """A daemon thread that never stops neither crashes the end of the process nor holds it up."""
    code = SETUP + (
        "started = threading.Event()\n"
        "def forever():\n"
        "    while True:\n"
        "        right(3)\n"
        "        started.set()\n"
        "threading.Thread(target=forever, daemon=True).start()\n"
        "started.wait()\n"
        "sys.exit(0)"
    )
    assert [processes.python("-c", code).returncode for _ in range(5)] == [0] * 5


@FORKS
@pytest.mark.parametrize("used", [1, 4])
def test_a_forked_child_works(used):
    """It makes a team of its own; the parent's goes on, and both are right."""
    code = SETUP + (
        f"assert right({used})\n"
        "for _ in range(3):\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        signal.alarm(240)\n"  # a child that hangs must not outlive the test
        "        os._exit(0 if right(3) and right(1) and right(5) else 3)\n"
        "    assert right(3)\n"
        "    assert os.waitpid(child, 0)[1] == 0\n"
        "print('done')"
    )
    assert processes.run_code(code).split() == ["done"]


@FORKS
@pytest.mark.parametrize("first", ["right(3)\n", ""], ids=["compiled", "compiling"])
def test_a_child_forked_amid_a_product_works(first):
    """Another thread compiles, or runs the team, while the process forks; all are right."""
    code = SETUP + (
        f"{first}stop, wrong = threading.Event(), []\n"
        "def hammer():\n"
        "    while not stop.is_set(): right(3) or wrong.append('parent')\n"
        "worker = threading.Thread(target=hammer)\n"
        "worker.start()\n"
        "for _ in range(20):\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        grandchild = os.fork()\n"
        "        signal.alarm(240)\n"
        "        fine = right(3)\n"
        "        if grandchild: fine = os.waitpid(grandchild, 0)[1] == 0 and fine\n"
        "        os._exit(0 if fine else 3)\n"
        "    status = os.waitpid(child, 0)[1]\n"
        "    if status: wrong.append(status); break\n"
        "stop.set()\n"
        "worker.join()\n"
        "print('done', wrong)"
    )
    assert processes.run_code(code).split() == ["done", "[]"]


FORK_WHILE_LAUNCHING = (
    SETUP
    + """
import sys
from ternops import team

steps = forks = 0

def trace(frame, event, argument):
    global steps, forks, child
    if frame.f_code is not team.Team._run_together.__code__: return
    def step(frame, event, argument):
        global steps, child
        if event == "line":
            steps += 1
            if steps == wanted:
                child = os.fork()
                if child == 0: signal.alarm(60)  # one that hangs must not outlive the test
        return step
    return step

assert right(3)
for wanted in range(1, 30):
    steps, child = 0, None
    sys.settrace(trace)
    fine = right(3)
    sys.settrace(None)
    if child == 0:
        os._exit(0 if fine and right(3) else 3)
    assert fine
    if child is None: break
    forks += 1
    assert os.waitpid(child, 0)[1] == 0, wanted
print(forks > 1)
"""
)


@FORKS
def test_a_fork_in_a_signal_handler_amid_a_launch():
    """At any line: the child goes on with a team of its own."""
    assert processes.run_code(FORK_WHILE_LAUNCHING, timeout=120).split() == ["True"]


INTERRUPTED_START = (
    SETUP
    + """
from ternops.team import TEAM
real = threading.Event.wait

def interrupted(self, timeout=None):
    threading.Event.wait = real
    raise KeyboardInterrupt

assert right(3)
TEAM.stop()
threading.Event.wait = interrupted  # before the first worker has said that it runs
try:
    right(3)
except KeyboardInterrupt:
    print(all(right(3) for _ in range(300)))
"""
)


def test_an_interruption_before_a_worker_has_a_name():
    """No two workers take the same place of the team."""
    assert processes.run_code(INTERRUPTED_START, timeout=120).split() == ["True"]


INTERRUPTED_WAKING = (
    SETUP
    + """
real = threading.Semaphore.release

def interrupted(self, n=1):
    threading.Semaphore.release = real
    raise KeyboardInterrupt

assert right(3)
while not all_parked(): time.sleep(0.01)
threading.Semaphore.release = interrupted
try:
    right(3)
except KeyboardInterrupt:
    print(right(3), right(3))
"""
)


def test_an_interruption_before_a_worker_is_woken():
    """It is woken by the next product, which does not wait for it for ever."""
    assert processes.run_code(INTERRUPTED_WAKING, timeout=120).split() == ["True", "True"]


def test_the_default_is_numbas():
    """NUMBA_NUM_THREADS, as for everything compiled by Numba."""
    code = "from ternops.threads import default_threads; print(default_threads())"
    assert processes.run_code(code, NUMBA_NUM_THREADS="1").split() == ["1"]
    assert default_threads() >= 1
    assert check_threads(None) == default_threads()
    assert check_threads(256) == 256


@pytest.mark.parametrize(
    ("error", "threads"),
    [(ValueError, 0), (ValueError, -3), (ValueError, 257), (TypeError, True), (TypeError, 1.0),
     (TypeError, "1")],
)  # fmt: skip
def test_a_bad_number_of_threads_is_named(error, threads):
    """One line with the argument and its value."""
    with pytest.raises(error, match=rf"^threads={threads!r}: expected [^\n]*$"):
        check_threads(threads)


SIGNAL_WHILE_STARTING = (
    SETUP
    + """
from ternops import team
number, seen = 0, 0

def trace(frame, event, argument):
    global seen
    if frame.f_code is team.Team._start_worker.__code__ and event == "line":
        seen += 1
        if seen == number:
            signal.raise_signal(signal.SIGINT)
    return trace if frame.f_code.co_filename == team.__file__ else None

def handler(number, frame):
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
"""
)


def test_a_product_in_a_signal_handler_that_interrupts_the_teams_start():
    """At any line it runs on its own thread alone; afterwards the team has its two workers."""
    assert processes.run_code(SIGNAL_WHILE_STARTING, timeout=300).split() == ["True"]
