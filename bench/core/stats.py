"""The statistics of interleaved measurements."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Spread(NamedTuple):
    """A median with the quartiles around it, all in the unit of the sample."""

    median: float
    low: float
    high: float


def speedup(fp16_values: Sequence[float], ternary_values: Sequence[float]) -> Spread:
    """Return how many times faster ternary is, from two interleaved series of seconds a token.

    Value i of both series was measured in the same round, so slow drifts of the machine (clock,
    neighbours) cancel in each ratio: the result is the median of the pairwise ratios and their
    quartiles, without a unit. Raises ValueError for series that cannot be paired.
    """
    if len(fp16_values) != len(ternary_values) or len(fp16_values) == 0:
        raise ValueError(
            f"{len(fp16_values)} fp16 and {len(ternary_values)} ternary values cannot be paired"
        )
    ratios = np.asarray(fp16_values) / np.asarray(ternary_values)
    low, median, high = np.percentile(ratios, [25, 50, 75])
    return Spread(float(median), float(low), float(high))
