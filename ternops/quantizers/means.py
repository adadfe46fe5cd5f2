"""Scales that are means of magnitudes, of BitNet: trits by absmean, signs around the mean."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ternops.absmean import MIN_SCALE, rounded_scales, sign_mean
from ternops.absmean import absmean as absmean_of_all
from ternops.quantizers.integers import SIGNS, TRITS
from ternops.quantizers.method import Array, Levels, Method, absmean_of


def absmean(groups: Array, levels: Levels) -> Array:
    """mean|w|, at least 1e-5."""
    return np.maximum(absmean_of(groups), np.float64(MIN_SCALE))


def stored(scales: Array) -> npt.NDArray[np.float32]:
    """As float16, unless one of the matrix's is beyond it or would be 0."""
    return rounded_scales(scales.astype(np.float32))


def trits(groups: Array, scales: Array, levels: Levels) -> npt.NDArray[np.int8]:
    """clip(round(w / s), -1, 1), ties to even: no quotient of floats is rounded to 1/2 from above,
    since s / 2 is one, too, and the next w is further off than half a step there."""
    half = (scales / 2)[:, None].astype(groups.dtype)
    return (groups > half).view(np.int8) - (groups < -half).view(np.int8)


def above_mean(groups: Array, scales: Array, levels: Levels) -> npt.NDArray[np.int8]:
    """1 where w > mean(w), else -1."""
    mean = groups.mean(axis=1, dtype=np.float64).astype(np.float32)
    return np.where(groups > mean[:, None], np.int8(levels[-1]), np.int8(levels[0]))


ABSMEAN = Method(
    name="absmean",
    paper="Ma et al., BitNet b1.58, arXiv 2402.17764, section 2",
    levels={3: TRITS},
    group=None,
    scale=absmean,
    store=stored,
    choose=trits,
    whole=absmean_of_all,
)
SIGN = Method(
    name="sign",
    paper="Wang et al., BitNet, arXiv 2310.11453, section 2.1",
    levels={2: SIGNS},
    group=None,
    scale=absmean,
    store=stored,
    choose=above_mean,
    whole=sign_mean,
)
