"""From floats to trits: absmean, the weight quantisation of BitNet b1.58."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ternops.arrays import as_array

#: The least scale, so that a matrix of zeros gives zeros.
MIN_SCALE = np.float32(1e-5)
#: The least max|x| for which int8 activations are exact to half a step: 127 / it is still finite.
MIN_ABSMAX = 1e-36
#: BitNet's own, much larger, floor of max|x|: what its checkpoints were trained with.
BITNET_ABSMAX = 1e-5


def floor_of(is_blocked: bool) -> float:
    """The least max|x| in a decoder: BitNet's of a token, of a group as little as can be."""
    return MIN_ABSMAX if is_blocked else BITNET_ABSMAX


#: What float weights can be rounded by in a decoder: one scale a matrix, or one for so many inputs.
METHODS = {"absmean": 0, **{f"absmean-{group}": group for group in (256, 128, 64, 32)}}

_ROWS_AT_ONCE = 1 << 24  # elements


def absmean(w: npt.ArrayLike) -> tuple[npt.NDArray[np.int8], np.float32]:
    """Quantise a float matrix to trits and one scale (arXiv 2402.17764, section 2).

    w: (rows, columns), float16, float32 or float64.
    Returns int8 trits of that shape and s = mean|w| (at least 1e-5), such that w is close to
    s * trits; trits = clip(round(w / s), -1, 1), ties to even.
    Raises TypeError for another dtype, ValueError for another shape or for NaN and infinity.
    """
    weight = check_weights(w)
    scale = max(mean_of(weight, np.abs), MIN_SCALE)
    trits = np.empty(weight.shape, np.int8)
    for rows in _pieces(weight):
        block = weight[rows]
        ratio = block.astype(np.result_type(block.dtype, np.float32), copy=False) / scale
        trits[rows] = np.clip(np.rint(ratio), -1, 1)
    return trits, scale


def sign_mean(w: npt.ArrayLike) -> tuple[npt.NDArray[np.int8], np.float32]:
    """Quantise a float matrix to signs and one scale (BitNet, arXiv 2310.11453, section 2.1).

    w: (rows, columns), float16, float32 or float64.
    Returns int8 signs of that shape and s = mean|w|, such that w is close to s * signs; a sign is
    +1 where w > mean(w), else -1.
    Raises TypeError for another dtype, ValueError for another shape or for NaN and infinity.
    """
    weight = check_weights(w)
    scale, mean = mean_of(weight, np.abs), mean_of(weight, np.positive)
    return np.where(weight > mean, np.int8(1), np.int8(-1)), scale


def absmean_groups(
    w: npt.ArrayLike, group: int
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """`absmean` of each group of columns apart: trits and scales (rows, columns / group).

    Scales are rounded to float16, where that is as large, before weights are divided by them.
    """
    groups, scale = group_means(w, group)
    scale = rounded_scales(np.maximum(scale, MIN_SCALE))
    trits = np.empty(groups.shape, np.int8)
    for rows in _pieces(groups[:, 0]):
        block = groups[rows].astype(np.result_type(groups.dtype, np.float32), copy=False)
        trits[rows] = np.clip(np.rint(block / scale[rows, :, None]), -1, 1)
    return trits.reshape(len(trits), groups.shape[1] * group), scale


def group_means(
    w: npt.ArrayLike, group: int, function: Callable[[Any], Any] = np.abs
) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32]]:
    """w as (rows, groups, group), and the means of function(w) over each group.

    Raises as `check_weights` and `mean_of`.
    """
    weight = check_weights(w)
    mean_of(weight, function)  # which refuses what is not finite
    groups = weight.reshape(len(weight), weight.shape[1] // group, group)
    means = np.empty(groups.shape[:2], np.float32)
    for rows in _pieces(weight):
        with np.errstate(over="ignore"):
            means[rows] = function(groups[rows]).mean(axis=2, dtype=np.float64)
    if not np.isfinite(means).all():
        raise ValueError("w: mean magnitude of a group beyond float32, expected a float32 scale")
    return groups, means


def rounded_scales(scale: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """As float16 has them, unless one is beyond it or would be 0."""
    with np.errstate(over="ignore", under="ignore"):
        halves = scale.astype(np.float16).astype(np.float32)
    return halves if np.isfinite(halves).all() and (halves > 0).all() else scale


def check_weights(w: npt.ArrayLike) -> npt.NDArray[Any]:
    """A matrix of floats to quantise; raises TypeError and ValueError for anything else."""
    weight = as_array("w", w)
    if weight.dtype not in (np.float16, np.float32, np.float64):
        raise TypeError(
            f"w: dtype {weight.dtype}, expected float16, float32 or float64 "
            "(int8 trits go to ternops.pack)"
        )
    if weight.ndim != 2:
        raise ValueError(f"w: shape {weight.shape}, expected two dimensions")
    return weight


def mean_of(weight: npt.NDArray[Any], function: Callable[[Any], Any]) -> np.float32:
    """The mean of function(weight); 0 for an empty matrix.

    Raises ValueError for NaN and infinity, and for a mean beyond float32.
    """
    # Sums of float32 in float64: the mean is then right to float32's last bit.
    with np.errstate(over="ignore", invalid="ignore"):
        sums = [function(weight[rows]).sum(dtype=np.float64) for rows in _pieces(weight)]
        total = float(sum(sums))
    if not np.isfinite(total):
        raise ValueError(f"w: {_first_bad(weight)}, expected finite numbers")
    if abs(total) / max(1, weight.size) > float(np.finfo(np.float32).max):
        raise ValueError("w: mean magnitude beyond float32, expected a float32 scale")
    return np.float32(total / max(1, weight.size))


def _pieces(weight: npt.NDArray[Any]) -> Iterator[slice]:
    """Rows worked on at a time: no temporary is as large as a matrix."""
    rows = max(1, _ROWS_AT_ONCE // max(1, weight.shape[1]))
    return (slice(start, start + rows) for start in range(0, len(weight), rows))


def _first_bad(weight: npt.NDArray[Any]) -> str:
    for rows in _pieces(weight):
        bad = np.argwhere(~np.isfinite(weight[rows]))
        if len(bad):
            i, j = bad[0]
            return f"w[{rows.start + i}, {j}] is {weight[rows.start + i, j]}"
    return "the sum of magnitudes is infinite"
