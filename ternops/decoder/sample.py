"""Choosing the next token from logits: greedy, or temperature, top-k and top-p with a seed."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import numpy.typing as npt

#: How many of the likeliest tokens are sorted at first, to find those that reach top_p.
_FIRST_SORTED = 256


class Sampler:
    """Greedy at temperature 0 (ties to the lowest token), else a draw from softmax(logits / T).

    top_k: only among the k likeliest (0: all). top_p: only among the smallest set of likeliest
    tokens whose probabilities reach it (Holtzman et al., arXiv 1904.09751), after top_k. The same
    seed gives the same choices. Raises ValueError for a setting out of range.
    """

    def __init__(
        self,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
        top_k: int = 0,
    ) -> None:
        if not 0.0 <= temperature < float("inf"):
            raise ValueError(f"temperature={temperature}: expected a finite number, 0 or more")
        if not 0.0 < top_p <= 1.0:
            raise ValueError(f"top_p={top_p}: expected more than 0 and at most 1")
        if seed is not None and seed < 0:
            raise ValueError(f"seed={seed}: expected 0 or more")
        if operator.index(top_k) < 0:
            raise ValueError(f"top_k={top_k}: expected 0 or more")
        self.is_greedy = temperature == 0.0
        self._temperature, self._top_p, self._top_k = temperature, top_p, top_k
        self._random = np.random.default_rng(seed)

    @property
    def exact_top(self) -> int:
        """How many of the largest logits must be exact, since they decide; 0: all."""
        return 1 if self.is_greedy else self._top_k

    def __call__(self, logits: npt.NDArray[np.float32]) -> int:
        """A token for float32 logits (vocabulary,); those that do not decide may be -inf.

        Raises ValueError where the largest is NaN or, for a draw, infinite.
        """
        if self.is_greedy:
            token = int(np.argmax(logits))  # of a NaN, if there is one
            if np.isnan(logits[token]):
                raise ValueError(f"logits: NaN for token {token}, expected numbers")
            return token
        peak = logits.max()
        if not np.isfinite(peak):
            raise ValueError(f"logits: the largest is {peak}, expected a finite number")
        tokens: npt.NDArray[Any] | None = None
        if 0 < self._top_k < len(logits):
            tokens = _largest(logits, self._top_k)
            logits = logits[tokens]
        with np.errstate(over="ignore"):  # of a tiny temperature: -inf, and a weight of zero
            weights = np.exp((logits.astype(np.float64) - peak) / self._temperature)
        chosen = self._draw(weights)
        return chosen if tokens is None else int(tokens[chosen])

    def _draw(self, weights: npt.NDArray[np.float64]) -> int:
        if self._top_p == 1.0:
            order = None
        else:
            order = _nucleus(weights, self._top_p)
            weights = weights[order]
        cumulative = np.cumsum(weights)
        draw = self._random.random() * cumulative[-1]
        at = min(int(np.searchsorted(cumulative, draw, side="right")), len(weights) - 1)
        return at if order is None else int(order[at])


def _largest(values: npt.NDArray[Any], count: int) -> npt.NDArray[np.intp]:
    """The indices of the `count` largest, largest first, ties to the lowest index."""
    least = np.partition(values, len(values) - count)[len(values) - count]
    candidates = np.flatnonzero(values >= least)
    order = np.argsort(-values[candidates], kind="stable")
    return candidates[order[:count]]


def _nucleus(weights: npt.NDArray[np.float64], top_p: float) -> npt.NDArray[np.intp]:
    """The fewest largest weights that reach top_p of the sum, largest first."""
    total = weights.sum()
    count = min(_FIRST_SORTED, len(weights))
    while True:
        order = _largest(weights, count)
        cumulative = np.cumsum(weights[order])
        if cumulative[-1] >= top_p * total or count == len(weights):
            return order[: int(np.searchsorted(cumulative, top_p * total)) + 1]
        count = min(8 * count, len(weights))
