"""The packed bytes of a matrix with what belongs to them, and what arguments must be to make it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ternops.arrays import as_array
from ternops.encodings import ENCODINGS, PANELS, layout_of
from ternops.encodings.common import PIECE, spans
from ternops.encodings.encoding import Encoding
from ternops.encodings.panels import GROUPS, ROWS, turn_scales_back
from ternops.memory import HoldsAddresses, aligned_copy
from ternops.simd.lock import LOCK
from ternops.spelling import expected_one

if TYPE_CHECKING:  # kernels are imported when the first matrix is packed
    from ternops.kernels.call import Call

Array = npt.NDArray[Any]

#: A sum of trits needs fewer terms than this: 2**24 times -1 * -128 overflows int32.
TERMS_LIMIT = 1 << 24

_ONE = np.ones((), np.float32)


class Packed(HoldsAddresses):
    """The bytes of a matrix and its scale: what a matrix and its transpose share.

    factors: the scale as kernels read it; one for each group of columns may also be given so, as
    (panels, groups, 16). group: columns that share a scale, 0 for all of a row. levels: what codes
    stand for.
    operand: the same for kernels. calls: what `ternops.matmul` has prepared for this matrix, by
    the number of tokens, whether they are floats, and whether sums are scaled.
    """

    __slots__ = (
        "_by_columns", "bytes", "calls", "columns", "encoding", "factors", "group", "levels",
        "operand", "rows",
    )  # fmt: skip

    def __init__(
        self,
        packed: npt.NDArray[np.uint8],
        rows: int,
        columns: int,
        scale: Array | None,
        encoding: str,
        levels: tuple[int, ...] = (),
    ) -> None:
        with LOCK:  # for whoever forks
            from ternops.kernels.call import Operand
            from ternops.packing import turn_scales

        self.bytes = aligned_copy(packed)
        self.bytes.flags.writeable = False
        self.rows = rows
        self.columns = columns
        self.encoding = encoding
        self.levels = levels or ENCODINGS[encoding].values
        self.group = group_of(scale, columns)
        self.factors = turn_scales(scale)[0] if scale is not None and scale.ndim == 2 else scale
        if self.factors is not None:
            self.factors.flags.writeable = False
        # Kernels take addresses; the arrays above keep the memory alive.
        factors = _ONE if self.factors is None else self.factors
        self.operand = Operand(
            encoding, self.bytes.ctypes.data, self.bytes.nbytes, rows, columns,
            factors.ctypes.data, 0 if factors.ndim == 0 else factors.itemsize, self.group,
            self.levels,
        )  # fmt: skip
        self._by_columns: Packed | None = None
        self.calls: dict[tuple[int, bool, bool], Call] = {}

    @property
    def scale(self) -> Array | None:
        """None, (), (rows,) or, with a scale a group of columns, (rows, groups)."""
        if self.group and self.factors is not None:
            return turn_scales_back(self.factors, self.rows)
        return self.factors

    @property
    def layout(self) -> Encoding:
        """What packed the bytes."""
        return layout_of(self.encoding, self.group, self.levels)

    def unpack(self, first: int = 0, last: int | None = None) -> npt.NDArray[np.int8]:
        """Rows [first, last), by default all, as int8 (last - first, columns)."""
        with LOCK:
            from ternops.packing import unpack_rows
        return unpack_rows(
            self.layout, self.bytes, self.rows, self.columns, first, last, self.levels
        )

    def repacked(
        self, encoding: str, scale: Array | None, levels: tuple[int, ...] | None = None
    ) -> Packed:
        """The same values in another encoding, or with another scale, or with more levels."""
        with LOCK:
            from ternops.packing import repack
        rows, columns = self.rows, self.columns
        levels = self.levels if levels is None else levels
        target = layout_of(encoding, group_of(scale, columns), levels)
        packed = repack(self.layout, self.bytes, rows, columns, target, self.levels, levels)
        return Packed(packed, rows, columns, scale, encoding, levels)

    def by_columns(self) -> Packed:
        """The same values without a scale, packed anew by columns in the same encoding; kept, which
        takes as many bytes again, and two a weight while it is made."""
        if self._by_columns is None:
            values = np.ascontiguousarray(self.unpack().T)
            self._by_columns = pack_values(values, None, self.encoding, self.levels)
        return self._by_columns

    def row_spans(self) -> Iterator[tuple[int, int]]:
        """(first, last) of all rows, about PIECE weights at a time."""
        return spans(0, self.rows, max(1, PIECE // max(1, self.columns)))

    def dense(self, first: int = 0, last: int | None = None) -> npt.NDArray[np.float32]:
        """The same times the scale."""
        values = self.unpack(first, last).astype(np.float32)
        if self.factors is None:
            return values
        if self.group:
            last = self.rows if last is None else last
            top = first // ROWS  # of the panels that these rows are in
            scale = turn_scales_back(self.factors[top : -(-last // ROWS)], last - top * ROWS)
            groups = values.reshape(len(values), self.columns // self.group, self.group)
            groups *= scale[first - top * ROWS :, :, None].astype(np.float32)
        else:
            values *= self.factors if self.factors.ndim == 0 else self.factors[first:last, None]
        return values

    def call(self, tokens: int, is_float: bool, scaled: bool) -> Call:
        """The product with `tokens` tokens; kept, because every object touched costs time."""
        key = (tokens, is_float, scaled)
        found = self.calls.get(key)
        if found is None:
            operand = self.operand if scaled else self.operand._replace(scale_step=-1)
            with LOCK:
                from ternops.kernels.call import Call

                found = self.calls[key] = Call.of(operand, tokens, is_float)
        return found


def pack_values(
    values: npt.NDArray[np.int8],
    scale: Array | None,
    encoding: str,
    levels: tuple[int, ...] = (),
) -> Packed:
    """Pack int8 (rows, columns) of the levels, by default the encoding's values."""
    assert not levels or ENCODINGS[encoding].can_have(levels)  # others would be other numbers
    rows, columns = values.shape
    with LOCK:
        from ternops.packing import pack_trits
    layout = layout_of(encoding, group_of(scale, columns), levels)
    packed = pack_trits(layout, values, levels=levels)
    return Packed(packed, rows, columns, scale, encoding, levels)


def group_of(scale: Array | None, columns: int) -> int:
    """Columns that share a scale of `check_scale`; 0 where all of a row do."""
    return columns // scale.shape[1] if scale is not None and scale.ndim > 1 else 0


def check_encoding(encoding: str, rows: int, columns: int, *others: str) -> str:
    """The name of an encoding, also for "auto"; ValueError for anything else. others: names that
    the caller knows besides."""
    if encoding == "auto":
        with LOCK:
            from ternops.kernels.tuning import best_encoding

        return best_encoding(rows * columns)
    if encoding not in ENCODINGS:
        raise ValueError(expected_one("encoding", encoding, ["auto", *ENCODINGS, *others]))
    return encoding


def check_columns(name: str, columns: int, levels: tuple[int, ...] = (-1, 1)) -> None:
    """Raise ValueError, naming the argument, if sums of such levels can overflow."""
    limit = terms_limit(levels)
    if columns >= limit:
        raise ValueError(
            f"{name}: {columns} columns, expected fewer than {limit}{in_bits(limit)}: "
            "a sum of that many products can overflow int32"
        )


def terms_limit(levels: tuple[int, ...]) -> int:
    """A sum of products of such levels with int8 needs fewer terms, or can overflow int32."""
    return TERMS_LIMIT // max(abs(levels[0]), abs(levels[-1]))


def in_bits(limit: int) -> str:
    """The power of two that a limit is, if it is one, for a message."""
    return f" (2**{limit.bit_length() - 1})" if limit & (limit - 1) == 0 else ""


def check_scale(scale: Any, rows: int, columns: int) -> Array | None:
    """float32 () or (rows,), or None, or (rows, groups): float16 where that has each of them.

    Raises TypeError and ValueError for anything else.
    """
    if scale is None:
        return None
    given = as_array("scale", scale)
    if given.dtype.kind not in "fiu":
        raise TypeError(f"scale: dtype {given.dtype}, expected real numbers")
    if given.ndim == 2:
        return _check_groups(given, rows, columns)
    if given.shape not in ((), (rows,)):
        raise ValueError(
            f"scale: shape {given.shape}, expected a number, shape ({rows},) or ({rows}, groups)"
        )
    with np.errstate(over="ignore"):
        array = np.array(given, np.float32)
    if not np.isfinite(array).all():
        raise ValueError("scale: not finite in float32, expected finite numbers")
    return array


def _check_groups(given: Array, rows: int, columns: int) -> Array:
    sizes = [size for size in GROUPS if columns % size == 0 and columns]
    shapes = [(rows, columns // size) for size in sizes]
    if given.shape not in shapes:
        expected = " or ".join(map(str, shapes)) or f"columns that one of {GROUPS} divides"
        raise ValueError(
            f"scale: shape {given.shape} for a matrix of shape ({rows}, {columns}), "
            f"expected {expected}"
        )
    with np.errstate(over="ignore"):
        array = np.array(given, np.float32)
    if not np.isfinite(array).all():
        i, j = np.argwhere(~np.isfinite(array))[0]
        raise ValueError(
            f"scale: scale[{i}, {j}] is {given[i, j]}, expected numbers that are finite in float32"
        )
    return halves_of(array)


def halves_of(scale: Array) -> Array:
    """The same numbers in float16, where that has each of them."""
    if scale.dtype == np.float16:
        return scale
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        halves = scale.astype(np.float16)
    return halves if np.array_equal(halves, scale) else scale


def check_group(group: int | None, encoding: str, columns: int) -> int:
    """Columns that are to share a scale, 0 for None; raises TypeError and ValueError."""
    if group is None:
        return 0
    if isinstance(group, bool) or not isinstance(group, int | np.integer):
        raise TypeError(f"group={group!r}: expected an integer or None")
    size = int(group)
    if size not in GROUPS or columns % size or not columns:
        raise ValueError(
            f"group={group!r}: expected one of {', '.join(map(str, GROUPS))} that divides the "
            f"{columns} columns"
        )
    if encoding not in PANELS:
        raise ValueError(
            f"group={group!r}: not with encoding {encoding!r}, expected {' or '.join(PANELS)}"
        )
    return size
