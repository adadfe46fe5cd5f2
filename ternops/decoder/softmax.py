"""The softmax of a whole vocabulary in NumPy: its sum, the largest of it, a draw from it.

A vocabulary has 32,000 to 260,000 tokens, of which few matter: each function passes over all of
them with vector instructions alone, and does what needs an order (cumulative sums, sorting) with
the few blocks or candidates that are left. A draw so takes 0.2 ms of 128,256 tokens.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

#: Values that have one sum of their own.
_BLOCK = 256
#: Values of which the largest bounds a number of largest ones from below: those that far apart.
_PARTS = 64


def weights_of(
    logits: npt.NDArray[np.float32], peak: float, temperature: float = 1.0
) -> npt.NDArray[np.float64]:
    """exp((logits - peak) / temperature), float64, of the same shape."""
    found = np.subtract(logits, peak, dtype=np.float64)
    if temperature != 1.0:
        with np.errstate(over="ignore"):  # of a tiny temperature: -inf, and a weight of zero
            found /= temperature
    return np.exp(found, out=found)


def largest(values: npt.NDArray[Any], count: int) -> npt.NDArray[np.intp]:
    """The indices of the `count` largest, largest first, ties to the lowest index."""
    candidates = np.flatnonzero(values >= _bound(values, count))
    return candidates[np.argsort(-values[candidates], kind="stable")[:count]]


def draw(weights: npt.NDArray[np.float64], uniform: float) -> int:
    """The index that a number from 0 up to, without, 1 draws of weights, which are not all 0."""
    whole = len(weights) // _BLOCK * _BLOCK
    sums = np.append(weights[:whole].reshape(-1, _BLOCK).sum(axis=1), weights[whole:].sum())
    block, left = _position(np.cumsum(sums), uniform)
    inside = weights[block * _BLOCK : (block + 1) * _BLOCK]
    at = int(np.searchsorted(np.cumsum(inside), left, side="right"))
    # Sums of one block in two orders: what is left may be as much as all of it.
    last = int(np.flatnonzero(inside)[-1])
    return block * _BLOCK + min(at, last)


def _position(cumulative: npt.NDArray[np.float64], uniform: float) -> tuple[int, float]:
    """Where a part of the sum lies, and how much of it lies there."""
    # At most 1 - 2**-53 times the sum, which is rounded to less than the sum.
    drawn = uniform * cumulative[-1]
    at = int(np.searchsorted(cumulative, drawn, side="right"))
    return at, float(drawn - (cumulative[at - 1] if at else 0.0))


def _bound(values: npt.NDArray[Any], count: int) -> Any:
    """A number that `count` values reach at least, and few more."""
    columns = len(values) // _PARTS
    if columns >= count:
        values = values[: columns * _PARTS].reshape(_PARTS, columns).max(axis=0)
    at = len(values) - count
    return np.partition(values, at)[at]
