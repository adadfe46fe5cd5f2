"""What errors are called, and how they are told."""

from __future__ import annotations

import reprlib
import textwrap
from typing import Any


class ResultsError(ValueError):
    """The results cannot be used; the message says why in one line."""


def first_line(error: Exception) -> str:
    """What an exception says, without its details."""
    line = next(iter(str(error).splitlines()), "") or type(error).__name__
    return textwrap.shorten(line, 120, placeholder=" ...")


def wrong(where: str, value: Any, expected: str) -> ResultsError:
    """Of a value in a file."""
    return ResultsError(f"{where}: is {reprlib.repr(value)}, expected {expected}")
