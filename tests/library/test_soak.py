"""A process that does everything for half a minute, again and again, holds no more at its end."""

from __future__ import annotations

import sys

import pytest

from tests.helpers import processes


@pytest.mark.slow
@pytest.mark.tiers
@pytest.mark.skipif(sys.platform != "linux", reason="counts what Linux tells of a process")
def test_nothing_grows_in_half_a_minute():
    """`make soak` is the same for longer."""
    done = processes.python("-m", "tests.programs.soak", "--minutes", "0.5", "--rounds", "6")
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert done.stdout.endswith("nothing grew\n")


def test_what_grows_is_told():
    """A file in each round, a thread at the end, megabytes; and what comes and goes is nothing."""
    from tests.programs.soak import MORE, Held, grown

    flat = [Held(100 << 20, 10 + i % 2, 7) for i in range(9)]
    assert grown(flat) == []
    assert grown([Held(i << 30, 10, 7) for i in range(3)] + flat) == []  # as long as it warms up
    leaks = [each._replace(files=each.files + 2 * i) for i, each in enumerate(flat)]
    assert grown(leaks) == ["files: 26, before 21"]
    assert grown([*flat[:-1], flat[-1]._replace(threads=8)]) == ["threads: 8, before 7"]
    assert len(grown([*flat[:-1], flat[-1]._replace(memory=(100 << 20) + MORE + 1)])) == 1
