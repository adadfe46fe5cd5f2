"""The packed bytes of a matrix with what belongs to them, and what arguments must be to make it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ternops.arrays import as_array
from ternops.encodings import ENCODINGS
from ternops.memory import HoldsAddresses, aligned_copy
from ternops.simd.lock import LOCK

if TYPE_CHECKING:  # kernels are imported when the first matrix is packed
    from ternops.kernels.call import Call

Array = npt.NDArray[Any]

#: A sum needs fewer terms than this: 2**24 times -1 * -128 overflows int32.
TERMS_LIMIT = 1 << 24

_ONE = np.ones((), np.float32)


class Packed(HoldsAddresses):
    """The bytes of a matrix and its scale: what a matrix and its transpose share.

    operand: the same for kernels. calls: what `ternops.matmul` has prepared for this matrix, by
    the number of tokens, whether they are floats, and whether sums are scaled.
    """

    __slots__ = ("bytes", "calls", "columns", "encoding", "operand", "rows", "scale")

    def __init__(
        self,
        packed: npt.NDArray[np.uint8],
        rows: int,
        columns: int,
        scale: Array | None,
        encoding: str,
    ) -> None:
        with LOCK:  # for whoever forks
            from ternops.kernels.call import Operand

        self.bytes = aligned_copy(packed)
        self.bytes.flags.writeable = False
        self.rows = rows
        self.columns = columns
        self.scale = scale
        self.encoding = encoding
        if scale is not None:
            scale.flags.writeable = False
        # Kernels take addresses; the arrays above keep the memory alive.
        factors = _ONE if scale is None else scale
        self.operand = Operand(
            encoding, self.bytes.ctypes.data, self.bytes.nbytes, rows, columns,
            factors.ctypes.data, 0 if factors.ndim == 0 else factors.itemsize,
        )  # fmt: skip
        self.calls: dict[tuple[int, bool, bool], Call] = {}

    def unpack(self, first: int = 0, last: int | None = None) -> npt.NDArray[np.int8]:
        """Rows [first, last), by default all, as int8 (last - first, columns)."""
        return ENCODINGS[self.encoding].unpack(self.bytes, self.rows, self.columns, first, last)

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


def pack_values(values: npt.NDArray[np.int8], scale: Array | None, encoding: str) -> Packed:
    """Pack int8 (rows, columns) of the encoding's values."""
    rows, columns = values.shape
    return Packed(ENCODINGS[encoding].pack(values), rows, columns, scale, encoding)


def check_encoding(encoding: str, rows: int, columns: int) -> str:
    """The name of an encoding, also for "auto"; ValueError for others."""
    if encoding == "auto":
        with LOCK:
            from ternops.kernels.tuning import best_encoding

        return best_encoding(rows * columns)
    if encoding not in ENCODINGS:
        names = ", ".join(["auto", *ENCODINGS])
        raise ValueError(f"encoding={encoding!r}: expected one of {names}")
    return encoding


def check_columns(name: str, columns: int) -> None:
    """Raise ValueError, naming the argument, if sums can overflow."""
    if columns >= TERMS_LIMIT:
        raise ValueError(
            f"{name}: {columns} columns, expected fewer than {TERMS_LIMIT} (2**24): "
            "a sum of that many products can overflow int32"
        )


def check_scale(scale: Any, rows: int) -> Array | None:
    """float32 () or (rows,), or None; raises TypeError and ValueError for anything else."""
    if scale is None:
        return None
    given = as_array("scale", scale)
    if given.dtype.kind not in "fiu":
        raise TypeError(f"scale: dtype {given.dtype}, expected real numbers")
    if given.shape not in ((), (rows,)):
        raise ValueError(f"scale: shape {given.shape}, expected a number or shape ({rows},)")
    with np.errstate(over="ignore"):
        array = np.array(given, np.float32)
    if not np.isfinite(array).all():
        raise ValueError("scale: not finite in float32, expected finite numbers")
    return array
