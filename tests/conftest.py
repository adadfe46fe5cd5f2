"""Fixtures of the whole suite."""

from __future__ import annotations

import signal

import pytest

from ternops.kernels import table


def pytest_configure() -> None:
    """Let Ctrl-C reach the processes that tests start.

    A shell has what it runs in the background ignore it, and that is inherited.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def eager_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use as many threads as are asked for, however little there is to do."""
    monkeypatch.setattr(table, "BYTES_A_THREAD", 1)
