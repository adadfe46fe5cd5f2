"""How many threads are used: the default, limits, and what the system does not grant."""

from __future__ import annotations

import os
import threading
import warnings

import numba
import numpy as np
import pytest
import threadpoolctl

import ternops
from ternops import team, threads
from ternops.decoder import Model
from ternops.kernels import reference
from ternops.simd import TeamJob, load, nanoseconds, pointer, record_at, store
from ternops.team import TEAM, Team, barrier
from tests.helpers import cases, internals, processes

#: Barriers that nobody leaves are what some of these look for.
pytestmark = [pytest.mark.usefixtures("eager_threads"), pytest.mark.timeout(120)]

TRITS, X = cases.trits(100, 1000), cases.activations(3, 1000)
MATRIX, EXPECTED = ternops.pack(TRITS), reference.matmul_int32(X, TRITS)


@pytest.fixture
def used(monkeypatch):
    """The numbers of threads that jobs are started on, however busy the machine is."""
    return internals.watch_launches(monkeypatch)


def product(**settings):
    """A product that is right."""
    assert cases.same_bits(ternops.matmul(X, MATRIX.T, **settings), EXPECTED)


@pytest.mark.parametrize("asked", [None, 1, 2, 5])
def test_a_limit_holds_for_products(used, asked):
    """Until the block ends, whatever is asked for; nested ones, too."""
    with ternops.set_num_threads(3):
        assert ternops.get_num_threads() == min(3, threads.default_threads())
        with ternops.set_num_threads(1):
            assert ternops.get_num_threads() == 1
            product(threads=asked)
        product(threads=asked)
        with ternops.set_num_threads(None):
            product(threads=asked)
    everything = asked or threads.default_threads()
    assert used == [1, min(3, everything), everything]


def test_a_limit_holds_for_models_that_exist(used):
    """The same logits on fewer threads; without ``with`` it stays until it is changed."""
    model = Model.from_pretrained(threads=2)
    expected = model.logits([1, 2, 3])
    used.clear()
    try:
        ternops.set_num_threads(1)
        assert cases.same_bits(model.logits([1, 2, 3]), expected)
        assert set(used) == {1}
    finally:
        ternops.set_num_threads(None)
    assert cases.same_bits(model.logits([1, 2, 3]), expected)
    assert used[-1] == 2


def test_an_error_in_the_block_ends_the_limit():
    """As the end of the block does."""
    with pytest.raises(RuntimeError, match="inside"), ternops.set_num_threads(1):
        raise RuntimeError("inside")
    assert TEAM.limit == team.MAX_THREADS


@pytest.mark.parametrize(
    ("error", "count"), [(ValueError, 0), (ValueError, 257), (TypeError, 1.5), (TypeError, True)]
)
def test_a_bad_limit_is_named(error, count):
    """One line, and the limit stays."""
    with pytest.raises(error, match=rf"^threads={count!r}: expected [^\n]*$"):
        ternops.set_num_threads(count)
    assert TEAM.limit == team.MAX_THREADS


def test_threadpoolctl_limits_us(used, monkeypatch):
    """As it limits BLAS and OpenMP; a limit for BLAS alone does not apply."""
    monkeypatch.setattr(threads, "default_threads", lambda: 8)
    (found,) = [each for each in threadpoolctl.threadpool_info() if each["user_api"] == "ternops"]
    assert found["num_threads"] == 8
    assert found["version"] == ternops.__version__
    with threadpoolctl.threadpool_limits(1):
        product(threads=3)
    with threadpoolctl.threadpool_limits(1, user_api="blas"):
        product(threads=3)
    with threadpoolctl.threadpool_limits({"ternops": 2}):
        product(threads=3)
    product(threads=3)
    assert used == [1, 3, 2, 3]


def test_no_more_threads_to_be_had(monkeypatch):
    """The product is right on those that there are; one warning, and later ones do not try."""
    start, started = threading.Thread.start, []

    def start_two(self):
        if len(started) == 2:
            raise RuntimeError("can't start new thread")
        started.append(self)
        start(self)

    monkeypatch.setattr(threading.Thread, "start", start_two)
    monkeypatch.setattr(TEAM, "limit", TEAM.limit)
    TEAM.stop()
    with pytest.warns(RuntimeWarning, match="can't start new thread: going on with 3"):
        product(threads=7)
    with warnings.catch_warnings(action="error"):
        product(threads=7)
    assert len(internals.workers()) == 2
    TEAM.stop()


@pytest.mark.parametrize("count", ["300", "1000"])
def test_more_cpus_than_the_team_has_room_for(count):
    """The default is what it has room for."""
    code = (
        "from ternops.threads import default_threads, check_threads\n"
        "print(default_threads(), check_threads(None))"
    )
    assert processes.run_code(code, NUMBA_NUM_THREADS=count).split() == ["256", "256"]


def test_the_affinity_of_the_process(monkeypatch):
    """CPUs that the process may not use do not count; a change is noticed."""
    affinity = {0}
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: affinity, raising=False)
    internals.set_quota(monkeypatch, None)
    count = internals.count_cpus_anew(monkeypatch)
    now = [0.0]
    monkeypatch.setattr(threads.time, "monotonic", lambda: now[0])
    assert count() == 1
    affinity = {0, 1, 5}
    assert count() == 1
    now[0] += 1.5
    assert count() == 3


@pytest.mark.parametrize(
    ("quota", "count"), [(None, 8), (0.4, 1), (1.0, 1), (1.5, 2), (4.0, 4), (64.0, 8)]
)
def test_the_quota_of_the_control_group(monkeypatch, quota, count):
    """As many threads as it fills, a last one in part."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    internals.set_quota(monkeypatch, quota)
    assert threads.usable_cpus() == count


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/a/b", {"cpu.max": "800000 100000", "a/b/cpu.max": "150000 100000"}, 1.5),
        ("0::/a/b", {"a/cpu.max": "50000 100000", "a/b/cpu.max": "max 100000"}, 0.5),
        ("0::/", {"cpu.max": "max 100000"}, None),
        ("0::/", {}, None),
        ("0::/../../x", {"cpu.max": "200000 100000"}, 2.0),
        (
            "5:cpuset:/c\n4:cpu,cpuacct:/d",
            {"cpu,cpuacct/d/cpu.cfs_quota_us": "250000\n",
             "cpu,cpuacct/d/cpu.cfs_period_us": "100000\n"},
            2.5,
        ),
        ("1:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("0::/", {"cpu.max": "nonsense"}, None),
        ("0::/", {"cpu.max": "1 0"}, None),
    ],
)  # fmt: skip
def test_quotas_of_both_versions(tmp_path, groups, files, expected):
    """The smallest limit of all levels counts; unreadable files limit nothing."""
    for name, text in files.items():
        path = tmp_path / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    own = tmp_path / "own"
    own.write_text(groups)
    assert internals.quota(tmp_path / "groups", own) == expected
    assert internals.quota(tmp_path / "groups", tmp_path / "missing") is None


BARRIERS = np.dtype([(name, np.int64) for name in ("rounds", "late", "counts", "wrong")])
_Barriers = numba.from_dtype(BARRIERS)


@TeamJob
def pass_barriers(record, team, thread, threads):
    """Pass `rounds` barriers; at each of them another thread comes `late` nanoseconds later.

    Each counts its rounds, and compares the counts of all between two barriers.
    """
    p = record_at(_Barriers, record)
    own = pointer(p.counts) + 64 * thread
    for turn in range(p.rounds):
        if turn % threads == thread:
            start = nanoseconds()
            while nanoseconds() - start < p.late:
                pass
        store(own, np.int64(turn + 1))
        barrier(team, threads)
        for other in range(threads):
            if load(np.int64, pointer(p.counts) + 64 * other) != turn + 1:
                store(pointer(p.wrong), np.int64(1))
        barrier(team, threads)


@pytest.mark.parametrize("count", [2, 3, 7])
@pytest.mark.parametrize("late", [0, 20_000, 400_000])
def test_who_waits_long_sleeps_and_is_woken(count, late):
    """No thread passes a barrier early or misses it, and long waits are reported."""
    counts, wrong = np.zeros(8 * count, np.int64), np.zeros(1, np.int64)
    record = np.array((200, late, counts.ctypes.data, wrong.ctypes.data), BARRIERS)
    crew = Team()
    try:
        crew.run(pass_barriers, record, count)
        waited = internals.waited_for(crew, pass_barriers, record, count)
    finally:
        crew.stop()
    assert counts[::8].tolist() == [200] * count
    assert wrong[0] == 0
    if late > 100_000:
        assert waited > 0.5 * 200 * late * (count - 1) / count
