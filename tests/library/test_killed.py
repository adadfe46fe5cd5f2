"""SIGKILL amid what has processes of its own, or files: none is left, and files are whole."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from ternops.simd.objects import open_objects
from ternops.tuning import report
from tests.helpers import processes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
_MARK = "TERNOPS_TEST_MARK"
#: Seconds that a worker may take for the kernel that it is at: on a busy machine the longest is
#: a minute.
PATIENCE = 240
#: Says what it does, a line each.
TUNE = "import ternops; ternops.tune({}, lambda what, part: print(what, flush=True))"


class Family:
    """A process and those that it starts, which inherit a mark."""

    def __init__(self, *arguments, **changes):
        self.mark = f"{_MARK}={uuid.uuid4()}"
        environment = processes.environment(**changes, **dict([self.mark.split("=")]))
        self.process = subprocess.Popen(
            [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env=environment, cwd=processes.ROOT, text=True,
        )  # fmt: skip

    def members(self):
        """The numbers of those that run."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:  # what is left of an ended process that nobody waited for has none
                if self.mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
            except OSError:
                continue
        return found

    def wait_until(self, condition, what):
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, what
            time.sleep(0.02)

    def kill(self):
        """The first of them alone, as whoever runs out of patience does."""
        self.process.send_signal(signal.SIGKILL)
        assert self.process.wait() == -signal.SIGKILL
        self.wait_until(lambda: not self.members(), "processes that go on")
        self.process.stdout.close()


@pytest.fixture
def family():
    """Starts one; whoever is left of it is ended."""
    started = []

    def start(*arguments, **changes):
        started.append(Family(*arguments, **changes))
        return started[-1]

    yield start
    for each in started:
        for number in each.members():
            os.kill(number, signal.SIGKILL)


@pytest.mark.slow
def test_warmup(family, tmp_path):
    """Its workers end, and what they have kept is whole."""
    running = family("-m", "ternops", "warmup", NUMBA_CACHE_DIR=str(tmp_path))
    running.wait_until(lambda: list(tmp_path.rglob("*.kernels")), "no kernel")
    assert len(running.members()) > 1
    running.kill()
    for path in tmp_path.rglob("*.kernels"):
        found = open_objects(path)
        assert found is not None
        assert all(found.read(key) is not None for key in found.kernels)


@pytest.mark.slow
def test_the_build_of_a_wheel(family, tmp_path):
    """The compiler and its workers end, and the sources are as they were."""
    before = sorted(processes.ROOT.joinpath("ternops").rglob("*.kernels"))
    places = {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "TMPDIR": str(tmp_path)}
    running = family(
        "-m", "tests.programs.build_kernels", TERNOPS_BUILD="here", **places,
    )  # fmt: skip
    # Those of workers are in a folder of their own, beside the build's.
    running.wait_until(lambda: list(tmp_path.glob("ternops-*/*/*.kernels")), "no kernel")
    assert len(running.members()) > 2
    running.kill()
    assert sorted(processes.ROOT.joinpath("ternops").rglob("*.kernels")) == before
    assert not list(tmp_path.glob("ternops-*/*/*.kernels"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("phase", "seconds"),
    [("", 60), ("compiling, .*", 600), (r"\w+, \w+", 60), ("auto", 5)],
    ids=["at once", "compiling", "measuring", "choosing"],
)
def test_tuning(family, tmp_path, phase, seconds):
    """The file that there was stays, and it alone."""
    path, cache = tmp_path / "there" / "tuning.toml", {}
    path.parent.mkdir()
    report.write(path, [], {}, 1.0, [])
    before = path.read_bytes()
    if "compiling" in phase:
        cache = {"NUMBA_CACHE_DIR": str(tmp_path)}
    running = family("-c", TUNE.format(seconds), TERNOPS_TUNING=str(path), **cache)
    while phase:
        line = running.process.stdout.readline()
        assert line, f"no {phase}"
        if re.fullmatch(phase, line.strip()):
            break
    running.kill()
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == [path.name]
