"""The scale of the least squared error, by search, for any levels."""

from __future__ import annotations

import numpy as np

from ternops.quantizers.integers import LEVELS, fitted, learned_step, normalized
from ternops.quantizers.method import MIN_SCALE, Array, Levels, Method, absmean_of, halves, nearest

#: What is tried of max|w| over the outermost level: four octaves.
_COARSE = 2.0 ** (-np.arange(17) / 4)
#: And of the best of these.
_FINE = 2.0 ** (np.delete(np.arange(-7, 8), 7) / 32)
_STEPS = 3  # of least squares from the best of those


def searched(groups: Array, levels: Levels) -> Array:
    """argmin over s of sum((w - s v(w / s))^2), v being the nearest levels; s as it is stored.

    Tried are mean|w|, the step of `learned_step`, SEQ's, and max|w| over the highest level down to
    a sixteenth of it, finer around the best; from there some steps of least squares. So it is never
    worse than one of those.
    """
    unit, most = normalized(groups)
    best, least = np.full((2, len(unit)), np.inf)

    def try_scales(scales: Array) -> Array:
        """Keep those that are better; what least squares makes of each."""
        kept = halves(np.maximum(scales * most, MIN_SCALE)).astype(np.float64)
        relative = np.maximum(kept / most, MIN_SCALE)
        values = nearest(unit, relative, levels)
        error = unit - values * relative[:, None].astype(unit.dtype)
        square = np.einsum("ij,ij->i", error, error, dtype=np.float64)
        is_better = square < least
        best[is_better], least[is_better] = kept[is_better], square[is_better]
        return fitted(unit, values, relative)

    ones = np.ones(len(unit))
    try_scales(absmean_of(unit))
    try_scales(learned_step(unit, levels))
    for fixed in (2 / len(levels), 1 / len(levels), *(_COARSE / levels[-1])):
        try_scales(fixed * ones)
    coarse = best / most
    for factor in _FINE:
        try_scales(factor * coarse)
    fits = best / most
    for _ in range(_STEPS):
        fits = try_scales(fits)
    # Infinite where none is a float32: of weights beyond that.
    return np.where(unit.any(axis=1), best, 0.0)


MSE = Method(
    name="mse",
    paper="Choukroun et al., Low-bit Quantization of Neural Networks for Efficient Inference, "
    "arXiv 1902.06822, section 3",
    levels=LEVELS,
    is_open=True,
    scale=searched,
)
