"""From floats to trits: absmean, the weight quantisation of BitNet b1.58."""

from __future__ import annotations

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

_ROWS_AT_ONCE = 1 << 24  # elements


def absmean(w: npt.ArrayLike) -> tuple[npt.NDArray[np.int8], np.float32]:
    """Quantise a float matrix to trits and one scale (arXiv 2402.17764, section 2).

    w: (rows, columns), float16, float32 or float64.
    Returns int8 trits of that shape and s = mean|w| (at least 1e-5), such that w is close to
    s * trits; trits = clip(round(w / s), -1, 1), ties to even.
    Raises TypeError for another dtype, ValueError for another shape or for NaN and infinity.
    """
    weight = as_array("w", w)
    if weight.dtype not in (np.float16, np.float32, np.float64):
        raise TypeError(
            f"w: dtype {weight.dtype}, expected float16, float32 or float64 "
            "(int8 trits go to ternops.pack)"
        )
    if weight.ndim != 2:
        raise ValueError(f"w: shape {weight.shape}, expected two dimensions")
    rows = max(1, _ROWS_AT_ONCE // max(1, weight.shape[1]))
    blocks = [weight[i : i + rows] for i in range(0, weight.shape[0], rows)]
    # Sums of float32 magnitudes in float64: the mean is then right to float32's last bit.
    with np.errstate(over="ignore"):
        total = sum(float(np.abs(block).sum(dtype=np.float64)) for block in blocks)
    if not np.isfinite(total):
        raise ValueError(f"w: {_first_bad(blocks)}, expected finite numbers")
    if total / max(1, weight.size) > float(np.finfo(np.float32).max):
        raise ValueError("w: mean magnitude beyond float32, expected a float32 scale")
    scale = max(np.float32(total / max(1, weight.size)), MIN_SCALE)
    trits = np.empty(weight.shape, np.int8)
    for i, block in enumerate(blocks):
        ratio = block.astype(np.result_type(block.dtype, np.float32), copy=False) / scale
        trits[i * rows : i * rows + len(block)] = np.clip(np.rint(ratio), -1, 1)
    return trits, scale


def _first_bad(blocks: list[npt.NDArray[Any]]) -> str:
    row = 0
    for block in blocks:
        bad = np.argwhere(~np.isfinite(block))
        if len(bad):
            i, j = bad[0]
            return f"w[{row + i}, {j}] is {block[i, j]}"
        row += len(block)
    return "the sum of magnitudes is infinite"
