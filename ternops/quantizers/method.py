"""What a way of rounding a matrix to few levels is: a record, and what all of them share.

A matrix is cut into groups, of its columns or whole rows. Of each group a formula gives a scale,
which is rounded to what it is stored as; only then are the weights divided by it and rounded to
levels, small integers. So what is stored is what was rounded to, and a group's values and scale
depend on no other group, unless a method says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
Levels: TypeAlias = tuple[int, ...]
#: Columns that share a scale; "row" for all of a row, None for the whole matrix.
Group: TypeAlias = int | str | None

#: What a group of zeros has for its scale: the least float16.
ZERO_SCALE = 2.0**-24
#: No scale is smaller: the least normal float32.
MIN_SCALE = 2.0**-126

_WEIGHTS_AT_ONCE = 1 << 15  # whose temporaries stay in a second-level cache


def halves(scales: Array) -> Array:
    """float64 -> float32, rounded to float16 where that has a normal number as large."""
    with np.errstate(over="ignore", under="ignore"):
        half = scales.astype(np.float16).astype(np.float32)
        single = scales.astype(np.float32)
    return np.where(np.isfinite(half) & (half >= np.float32(2.0**-14)), half, single)


def singles(scales: Array) -> Array:
    """float64 -> float32."""
    return scales.astype(np.float32)


def nearest(groups: Array, scales: Array, levels: Levels) -> npt.NDArray[np.int8]:
    """The level that is nearest to each weight over its scale.

    Half-way between two, the one an even number of places from the level 0, or from the lowest one
    where 0 is no level: of consecutive integers the even one, of floats the one whose last bit is
    0. Quotients are those of the weights' precision, of float32 at least.
    """
    with np.errstate(over="ignore", under="ignore"):
        places = groups / scales[:, None].astype(groups.dtype)
    if levels[-1] - levels[0] == len(levels) - 1 and 0 in levels:
        np.rint(places, out=places)
        return np.clip(places, levels[0], levels[-1], out=places).astype(np.int8)
    low, high = levels[0] - 1, levels[-1] + 1
    np.clip(places, low, high, out=places)
    # Twice that, in which what is half-way between two integers is one itself.
    places += places
    below = np.floor(places)
    below += np.ceil(places, out=places)
    below -= 4 * low
    return _nearest_table(levels)[below.astype(np.int16)]


@lru_cache
def _nearest_table(levels: Levels) -> npt.NDArray[np.int8]:
    """For all of t = floor(2x) + ceil(2x) from 4 * (lowest - 1) on: what x is rounded to. It is 4x
    where 2x is an integer, else twice the middle of the two next to 2x."""
    points = np.arange(4 * (levels[0] - 1), 4 * (levels[-1] + 1) + 1)
    known = np.array(levels)
    origin = levels.index(0) if 0 in levels else 0
    order = np.abs(np.arange(len(levels)) - origin) % 2  # 0 where a tie goes to
    distance = np.abs(points[:, None] - 4 * known) * 2 + order
    table = known[distance.argmin(axis=1)].astype(np.int8)
    table.flags.writeable = False
    return table


def absmax_of(groups: Array) -> Array:
    """max|w| of each group, in float64."""
    return np.asarray(np.abs(groups).max(axis=1, initial=0), np.float64)


def absmean_of(groups: Array) -> Array:
    """mean|w| of each group, in float64."""
    return np.asarray(np.abs(groups).mean(axis=1, dtype=np.float64))


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way to round floats to few levels.

    paper: where it is from. levels: the levels, ascending, by how many they are, the usual ones
    first; is_open: it takes any others, too. fit: of a matrix that is cut into groups, and how many
    levels: which. group: columns that share a scale where nobody asks for something else;
    is_fixed: it has no other.

    scale: the formula, float (n, size) and levels -> float64 (n,), 0 of zeros, and not finite where
    a weight is not. store: those of all groups as
    they are kept, float32. choose: groups, scales and levels -> int8 values. whole: the same of a
    matrix with a single scale, (rows, columns) -> values and float32.
    """

    name: str
    paper: str
    levels: Mapping[int, Levels]
    scale: Callable[[Array, Levels], Array]
    group: Group = "row"
    is_fixed: bool = False
    is_open: bool = False
    fit: Callable[[Array, int], Levels] | None = None
    store: Callable[[Array], Array] = halves
    choose: Callable[[Array, Array, Levels], npt.NDArray[np.int8]] = nearest
    whole: Callable[[Array], tuple[npt.NDArray[np.int8], np.float32]] | None = None

    def quantize(
        self, groups: Array, levels: Levels
    ) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
        """float (n, size) -> int8 values of that shape, float32 scales (n,).

        Raises ValueError for NaN and infinity, and for a scale beyond float32.
        """
        scales = np.empty(len(groups), np.float64)
        for part in pieces(groups):
            with np.errstate(over="ignore", invalid="ignore"):
                scales[part] = self.scale(wide(groups[part]), levels)
        if not np.isfinite(scales).all():
            check_finite(groups)
        is_dead = scales == 0
        with np.errstate(over="ignore"):
            kept = self.store(np.maximum(scales, MIN_SCALE))
        kept[is_dead] = ZERO_SCALE
        if not np.isfinite(kept).all():
            raise ValueError(
                f"w: method {self.name!r} gives a scale of {scales.max():g}, beyond "
                "float32, expected a float32 scale"
            )
        values = np.empty(groups.shape, np.int8)
        for part in pieces(groups):
            values[part] = self.choose(wide(groups[part]), kept[part], levels)
        return values, kept


def wide(groups: Array) -> Array:
    """In float32 at least."""
    return groups.astype(np.result_type(groups.dtype, np.float32), copy=False)


def pieces(groups: Array) -> Iterator[slice]:
    """Groups worked on at a time: no temporary is as large as a matrix."""
    count = max(1, _WEIGHTS_AT_ONCE // max(1, groups.shape[1]))
    return (slice(start, start + count) for start in range(0, len(groups), count))


def check_finite(groups: Array) -> None:
    """Raises ValueError for NaN and infinity."""
    for part in pieces(groups):
        bad = np.argwhere(~np.isfinite(groups[part]))
        if len(bad):
            raise ValueError(f"w: holds {groups[part][tuple(bad[0])]}, expected finite numbers")
