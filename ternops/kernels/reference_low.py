"""What kernels of BitNet a4.8 (arXiv 2411.04965) must compute, in plain NumPy, as `reference`."""

from __future__ import annotations

import numpy as np

from ternops.kernels.reference import Array, dot

#: Levels of 3 bits lie half-way between integers, around it: codes 0 to 7 are -3.5 to 3.5 steps.
MIDDLE = np.float32(3.5)
#: The least and the largest int4, and what the mean magnitude is multiplied by.
INT4_LEAST, INT4_MOST = np.float32(-8), np.float32(7)
INT4_MEAN = np.sqrt(np.float32(7))


def quantize_three_bits(x: Array, floor: float) -> tuple[Array, Array]:
    """float32 (m, k) -> codes, uint8 (m, k) of 0 to 7, and the float32 (m,) step of each row.

    Unsigned, by absmax, as in its low-bit attention: q = round((x / max|x| + 1) * 3.5), ties to
    even, with max|x| at least `floor`; q stands for (q - 3.5) steps. A row with NaN or infinity
    gets a NaN step.
    """
    absmax = np.abs(x).max(axis=1, initial=0.0)
    finite = np.isfinite(absmax)
    absmax = np.maximum(np.where(finite, absmax, 0), np.float32(floor)).astype(np.float32)
    scaled = np.where(finite[:, None], x, 0) * (MIDDLE / absmax)[:, None]
    step = np.where(finite, absmax / MIDDLE, np.float32(np.nan))
    return np.rint(scaled + MIDDLE).astype(np.uint8), step.astype(np.float32)


def quantize_absmean(x: Array, floor: float) -> tuple[Array, Array]:
    """float32 (m, k) -> int8 (m, k) of -8 to 7, and the float32 (m,) step that one stands for.

    INT4 by absmean (section 2.1): q = clip(round(x * sqrt(7) / mean|x|), -8, 7), ties to even, with
    mean|x| at least `floor`. A row with NaN or infinity, or whose mean is, gets a NaN step.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        mean = dot(np.abs(x), np.ones(x.shape[-1:], np.float32)) / np.float32(x.shape[1])
    finite = np.isfinite(mean)
    mean = np.maximum(np.where(finite, mean, 0), np.float32(floor)).astype(np.float32)
    scaled = np.where(finite[:, None], x, 0) * (INT4_MEAN / mean)[:, None]
    step = np.where(finite, mean / INT4_MEAN, np.float32(np.nan))
    return np.rint(np.clip(scaled, INT4_LEAST, INT4_MOST)).astype(np.int8), step.astype(np.float32)


def keep_largest(x: Array, kept: int) -> Array:
    """(m, k) with zeros for all but the `kept` largest magnitudes of a row, of equal ones the first
    (the mask M of section 2.1); NaN is larger than all."""
    magnitudes = np.where(np.isnan(x), np.inf, np.abs(x))
    order = np.lexsort((~np.isnan(x), -magnitudes), axis=1)  # stable; NaN before infinity
    result, places = np.zeros_like(x), order[:, :kept]
    np.put_along_axis(result, places, np.take_along_axis(x, places, axis=1), axis=1)
    return result
