"""The interface in any order, for a short time; `make fuzz` takes longer."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.fuzz.machine import CALLS, Interface

#: Orders of up to 30 calls. `make fuzz` asks for more, of other seeds.
ORDERS = int(os.environ.get("TERNOPS_FUZZ_ORDERS", "40"))


@pytest.mark.slow
def test_calls_in_any_order():
    """Every product has NumPy's bits, every wrong call is one line."""
    chosen = settings(
        max_examples=ORDERS, stateful_step_count=30, deadline=None, derandomize=ORDERS <= 40,
        suppress_health_check=list(HealthCheck), database=None, print_blob=True,
    )  # fmt: skip
    run_state_machine_as_test(Interface, settings=chosen)
    assert CALLS["calls"] > 5 * ORDERS
