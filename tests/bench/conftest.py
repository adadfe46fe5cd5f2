"""What tests of several rooms measure: a small task of bench.run."""

from __future__ import annotations

import pytest

from bench.suites.run import decoding
from ternops.cost.layouts import SIZES
from tests.bench.small_runs import SMALL, TASK


@pytest.fixture
def small(monkeypatch):
    """125M is a small model."""
    monkeypatch.setitem(SIZES, "125M", SMALL)


@pytest.fixture
def found(small):
    """What a small task finds."""
    steps = []
    found = decoding.measure(TASK, steps.append)
    assert len(steps) == pytest.approx(decoding.steps(TASK), abs=10)
    return found
