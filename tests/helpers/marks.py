"""What of a test's parameters is left to the whole suite."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def slow_but(values: Iterable[Any], *quick: Any) -> list[Any]:
    """The values, all but a few of them marked as slow."""
    return [each if each in quick else pytest.param(each, marks=pytest.mark.slow)
            for each in values]  # fmt: skip
