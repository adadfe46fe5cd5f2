"""What a system does to a process at its worst: killed, stopped, held to fewer CPUs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ternops.simd.objects import Origin, as_bytes, open_objects
from tests.helpers import processes
from tests.helpers.kernel_cache import ONE, READ, run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals and affinity of Linux")
#: Multiplies on two threads until stdin ends, a line a product: whether it was exact.
MULTIPLIES = """
import sys, threading
import numpy as np, ternops
from tests.helpers import cases, internals
with internals.eager_threads():
    trits = cases.trits(512, 1024)
    matrix, x = ternops.pack(trits), cases.activations(4, 1024)
    exact = x.astype(np.int32) @ trits.T.astype(np.int32)
    going = True
    def wait():
        global going
        sys.stdin.read()
        going = False
    threading.Thread(target=wait, daemon=True).start()
    while going:
        print(np.array_equal(ternops.matmul(x, matrix.T, threads=2), exact), flush=True)
"""


@pytest.fixture
def multiplying():
    """A process of MULTIPLIES that has begun."""
    running = subprocess.Popen(
        [sys.executable, "-c", MULTIPLIES], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env=processes.environment(), cwd=processes.ROOT, text=True,
    )  # fmt: skip
    assert running.stdout.readline() == "True\n"
    yield running
    running.kill()
    running.wait()
    running.stdout.close()


def more(running, count=20):
    """Whether so many further products are exact."""
    return all(running.stdout.readline() == "True\n" for _ in range(count))


def test_a_process_that_is_stopped_goes_on(multiplying):
    """Its threads stand wherever they were, waiting for one another."""
    for _ in range(10):
        multiplying.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, multiplying.pid, os.WSTOPPED | os.WNOWAIT)
        multiplying.send_signal(signal.SIGCONT)
        assert more(multiplying)


def test_fewer_cpus_while_it_runs(multiplying):
    """All threads of it on one CPU, and back: products are exact, and no thread waits for ever."""
    cpus = os.sched_getaffinity(0)
    tasks = [int(each) for each in os.listdir(f"/proc/{multiplying.pid}/task")]
    for allowed in ({min(cpus)}, cpus, {max(cpus)}):
        for task in tasks:
            os.sched_setaffinity(task, allowed)
        assert more(multiplying)
    multiplying.stdin.close()
    assert multiplying.wait(60) == 0


@pytest.mark.slow
def test_a_compilation_that_is_killed(tmp_path):
    """When it has kept its first kernels: the next process takes those and compiles the others."""
    running = subprocess.Popen(
        [sys.executable, "-P", "-m", "tests.programs.kernel_cache", ONE],
        stdout=subprocess.DEVNULL, cwd=processes.ROOT,
        env=processes.environment(NUMBA_CACHE_DIR=str(tmp_path)),
    )  # fmt: skip
    while running.poll() is None and not list(tmp_path.rglob("*.kernels")):
        time.sleep(0.005)
    running.kill()
    running.wait()
    done = list(tmp_path.rglob("*.kernels"))
    compiled, _ = run(tmp_path)
    assert len(list(tmp_path.rglob("*.kernels"))) == len(done) + len(compiled)
    assert run(tmp_path)[0] == READ


def test_a_server_that_is_killed_leaves_no_process(tmp_path):
    """What renders its templates ends when nobody asks any more."""
    program = (
        "import os, signal\nfrom ternops.decoder.chat import ChatTemplate\n"
        "from tests.helpers import internals\n"
        "ChatTemplate('a', {}).render([])\n"
        "print(internals.template_process().pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = processes.python("-c", program)
    assert done.returncode == -signal.SIGKILL
    child = Path("/proc", done.stdout.strip())
    end = time.monotonic() + 60
    while child.exists() and "State:\tZ" not in (child / "status").read_text():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_every_byte_of_kept_kernels_counts(tmp_path):
    """Another byte in any place: the same code, or none; never other code, nor much memory."""
    origin = Origin("0123", "x86_64-linux", "znver4", ("+avx2", "-sse4a"))
    kernels = [("a.b", bytes(range(256)), "entry"), ("c", b"\xc3" * 40, "other")]
    data = as_bytes(origin, kernels)
    path = tmp_path / "x.kernels"
    path.write_bytes(data)
    whole = {key: (code, symbol) for key, code, symbol in kernels}
    assert {key: open_objects(path).read(key) for key in whole} == whole
    for place in range(len(data)):
        for change in (0x01, 0x80, 0xFF):
            damaged = bytearray(data)
            damaged[place] ^= change
            path.write_bytes(damaged)
            found = open_objects(path)
            for key, code in whole.items() if found else ():
                assert found.read(key) in (None, code), (place, change)
    for length in range(len(data)):
        path.write_bytes(data[:length])
        found = open_objects(path)
        assert found is None or found.read("c") is None


def test_a_length_of_gigabytes_reserves_nothing(tmp_path):
    """In a process that could not have them."""
    path = tmp_path / "x.kernels"
    data = as_bytes(Origin("0", "x", "y", ()), [("a", b"code", "entry")])
    path.write_bytes(data[:18] + b"\xff\xff\xff\xff" + data[22:])
    code = (
        "import resource\nfrom pathlib import Path\n"
        "from ternops.simd.objects import open_objects\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
        f"print(open_objects(Path({str(path)!r})))"
    )
    assert processes.run_code(code, OPENBLAS_NUM_THREADS="1") == "None\n"
