"""Threads that find themselves on one CPU come apart, and may run where they might before."""

import os
import sys

import numpy as np
import pytest

from ternops.simd import Entry, cpu_number, leave_cpu, pointer, store

CPUS = os.sched_getaffinity(0) if sys.platform == "linux" else set()
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux can tell and move")


@Entry
def _leave(addresses, threads):
    """CPU numbers: before, and after it has been left."""
    before = cpu_number()
    leave_cpu(before, threads)
    store(pointer(addresses), before)
    store(pointer(addresses) + 8, cpu_number())
    return True


def _left(threads):
    numbers = np.full(2, -9)
    _leave.call(numbers.ctypes.data, threads)
    return numbers.tolist()


@linux
@pytest.mark.skipif(len(CPUS) < 2, reason="needs two CPUs")
def test_another_cpu_is_taken_and_all_stay_allowed():
    for _ in range(50):
        before, after = _left(len(CPUS))
        assert {before, after} <= CPUS
        assert before != after
        assert os.sched_getaffinity(0) == CPUS


@linux
def test_nobody_moves_where_there_are_more_threads_than_cpus():
    one = {min(CPUS)}
    os.sched_setaffinity(0, one)
    try:
        assert _left(1) == _left(2) == [min(CPUS)] * 2
        assert os.sched_getaffinity(0) == one
    finally:
        os.sched_setaffinity(0, CPUS)
    _left(len(CPUS) + 1)
    assert os.sched_getaffinity(0) == CPUS


@pytest.mark.skipif(sys.platform == "linux", reason="of systems where nobody can tell")
def test_elsewhere_nothing_happens():
    assert _left(1) == [-1, -1]
