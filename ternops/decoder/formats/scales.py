"""Scales of blocks of inputs, made as few as give back every weight exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Trits = npt.NDArray[np.int8]
Floats = npt.NDArray[np.float32]

#: Inputs that may share a scale, where those of a row do not.
GROUPS = (256, 128, 64, 32)
_FIRST_ROWS = 16


def check_scales(scales: Any) -> None:
    """Raise ValueError for a scale that is not positive and finite."""
    bad = np.extract(~(np.isfinite(scales) & (np.asarray(scales) > 0)), scales)
    if bad.size:
        raise ValueError(f"holds the scale {bad[0]}, expected positive numbers")


def fewest_scales(scales: Floats, used: npt.NDArray[np.bool_], columns: int) -> Floats:
    """One scale, shape (), or one a row, or one for each of the largest groups of inputs in which
    all agree: (rows, groups).

    scales: (rows, blocks), each of columns/blocks inputs. used: which of them multiply anything.
    Blocks of zeros have no say: quantisers leave any scale in them, and here it is a neighbour's
    or 1. Raises ValueError for a used scale that is not positive and finite.
    """
    blocks = scales.shape[1]
    check_scales(scales[used])
    width = columns // blocks
    joins = [columns, *(each for each in GROUPS if each > width and columns % each == 0)]
    for group in joins:
        if group % width:
            continue
        # Most matrices show in their first rows that a group has several scales.
        for some in (slice(_FIRST_ROWS), slice(None)):
            joined = _joined(scales[some], used[some], group // width)
            if joined is None:
                break
        else:
            assert joined is not None
            if group == columns:
                return row_scales(joined[:, 0], joined[:, 0] > 0)
            return np.where(joined > 0, joined, np.float32(1))
    return np.where(used, scales, np.float32(1))


def _joined(scales: Floats, used: npt.NDArray[np.bool_], count: int) -> Floats | None:
    """The one scale of each `count` neighbours, 0 where none is used; None if some have several."""
    parts = len(scales), -1, count
    least = np.where(used, scales, np.float32(np.inf)).reshape(parts).min(axis=2)
    most = np.where(used, scales, np.float32(0)).reshape(parts).max(axis=2)
    return most if ((least == most) | (most == 0)).all() else None


def row_scales(scales: Floats, used: npt.NDArray[np.bool_]) -> Floats:
    """One scale, shape (), where all rows agree, or one a row; a row that is not `used`, since it
    is all zero, has no say."""
    if not used.any():
        return np.ones((), np.float32)
    if (scales[used] == scales[used][0]).all():
        return np.asarray(scales[used][0])
    return np.where(used, scales, np.float32(1))


def in_groups(scale: Floats, columns: int, group: int) -> Floats:
    """The same scale, of any shape of `fewest_scales`, as (rows, groups) or, of (), (1, groups)."""
    known = scale if scale.ndim == 2 else scale.reshape(-1, 1)
    return np.repeat(known, columns // group // known.shape[1], axis=1)


def products(trits: npt.NDArray[Any], scale: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """trits * scale, of a scale of any of the shapes that `fewest_scales` gives.

    float32 of int8 and float32.
    """
    if scale.ndim == 0:
        return trits * scale
    groups = 1 if scale.ndim == 1 else scale.shape[1]
    parts = trits.reshape(len(trits), groups, -1)
    return (parts * scale.reshape(-1, groups, 1)).reshape(trits.shape)
