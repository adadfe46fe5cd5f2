"""Some rows or columns of packed bytes, several matrices in one, and what is not 0 in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ternops.encodings import layout_of
from ternops.encodings.common import PIECE, SLACK, spans
from ternops.encodings.encoding import Encoding
from ternops.encodings.panels import ROWS
from ternops.memory import aligned_zeros
from ternops.packed import Packed, check_columns, halves_of, pack_values

Array = npt.NDArray[Any]
Index = npt.NDArray[np.intp]

_ALL = slice(None)


def indexed(packed: Packed, transposed: bool, key: Any) -> Packed | Array:
    """What a key of NumPy's takes of a matrix or, if transposed, of the transpose.

    A matrix where both of its dimensions are left (of a transpose packed as this one is); otherwise
    float32 values. Raises IndexError, TypeError and ValueError.
    """
    keys = _two(key)
    shape = (packed.columns, packed.rows) if transposed else (packed.rows, packed.columns)
    found = [_places(each, axis, size) for axis, (each, size) in enumerate(zip(keys, shape))]  # noqa: B905
    if found[0].ndim and found[1].ndim:
        if not any(isinstance(each, slice) for each in keys):
            raise IndexError("two arrays as an index, expected a slice for rows or for columns")
        for axis in (0, 1):
            if not _is_whole(keys[axis], shape[axis]):
                take = take_columns if transposed == (axis == 0) else take_rows
                packed = take(packed, found[axis])
        return packed
    rows, columns = found[::-1] if transposed else found
    if rows.ndim == 0:
        return packed.dense(int(rows), int(rows) + 1)[0][columns]
    parts = [packed.dense(*span)[:, columns] for span in packed.row_spans()]
    return np.concatenate([np.empty(0, np.float32), *parts])[rows]


def _two(key: Any) -> tuple[Any, Any]:
    """The keys of both axes; IndexError for another number of them."""
    keys = key if isinstance(key, tuple) else (key,)
    for each in keys:
        if each is None:
            raise IndexError("a new axis, expected an index of rows, or of rows and columns")
        if isinstance(each, np.ma.MaskedArray):
            raise TypeError("an index is a masked array, expected a plain one")
    dots = [at for at, each in enumerate(keys) if each is Ellipsis]
    if len(keys) - len(dots) > 2 or len(dots) > 1:
        raise IndexError(f"{len(keys)} indices, expected one of rows, or of rows and columns")
    at = dots[0] if dots else len(keys)
    rest = (_ALL,) * (2 - len(keys) + len(dots))
    both: tuple[Any, Any] = (*keys[:at], *rest, *keys[at + 1 :])
    return both


def _places(key: Any, axis: int, size: int) -> Index:
    """The numbers of rows or columns that a key takes; NumPy's errors."""
    numbers = np.arange(size)
    found = numbers[key] if axis == 0 else numbers[None][:, key][0]
    places = np.asarray(found)
    if places.ndim > 1:
        raise IndexError(f"an index of {places.ndim} dimensions, expected at most one")
    return places


def _is_whole(key: Any, size: int) -> bool:
    return isinstance(key, slice) and key.indices(size) == (0, size, 1)


def take_rows(packed: Packed, index: Index) -> Packed:
    """Packed rows by their numbers, copied as they are: no weight is unpacked."""
    layout, columns, count = packed.layout, packed.columns, len(index)
    taken = aligned_zeros(layout.nbytes(count, columns) + SLACK, np.uint8)
    _copy_rows(layout, columns, packed.bytes, packed.rows, index, taken, count)
    scale = packed.factors
    if scale is not None and scale.ndim:
        if packed.group:
            scale = halves_of(scale[index // ROWS, :, index % ROWS])
        else:
            scale = scale[index]
    return Packed(taken, count, columns, scale, packed.encoding, packed.levels)


def take_columns(packed: Packed, index: Index) -> Packed:
    """Packed columns by their numbers, unpacked and packed anew; ValueError for a part of a group
    that shares a scale, and for so many that a sum could overflow."""
    check_columns("index", len(index), packed.levels)
    scale = packed.scale
    if packed.group and scale is not None:
        group = packed.group
        places = index[: len(index) // group * group].reshape(-1, group)
        whole = places[:, :1] % group == 0
        if not len(index) or len(index) % group or not (
            whole & (places == places[:, :1] + np.arange(group))
        ).all():  # fmt: skip
            raise ValueError(
                f"an index of columns that share a scale by {group}, expected whole groups of them"
            )
        scale = halves_of(np.ascontiguousarray(scale[:, places[:, 0] // group]))
    values = packed.unpack()[:, index]
    return pack_values(values, scale, packed.encoding, packed.levels)


def concatenated(parts: Sequence[Packed]) -> Packed:
    """Matrices packed alike, one after another along their rows; ValueError for others."""
    first = parts[0]
    for number, each in enumerate(parts):
        for name, found, expected in (
            ("packed columns", each.columns, first.columns),
            ("encoding", each.encoding, first.encoding),
            ("levels", each.levels, first.levels),
            ("group", each.group or None, first.group or None),
        ):
            if found != expected:
                raise ValueError(
                    f"concatenate: arrays[{number}] has {name} {found!r}, expected the first one's "
                    f"{expected!r}"
                )
    rows = sum(each.rows for each in parts)
    layout = layout_of(first.encoding, first.group, first.levels)
    joined = aligned_zeros(layout.nbytes(rows, first.columns) + SLACK, np.uint8)
    start = 0
    for each in parts:
        all_of_it = np.arange(each.rows)
        _copy_rows(layout, each.columns, each.bytes, each.rows, all_of_it, joined, rows, start)
        start += each.rows
    scale = _joined_scale(parts)
    return Packed(joined, rows, first.columns, scale, first.encoding, first.levels)


def _joined_scale(parts: Sequence[Packed]) -> Array | None:
    """One for all where that is so, else one a row or a group; 1 where there was none."""
    scales = [each.scale for each in parts]
    if all(each is None for each in scales):
        return None
    found = [np.float32(1) if each is None else each for each in scales]
    if all(each.ndim == 0 for each in found) and len(set(map(float, found))) == 1:
        return np.array(found[0], np.float32)
    joined = np.concatenate([
        np.full(each.rows, scale) if scale.ndim == 0 else scale
        for each, scale in zip(parts, found, strict=True)
    ])  # fmt: skip
    return halves_of(joined) if joined.ndim == 2 else joined


def _copy_rows(
    layout: Encoding, columns: int, source: Array, rows: int, index: Index, target: Array,
    target_rows: int, first: int = 0,
) -> None:  # fmt: skip
    """Write some packed rows as those from `first` on of a target, all of whose bytes are 0."""
    to = _with_first(layout.by_rows(target, target_rows, columns))
    for start, place in _with_first(layout.by_rows(source, rows, columns)):
        height = place.shape[1]
        mine = np.flatnonzero((start <= index) & (index < start + len(place) * height))
        for target_start, target_place in to:
            target_height = target_place.shape[1]
            at = mine + (first - target_start)
            fits = (at >= 0) & (at < len(target_place) * target_height)
            at, wanted = at[fits], index[mine[fits]] - start
            for begin, end in spans(0, len(at), max(1, PIECE // max(1, place.shape[2]))):
                i, j = wanted[begin:end], at[begin:end]
                lines = place[i // height, i % height]
                target_place[j // target_height, j % target_height] = lines


def _with_first(pieces: list[Array]) -> list[tuple[int, Array]]:
    """Each with the number of its first row."""
    ends = np.cumsum([0, *(each.shape[0] * each.shape[1] for each in pieces)])
    return [(int(start), each) for start, each in zip(ends, pieces, strict=False)]


def nonzero_count(packed: Packed) -> int:
    """How many values are not 0."""
    return sum(int(np.count_nonzero(packed.dense(*span))) for span in packed.row_spans())
