"""Errors of results, and how errors are put into one line."""

from __future__ import annotations

import reprlib
import textwrap
from typing import Any

#: Beyond it sums and products would overflow.
MAX_FIGURE = 1e30


class ResultsError(ValueError):
    """The results cannot be used; the message says why in one line."""


def first_line(error: Exception) -> str:
    """What an exception says, without its details."""
    line = next(iter(str(error).splitlines()), "") or type(error).__name__
    return textwrap.shorten(line, 120, placeholder=" ...")


def expect(right: bool, where: str, value: Any, expected: str) -> None:
    """ResultsError, of a value in a file, unless it is right."""
    if not right:
        raise ResultsError(f"{where}: is {reprlib.repr(value)}, expected {expected}")


def is_positive(value: Any, kinds: tuple[type, ...] = (int, float)) -> bool:
    """Whether it is a number above 0 that can be calculated with; no truth value is one."""
    return type(value) in kinds and 0 < value < MAX_FIGURE
