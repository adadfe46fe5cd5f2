"""The last-level cache as reading shows it, on caches that are made up."""

import math

import pytest

from ternops.cost import mountain
from ternops.cost.mountain import Point, shared_of

NEAR, FAR = 60e9, 20e9


def made_up(size, gap, capacity, edge, refill):
    """One reading of a cache with that room, into which others bring so much."""
    seconds = gap + size / FAR
    for _ in range(200):
        held = size + refill * seconds
        share = 0.5 + math.log(capacity / held) / math.log(edge)
        share = min(1.0, max(0.0, share))
        read = size * (share / NEAR + (1 - share) / FAR)
        seconds = gap + read
    return Point(size, seconds, size / read)


@pytest.mark.parametrize("capacity", [32e6, 170e6])
@pytest.mark.parametrize("edge", [2.5, 5.0])
@pytest.mark.parametrize("refill", [0.0, 3e9])
def test_it_is_found(capacity, edge, refill):
    """Its room, its edge, and what neighbours bring in."""
    sizes = [8e6 * 2 ** (i / 3) for i in range(22)]
    points = [made_up(size, 0, capacity, edge, refill) for size in sizes]
    held = [made_up(capacity / 3, 0.004 * 2**i, capacity, edge, refill) for i in range(5)]
    found = shared_of(points, held)
    assert found.capacity == pytest.approx(capacity, rel=0.15)
    assert found.edge == pytest.approx(edge, rel=0.3)
    assert found.refill == pytest.approx(refill, rel=0.25, abs=1e9)


def test_a_sharp_edge_is_between_two_sizes():
    """The last one that is found and the first one that is not."""
    rates = [NEAR, NEAR, FAR, FAR]
    points = [Point(1e6 * 2**i, 1e-3, rate) for i, rate in enumerate(rates)]
    assert 2e6 < shared_of(points, ()).capacity < 4e6


def test_what_is_no_faster_than_the_memory_is_no_cache():
    """Within the noise; nor is what holds all that was read."""
    rates = [21e9, 20.5e9, 20e9]
    assert shared_of([Point(2.0**i, 1e-3, rate) for i, rate in enumerate(rates)], ()) is None


def test_without_a_level_behind_the_second_there_is_none(monkeypatch):
    """Nothing is measured."""
    monkeypatch.setattr(mountain, "cpu_cache_bytes", lambda: {1: 2**16, 2: 2**20})
    assert mountain.shared_cache(None, None) is None
