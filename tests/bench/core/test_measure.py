"""How the benchmarks measure: turns, probes, speed-ups, and what the paper says."""

import numpy as np
import pytest

from bench.core import measure as stats
from bench.core.measure import Case, interleave
from bench.core.process import WorkerError
from bench.limits.levels import bandwidth, probe_cases
from bench.published import paper
from ternops.cost.layouts import SIZES
from ternops.cost.probes import PROBES, Reader
from tests.helpers import internals


def test_interleaved_cases_take_turns():
    """Every round runs every case once; the first round does not count."""
    order = []
    cases = [Case(name, lambda name=name: order.append(name)) for name in "ab"]
    interleave(cases, rounds=3)
    assert "".join(order) == "abababab"
    assert [len(case.values) for case in cases] == [3, 3]


@pytest.mark.parametrize("threads", [1, 2])
def test_every_probe_reads_the_whole_buffer(threads):
    """The sum of the bytes, which the probe leaves behind, is right modulo 256."""
    size = (1 << 16) + 64
    reader = Reader(size)
    for probe in PROBES:
        assert internals.sum_read(reader, probe, threads) == size % 256


def test_bandwidth_is_that_of_the_fastest_probe():
    """By the medians."""
    probes = probe_cases("test", Reader(1 << 16), 1)
    for i, case in enumerate(probes):
        case.values = [2.0 + i, 2.0 + i, 2.0 + i]
    assert bandwidth(probes, [5.0, 6.0, 7.0]) == (1 << 16) / 2.0


def test_bandwidth_is_paired_with_what_it_limits():
    """Memory that is throttled after some rounds: reading at half of the pace all the while."""
    probes = probe_cases("test", Reader(1 << 16), 1)
    for case in probes:
        case.values = [9.0] * 5
    probes[3].values = [1.0, 1.0, 1.0, 2.0, 2.0]
    beside = [2.0, 2.0, 4.0, 4.0, 4.0]  # the third was throttled in the middle of its turn
    limit = bandwidth(probes, beside)
    assert limit * np.median(beside) == (1 << 16) * 2.0


def test_speedup_is_the_median_of_pairs():
    """Not the ratio of medians."""
    assert stats.speedup([2.0, 9.0, 8.0], [1.0, 3.0, 1.0]).median == 3.0


def test_paper_figures():
    """Spot checks against the printed column."""
    assert round(paper.speedup("x86", "125M"), 2) == 2.37
    assert round(paper.speedup("x86", "13B"), 2) == 6.17
    assert round(paper.speedup("arm", "70B"), 2) == 5.07
    assert paper.speedup("x86", "70B") is None
    assert paper.speedup("x86", "2B4T") is None


def test_layouts_have_the_size_that_they_are_named_for():
    """Parameters, embedding included, within a quarter of the name."""
    for size, config in SIZES.items():
        if size == "2B4T":
            continue
        linear = config.layers * sum(n * k for n, k in config.linear_shapes().values())
        total = linear + config.vocabulary * config.hidden
        unit = {"M": 1e6, "B": 1e9}[size[-1]]
        assert total / (float(size[:-1]) * unit) == pytest.approx(1, abs=0.25), size


def test_a_case_that_fails_in_its_process_is_not_run_again():
    """The others go on; it keeps no values, which would pair with none."""
    runs = []

    def fails():
        runs.append(len(runs))
        if len(runs) == 3:
            raise WorkerError("killed by signal 11\nand more")
        return 0.5

    failing, other = Case("fails", fails, has_clock=True), Case("other", lambda: None)
    interleave([failing, other], 4)
    assert runs == [0, 1, 2]
    assert (failing.failure, failing.values) == ("killed by signal 11", [])
    assert (other.failure, len(other.values)) == ("", 4)
    waking = Case("before", lambda: None, before=fails)
    interleave([waking], 2)
    assert len(waking.values) == 2
    runs[:] = [0, 0]
    interleave([waking], 2)
    assert (waking.failure, waking.values) == ("killed by signal 11", [])


def test_a_case_with_a_clock_tells_its_seconds_itself():
    case = Case("clock", lambda: 3.0, loops=2, has_clock=True)
    interleave([case], 2)
    assert case.values == [1.5, 1.5]
