"""Levels by quantiles: of the normal distribution (NF4), and of a matrix's own weights."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from ternops.encodings.encoding import MAX_LEVEL
from ternops.quantizers.integers import normalized
from ternops.quantizers.method import Array, Levels, Method, absmax_of, wide

_GROUP = 64
_MAX_SAMPLE = 1 << 20  # weights whose quantiles stand for those of all


def normal_floats(bits: int) -> tuple[float, ...]:
    """The 2^bits levels of NormalFloat, from -1 to 1 with 0 among them.

    Quantiles of N(0, 1) at evenly spaced probabilities from 1/2 to an outermost one, over the
    largest: 2^(bits - 1) of them above 0 and one fewer below. The outermost probability is half-way
    between 1 - 1/2^(bits + 1) and 1 - 1/(2^(bits + 1) - 2).
    """
    half = 2 ** (bits - 1)
    outermost = 1 - (1 / (4 * half) + 1 / (4 * half - 2)) / 2
    inverse = NormalDist().inv_cdf
    negative = [-inverse(p) for p in np.linspace(outermost, 0.5, half)[:-1]]
    positive = [inverse(p) for p in np.linspace(outermost, 0.5, half + 1)[:-1]]
    most = inverse(outermost)
    return tuple(each / most for each in (*negative, 0.0, *reversed(positive)))


def integers_of(levels: tuple[float, ...]) -> Levels:
    """Levels from -1 to 1 as multiples of 1/127, ascending, each once."""
    return tuple(sorted({round(MAX_LEVEL * each) for each in levels}))


def outermost(groups: Array, levels: Levels) -> Array:
    """max|w| over the largest level, of either sign."""
    return absmax_of(groups) / max(-levels[0], levels[-1])


def own_quantiles(groups: Array, count: int) -> Levels:
    """Levels that each have as many of a matrix's weights, over their groups' max|w|.

    Level i is half-way between the quantiles i / (n + 1) and (i + 1) / (n + 1), all over the
    largest magnitude among them. Those that are the same as multiples of 1/127 are one.
    """
    step = max(1, groups.size // _MAX_SAMPLE)
    with np.errstate(invalid="ignore"):  # what is not finite is told of later
        unit, _ = normalized(wide(groups[::step]))
    if not unit.any():
        return (-MAX_LEVEL, 0, MAX_LEVEL)
    ends = np.quantile(unit.astype(np.float64), np.linspace(0, 1, count + 2)[: count + 1])
    middles = (ends[:-1] + ends[1:]) / 2
    most = np.abs(middles).max()
    levels = integers_of(tuple(middles / most)) if most > 0 else (0,)
    return levels if levels[-1] > 0 and len(levels) > 1 else tuple(sorted({*levels, MAX_LEVEL}))


#: Their multiples of 1/127 are at most 0.0039 off, half of one; the furthest is 0.0031 off.
NF4_LEVELS = integers_of(normal_floats(4))

NF4 = Method(
    name="nf4",
    paper="Dettmers et al., QLoRA, arXiv 2305.14314, section 3 and appendix E",
    levels={16: NF4_LEVELS},
    group=_GROUP,
    scale=outermost,
)
QUANTILE = Method(
    name="quantile",
    paper="Dettmers and Zettlemoyer, k-bit Inference Scaling Laws, arXiv 2212.09720, section 2",
    levels={16: (), 8: ()},
    group=_GROUP,
    scale=outermost,
    fit=own_quantiles,
)
