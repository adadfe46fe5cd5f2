"""Kernels touch no byte beyond their operands: each array ends at a page that cannot be read."""

from __future__ import annotations

import functools
import sys

import pytest

from tests.helpers import processes
from tests.helpers.marks import slow_but

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mprotect and its pages of Linux")


def test_the_guard_pages_do_fault():
    """Reading one byte after such an array ends the process with a signal."""
    assert processes.program("guard_pages", "fault").returncode < 0


@pytest.mark.parametrize(
    "part",
    slow_but(
        ["int8", "floats", "along-columns", "rows-of-floats"], "along-columns", "rows-of-floats"
    ),
)
def test_nothing_is_touched_beyond_the_operands(part):
    """Right results for every kind of tail, each operand ending at a page that faults."""
    assert processes.run_program("guard_pages", part).split() == ["done"]


@pytest.fixture(scope="module")
def others():
    """setting -> the future of what the int8 products print under it, of all that can run here."""
    calls = {
        name: functools.partial(
            processes.run_program, "guard_pages", "int8", timeout=1800, **environment
        )
        for name, environment in processes.SETTINGS.items()
        if not processes.is_current(name) and not processes.lacking(name)
    }
    with processes.beside_one_another(calls) as futures:
        yield futures


@pytest.mark.timeout(2000)
@pytest.mark.slow
@pytest.mark.parametrize("setting", processes.SETTINGS)
def test_nothing_is_touched_on_other_tiers(others, setting):
    """The int8 products of every kind of tail on the tiers that this process does not use."""
    if processes.is_current(setting):
        pytest.skip("this very process runs that tier")
    if reason := processes.lacking(setting):
        pytest.skip(reason)
    assert others[setting].result().split() == ["done"]
