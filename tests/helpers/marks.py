"""What of a test's parameters is left to the whole suite."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def apart(names: Iterable[str], what: str) -> list[Any]:
    """Slow parameters that need not be tested in one process (`pytest -n`), as those of a file are.

    Tests that give their parts the same names share a process for each: what one of them has
    compiled, the others find.
    """
    return [
        pytest.param(name, marks=[pytest.mark.slow, pytest.mark.xdist_group(f"{what} {name}")])
        for name in names
    ]


def slow_but(values: Iterable[Any], *quick: Any) -> list[Any]:
    """The values, all but a few of them marked as slow."""
    return [each if each in quick else pytest.param(each, marks=pytest.mark.slow)
            for each in values]  # fmt: skip
