"""Kernels touch no byte beyond their operands: each array ends at a page that cannot be read."""

from __future__ import annotations

import sys

import pytest

from tests.helpers import processes
from tests.helpers.marks import apart, slow_but

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mprotect and its pages of Linux")


def test_the_guard_pages_do_fault():
    """Reading one byte after such an array ends the process with a signal."""
    assert processes.program("guard_pages", "fault").returncode < 0


@pytest.mark.timeout(1000)
@pytest.mark.parametrize(
    "part",
    [
        *slow_but(
            ["int8", "floats", "grouped", "along-columns", "rows-of-floats", "packing"],
            "along-columns",
            "rows-of-floats",
        ),
        pytest.param("all-groups", marks=[pytest.mark.slow, pytest.mark.tiers]),
    ],
)
def test_nothing_is_touched_beyond_the_operands(part):
    """Right results for every kind of tail, each operand ending at a page that faults."""
    assert processes.run_program("guard_pages", part, timeout=900).split() == ["done"]


@pytest.mark.timeout(1000)
@pytest.mark.parametrize("tier", apart(processes.SETTINGS, "tier", few=()))
def test_nothing_is_touched_on_other_tiers(tier):
    """Products of every kind of tail, grouped ones too, on tiers that this process does not use."""
    processes.skip_unless_another(tier)
    for part in ("int8", "all-groups", "packing"):
        found = processes.run_program("guard_pages", part, timeout=900, **processes.SETTINGS[tier])
        assert found.split() == ["done"]
