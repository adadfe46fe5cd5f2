"""Which layout processes take by what gathering takes."""

from __future__ import annotations

import pytest

from ternops.cost.shares import GATHERS
from ternops.ranks.plan import READ_PER_THREAD, choose
from ternops.ranks.split import Layout
from tests.helpers.small_models import small_config

MB = 1 << 20


def chosen(hosts, times, layers=30):
    """The stages, where a gather takes so many times as long as a process's part of a layer, by
    the number of stages."""
    config = small_config("hidden 24", "llama", layers=layers)

    def gather_s(stages):
        width = len(hosts) // stages
        return times[stages] * MB / width / READ_PER_THREAD / GATHERS

    return choose(config, hosts, MB, 1, gather_s)


@pytest.mark.parametrize(
    ("hosts", "times", "layers", "stages"),
    [
        ("aa", {1: 0.9}, 30, 1),
        ("aa", {1: 1.1}, 30, 2),
        ("ab", {1: 1.1}, 30, 2),
        ("aabb", {1: 0.9}, 30, 1),
        ("aabb", {1: 1.1, 2: 0.9}, 30, 2),
        ("aabb", {1: 1.1, 2: 1.1}, 30, 4),
        ("abab", {1: 1.1}, 30, 4),  # neighbours are on different machines
        ("aab", {1: 1.1}, 30, 3),
        ("aa", {1: 1.1}, 1, 1),  # no layer for a second stage
    ],
)
def test_gathers_that_take_longer_than_weights(hosts, times, layers, stages):
    """Are left to the processes of a machine, or to none."""
    found = chosen(list(hosts), times, layers)
    assert found.stages == stages
    width = len(hosts) // stages
    assert found.reason.startswith(f"layout {Layout(width, stages)}: ")


def test_the_reason_has_both_times():
    """In microseconds a layer, in one line."""
    reason = chosen(["a", "b"], {1: 2.0}).reason
    assert reason == (
        "layout pp=2: gathering takes 105 us a layer where 2 share it out, the rest about 52"
    )
