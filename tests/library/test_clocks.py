"""Clocks that jump: the wall clock by years, either way, and the others ahead, as after a pause."""

from __future__ import annotations

import ast
import itertools
import json
import time
from unittest import mock

import numpy as np
import pytest

import ternops
from ternops.decoder import Model, Session
from ternops.kernels import tuned
from tests.helpers import cases, processes
from tests.helpers.kernel_cache import COMPILED, ONE, READ

#: Seconds since 1970: then, today's order, before it, and after 32 bits.
JUMPS = (0.0, 1.8e9, 1.2e9, 2.0**32)
#: What reads the wall clock: the time of the import, what asks whether the clock is behind, and two
#: dates that are told.
OF_THE_WALL = {
    "ternops/imported.py", "ternops/simd/folder.py", "ternops/serve/serving.py",
    "ternops/serve/chunks.py",
}  # fmt: skip


def wall_that_jumps():
    """While this lasts, each look at the wall clock tells another year."""
    return mock.patch.object(time, "time", side_effect=itertools.cycle(JUMPS))


def clocks_that_leap():
    """While this lasts, each look at a clock that never goes back finds a month gone by."""
    month = 30 * 86400
    seconds, start = itertools.count(month, month), time.monotonic()

    def now():
        return start + next(seconds)

    patch = mock.patch.multiple
    return patch(time, monotonic=now, perf_counter=now, perf_counter_ns=lambda: int(1e9 * now()))


def test_nothing_is_timed_by_the_wall_clock():
    """Only dates come from it: a wait or a limit would last for ever when it is set back."""
    found = set()
    for path in sorted((processes.ROOT / "ternops").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in (
                "time.time",
                "time.time_ns",
            ):
                found.add(str(path.relative_to(processes.ROOT)))
            if isinstance(node, ast.ImportFrom) and node.module == "time":
                pytest.fail(f"{path}: from time import, which no patch of a clock reaches")
    assert found == OF_THE_WALL


@pytest.mark.parametrize("clock", [wall_that_jumps, clocks_that_leap])
def test_products_and_tokens_are_the_same(clock, eager_threads):
    """On several threads, which time one another; and usable CPUs are looked up each time."""
    trits, x = cases.trits(300, 1000), cases.activations(4, 1000)
    exact = x.astype(np.int32) @ trits.T.astype(np.int32)
    session = Session(Model.from_pretrained(threads=2))
    expected = session.read([1, 2, 3]).copy()
    with clock():
        for _ in range(50):
            assert np.array_equal(ternops.matmul(x, ternops.pack(trits).T, threads=2), exact)
        again = Session(Model.from_pretrained(threads=2))
        assert cases.same_bits(again.read([1, 2, 3]), expected)


@pytest.mark.parametrize("date", ["1970-01-01", "9999-12-31"])
def test_a_tuning_of_another_age_counts(date, tmp_path):
    """What was found holds for a machine and a version, and not for a time."""
    import tomli_w

    path = tmp_path / "tuning.toml"
    path.write_text(tomli_w.dumps({"version": "0", "date": date, **tuned.identity()}))
    assert tuned.read(path).tiles == {}


def test_kernels_are_kept_where_the_clock_is_behind_the_sources(tmp_path):
    """A board that has no clock without power is in 1970 until a network tells it the time."""
    code = (
        "import json, sys, time, warnings\ntime.time = lambda: 1000.0\n"
        "sys.argv = ['kernel_cache', sys.argv[1]]\n"
        "from tests.programs import kernel_cache\nkernel_cache.main()"
    )
    for expected in (COMPILED, READ):
        done = processes.python("-W", "error", "-c", code, ONE, NUMBA_CACHE_DIR=str(tmp_path))
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[0].split() == expected


def test_an_edit_counts_where_the_clock_is_behind_the_sources(tmp_path):
    """Sources that change after they were imported are told apart all the same."""
    import shutil

    package = tmp_path / "ternops"
    shutil.copytree(processes.ROOT / "ternops", package)
    code = (
        "import json, time\ntime.time = lambda: 1000.0\n"
        "import ternops\nfrom ternops.simd import folder\nfound = [folder.change()]\n"
        f"open({str(package / 'sizes.py')!r}, 'a').write('#')\n"
        "found.append(folder.change())\nprint(json.dumps(found))"
    )
    done = processes.python("-P", "-c", code, PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    before, after = json.loads(done.stdout)
    assert before == ""
    assert after == f"{package / 'sizes.py'} has changed since this process imported ternops"
