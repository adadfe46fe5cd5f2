"""What sequences of tokens begin with alike."""

from __future__ import annotations

from collections.abc import Sequence

#: Tokens that are compared without a step of Python for each.
_AT_ONCE = 64


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences, of one type, begin with alike."""
    at, size = 0, min(len(one), len(other))
    while at < size and one[at : at + _AT_ONCE] == other[at : at + _AT_ONCE]:
        at += _AT_ONCE
    while at < size and one[at] == other[at]:
        at += 1
    return min(at, size)
