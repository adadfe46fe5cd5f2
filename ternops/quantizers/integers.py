"""Evenly spaced levels: absmax, int3, int4, int8, and a step found by least squares."""

from __future__ import annotations

import numpy as np

from ternops.quantizers.method import Array, Levels, Method, absmax_of, absmean_of, nearest

SIGNS: Levels = (-1, 1)
TRITS: Levels = (-1, 0, 1)
ODD: Levels = (-3, -1, 1, 3)
INT3: Levels = tuple(range(-4, 4))
INT4: Levels = tuple(range(-8, 8))
INT8: Levels = tuple(range(-127, 128))
#: The usual ones of a method that takes any.
LEVELS = {3: TRITS, 2: SIGNS, 4: ODD, 8: INT3, 16: INT4, 255: INT8}

#: After so many least-squares steps nearly no step of a Gaussian row changes any more.
_STEPS = 12


def absmax(groups: Array, levels: Levels) -> Array:
    """max|w| over the highest level."""
    return absmax_of(groups) / levels[-1]


def least_squares(groups: Array, scales: Array, levels: Levels) -> Array:
    """The scales that are best for the levels that these give: s = <w, v> / <v, v>.

    Of a group whose levels are all 0 it stays.
    """
    values = nearest(groups, np.maximum(scales, np.finfo(groups.dtype).tiny), levels)
    return fitted(groups, values, scales)


def fitted(groups: Array, values: Array, scales: Array) -> Array:
    """s = <w, v> / <v, v> of each group, or what it has already where that is no positive one."""
    values = values.astype(groups.dtype)
    product = np.einsum("ij,ij->i", groups, values, dtype=np.float64)
    square = np.einsum("ij,ij->i", values, values, dtype=np.float64)
    fits = (square > 0) & (product > 0)
    return np.where(fits, product / np.where(square > 0, square, 1), scales)


def normalized(groups: Array) -> tuple[Array, Array]:
    """Each group over its max|w|, and that, 1 where it is 0: sums of squares stay finite."""
    most = absmax_of(groups)
    most = np.where(most > 0, most, 1.0)
    return groups / most[:, None].astype(groups.dtype), most


def learned_step(groups: Array, levels: Levels) -> Array:
    """LSQ's first step, 2 mean|w| / sqrt(Q_P), then steps of least squares until none changes.

    Section 2.1 of the paper has the first; it goes on with gradients of a loss, of which there is
    none here, but for the squared error of the weights.
    """
    unit, most = normalized(groups)
    scales = 2 * absmean_of(unit) / np.sqrt(levels[-1])
    for _ in range(_STEPS):
        before, scales = scales, least_squares(unit, scales, levels)
        if np.array_equal(before, scales):
            break
    return scales * most


_LLM_INT8 = "absmax quantisation, Dettmers et al., LLM.int8(), arXiv 2208.07339, section 2"

ABSMAX = Method(
    name="absmax", paper=_LLM_INT8, scale=absmax, is_open=True, levels=LEVELS,
)  # fmt: skip
INT3_METHOD, INT4_METHOD, INT8_METHOD = (
    Method(name=name, paper=_LLM_INT8, scale=absmax, levels={len(levels): levels})
    for name, levels in (("int3", INT3), ("int4", INT4), ("int8", INT8))
)
LSQ = Method(
    name="lsq",
    paper="Esser et al., Learned Step Size Quantization, arXiv 1902.08153, section 2.1; as of "
    "3 and 4 bits in ParetoQ, arXiv 2502.02631, section 3",
    levels={16: INT4, 8: INT3},
    scale=learned_step,
)
