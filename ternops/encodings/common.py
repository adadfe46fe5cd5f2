"""What all encodings share: base 3, and work on a large matrix in pieces."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]

#: Zero bytes after the last row, so that a kernel may read whole vectors.
SLACK = 64
#: Weights or bytes worked on at a time: no temporary is as large as a matrix.
PIECE = 1 << 20


def no_flaw(piece: Array) -> str | None:
    """What is wrong with packed bytes all of which are valid: nothing."""
    return None


def spans(first: int, last: int, step: int) -> Iterator[tuple[int, int]]:
    """The (start, stop) into which the multiples of `step` cut first..last."""
    while first < last:
        stop = min(first - first % step + step, last)
        yield first, stop
        first = stop


def padded(array: Array, columns: int) -> Array:
    """A copy of a matrix, filled up with zeros to `columns` columns."""
    copy = np.zeros((len(array), columns), array.dtype)
    copy[:, : array.shape[1]] = array
    return copy


def number(digits: Array) -> Array:
    """The numbers (...) whose digits in base 3 are (n, ...), the highest one first."""
    return reduce(lambda value, digit: 3 * value + digit, digits)


def digits(number: Array, n: int) -> Array:
    """The n digits (n, ...) in base 3 of numbers (...) from 0, the highest one first."""
    return np.stack([number // 3**power % 3 for power in reversed(range(n))])
