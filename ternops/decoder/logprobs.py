"""Log-probabilities of tokens: those of softmax(logits), whatever is then done with the logits."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ternops.decoder.softmax import largest, weights_of


class Logprobs(NamedTuple):
    """token: the natural logarithm of the chosen token's probability.

    top: the likeliest tokens and theirs, likeliest first, of equal ones the lowest token first.
    """

    token: float
    top: tuple[tuple[int, float], ...]


def logprobs_of(logits: npt.NDArray[np.float32], token: int, count: int) -> Logprobs:
    """Those of a token and of the `count` likeliest, for float32 logits (vocabulary,), all exact.

    Computed in float64. Raises ValueError where the largest is NaN or infinite.
    """
    peak = float(logits.max())
    if not np.isfinite(peak):
        raise ValueError(f"logits: the largest is {peak}, expected a finite number")
    total = peak + float(np.log(weights_of(logits, peak).sum()))
    top = largest(logits, min(count, len(logits))) if count else ()
    return Logprobs(
        float(logits[token]) - total,
        tuple((int(each), float(logits[each]) - total) for each in top),
    )
