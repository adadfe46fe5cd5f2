"""Threads of the caller, forked children and the end of the interpreter: right, and no hang."""

from __future__ import annotations

import os
import signal
import sys
import threading

import pytest

import ternops
from ternops import product, scratch
from ternops.kernels import reference
from ternops.team import TEAM, Team
from ternops.threads import check_threads, default_threads
from tests.helpers import cases, internals, processes
from tests.helpers.marks import slow_but

#: A hang is what most of these look for; each process that they start ends earlier.
pytestmark = [pytest.mark.usefixtures("eager_threads"), pytest.mark.timeout(330)]

FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="no os.fork here")


@pytest.mark.slow
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
    files = {product.__file__, scratch.__file__}
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
        before = internals.workers()
        TEAM.stop()
        TEAM.stop()
        assert internals.workers() == []
        assert not any(worker.is_alive() for worker in before)


def test_two_teams_do_not_mix():
    """Another team has workers and a control block of its own."""
    team = Team()
    assert team.address % 64 == 0
    assert team.address != TEAM.address
    team.stop()


@pytest.mark.slow
def test_a_parked_team_wakes_up():
    """After its workers have gone to sleep a product is right, and again."""
    assert processes.run_program("threads", "wake_up", timeout=120).split() == ["done", "3"]


@pytest.mark.slow
@pytest.mark.parametrize("state", ["unused", "spinning", "parked", "stopped"])
def test_the_interpreter_ends_cleanly(state):
    """Exit code 0 and no output, whatever the workers are doing."""
    done = processes.program("threads", f"end_{state}", timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_product_at_the_very_end_of_the_interpreter():
    """In a `__del__`, when no thread can be started any more: on one."""
    found = processes.run_program("threads", "multiply_at_the_end", timeout=120)
    assert found.split() == ["True", "True"]


def test_the_interpreter_ends_with_its_error():
    """An exception after a product ends the process as ever: traceback, exit code 1."""
    done = processes.program("threads", "end_with_an_error", timeout=120)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "RuntimeError: as ever"


@pytest.mark.slow
def test_the_interpreter_ends_while_a_daemon_multiplies():
    """A daemon thread that never stops neither crashes the end of the process nor holds it up."""
    for _ in range(5):
        assert processes.program("threads", "end_while_a_daemon_runs", timeout=60).returncode == 0


@FORKS
@pytest.mark.parametrize("used", slow_but([1, 4], 4))
def test_a_forked_child_works(used):
    """It makes a team of its own; the parent's goes on, and both are right."""
    found = processes.run_program("threads", "fork", str(used), timeout=300)
    assert found.split() == ["done"]


@pytest.mark.slow
@FORKS
@pytest.mark.parametrize("compiled", [1, 0], ids=["compiled", "compiling"])
def test_a_child_forked_amid_a_product_works(compiled):
    """Another thread compiles, or runs the team, while the process forks; all are right."""
    found = processes.run_program("threads", "fork_amid_products", str(compiled), timeout=300)
    assert found.split() == ["done", "[]"]


@pytest.mark.slow
@FORKS
def test_a_fork_in_a_signal_handler_amid_a_launch():
    """At any line: the child goes on with a team of its own."""
    found = processes.run_program("threads", "fork_amid_a_launch", timeout=120)
    assert found.split() == ["True"]


@pytest.mark.slow
def test_an_interruption_before_a_worker_has_a_name():
    """No two workers take the same place of the team."""
    found = processes.run_program("threads", "interrupt_a_start", timeout=120)
    assert found.split() == ["True"]


def test_an_interruption_before_a_worker_is_woken():
    """It is woken by the next product, which does not wait for it forever."""
    found = processes.run_program("threads", "interrupt_waking", timeout=120)
    assert found.split() == ["True", "True"]


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


@pytest.mark.slow
def test_a_product_in_a_signal_handler_that_interrupts_the_teams_start():
    """At any line it runs on its own thread alone; afterwards the team has its two workers."""
    found = processes.run_program("threads", "signal_amid_a_start", timeout=300)
    assert found.split() == ["True"]


def test_a_fork_waits_for_the_compiler_before_it_holds_the_lock_of_logging():
    """Which the compiler needs while it is imported: each would wait for the other for ever."""
    code = (
        "import os, threading, time\nfrom ternops.simd.lock import LOCK\n"
        "import logging\n"  # later than ternops
        "def fork():\n"
        "    forking.set()\n"
        "    if not (child := os.fork()):\n"
        "        os._exit(0)\n"
        "    os.waitpid(child, 0)\n"
        "for _ in range(20):\n"
        "    forking, thread = threading.Event(), threading.Thread(target=fork)\n"
        "    with LOCK:\n"
        "        thread.start()\n"
        "        forking.wait()\n"
        "        time.sleep(0.01)\n"
        "        logging.getLogger('a')\n"
        "    thread.join()\n"
        "print('none waits')"
    )
    assert processes.run_code(code, timeout=60) == "none waits\n"
