"""Choosing the next token from logits: greedy, or temperature and top-p with a seed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


class Sampler:
    """Greedy at temperature 0 (ties to the lowest token), else nucleus sampling.

    top_p: the smallest set of likeliest tokens whose probabilities reach it (Holtzman et al.,
    arXiv 1904.09751). The same seed gives the same choices.
    """

    def __init__(self, temperature: float = 0.0, top_p: float = 1.0, seed: int | None = None):
        if not 0.0 <= temperature < float("inf"):
            raise ValueError(f"temperature={temperature}: expected a finite number, 0 or more")
        if not 0.0 < top_p <= 1.0:
            raise ValueError(f"top_p={top_p}: expected more than 0 and at most 1")
        if seed is not None and seed < 0:
            raise ValueError(f"seed={seed}: expected 0 or more")
        self.temperature = temperature
        self.top_p = top_p
        self._random = np.random.default_rng(seed)

    def __call__(self, logits: npt.NDArray[np.float32]) -> int:
        """A token for float32 logits (vocabulary,)."""
        if self.temperature == 0.0:
            return int(np.argmax(logits))
        scaled = (logits.astype(np.float64) - logits.max()) / self.temperature
        order = np.argsort(-scaled, kind="stable")
        weights = np.exp(scaled[order])
        cumulative = np.cumsum(weights / weights.sum())
        kept = int(np.searchsorted(cumulative, self.top_p)) + 1
        cumulative = cumulative[:kept]
        draw = self._random.random() * cumulative[-1]
        return int(order[min(int(np.searchsorted(cumulative, draw, side="right")), kept - 1)])
