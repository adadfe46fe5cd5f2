"""Fixtures of the whole suite."""

from __future__ import annotations

import pytest

from ternops.kernels import table


@pytest.fixture
def eager_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use as many threads as are asked for, however little there is to do."""
    monkeypatch.setattr(table, "BYTES_A_THREAD", 1)
