"""What errors are called, and how they are told."""

from __future__ import annotations

import textwrap


class ResultsError(ValueError):
    """The results cannot be used; the message says why in one line."""


def first_line(error: Exception) -> str:
    """What an exception says, without its details."""
    line = next(iter(str(error).splitlines()), "") or type(error).__name__
    return textwrap.shorten(line, 120, placeholder=" ...")
