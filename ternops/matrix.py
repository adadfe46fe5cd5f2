"""TernaryMatrix: the packed operand that users hold, how it is made, saved and loaded."""

from __future__ import annotations

import os
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy
from numpy.lib.array_utils import normalize_axis_tuple

from ternops.absmean import absmean
from ternops.arrays import as_array, comes_first, is_array_like
from ternops.encodings import ENCODINGS
from ternops.files import replaced
from ternops.kernels.tuning import best_encoding
from ternops.memory import Arena, HoldsAddresses, aligned_copy

Array = npt.NDArray[Any]

#: A sum needs fewer terms than this: 2**24 times -1 * -128 overflows int32.
TERMS_LIMIT = 1 << 24

#: What ``x @= W`` tells of its operands, for x of several dimensions and of one.
_INPLACE_AXES = ([(-2, -1)] * 3, [(-1,), (-2, -1), (-1,)])

_ONE = np.ones((), np.float32)
_FORMAT = "ternops"
_VERSION = "1"


class Packed(HoldsAddresses):
    """The bytes of a matrix, its scale and their addresses: what a matrix and its transpose share.

    plans: what `ternops.matmul` has prepared for the kernels of this matrix.
    """

    __slots__ = (
        "address", "bytes", "columns", "encoding", "plans", "rows", "scale", "scale_address",
        "scale_step",
    )  # fmt: skip

    def __init__(
        self,
        packed: npt.NDArray[np.uint8],
        rows: int,
        columns: int,
        scale: Array | None,
        encoding: str,
    ) -> None:
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
        self.address = int(self.bytes.ctypes.data)
        self.scale_address = int(factors.ctypes.data)
        self.scale_step = 0 if factors.ndim == 0 else factors.itemsize
        self.plans: dict[Any, Any] = {}


class TernaryMatrix:
    """An immutable matrix of -1, 0 and 1, packed, with an optional scale.

    Its value is ``to_trits() * scale``, a scale array counting along the packed rows. Made by
    `quantize`, `pack` and `load`. Products: ``W @ x``, ``x @ W.T`` and `ternops.matmul`.
    """

    __slots__ = ("_packed", "_transposed")

    def __init__(self, packed: Packed, transposed: bool = False) -> None:
        """For use by this package."""
        self._packed = packed
        self._transposed = transposed

    @property
    def encoding(self) -> str:
        """ "two_bit", "base3", "tl1" or "tl2": the layout of the packed bytes."""
        return self._packed.encoding

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        p = self._packed
        return (p.columns, p.rows) if self._transposed else (p.rows, p.columns)

    @property
    def ndim(self) -> int:
        return 2

    @property
    def size(self) -> int:
        """The number of weights."""
        return self._packed.rows * self._packed.columns

    @property
    def scale(self) -> np.float32 | npt.NDArray[np.float32] | None:
        """None, one float32, or a float32 array with one a packed row.

        Of ``W.T`` the packed rows are the columns.
        """
        scale = self._packed.scale
        return scale[()] if scale is not None and scale.ndim == 0 else scale

    @property
    def nbytes(self) -> int:
        """Bytes of packed weights, padding included, and of the scale."""
        scale = self._packed.scale
        return self._packed.bytes.nbytes + (0 if scale is None else scale.nbytes)

    @property
    def bits_per_weight(self) -> float:
        """8 * nbytes / size; nan for an empty matrix."""
        return 8 * self.nbytes / self.size if self.size else float("nan")

    @property
    def T(self) -> TernaryMatrix:
        """The transpose: the same bytes, seen with rows and columns exchanged."""
        return TernaryMatrix(self._packed, not self._transposed)

    def transpose(self, *axes: Any) -> TernaryMatrix:
        """`T`, or the matrix itself for the axes 0, 1; as `numpy.ndarray.transpose`."""
        given = axes[0] if len(axes) == 1 else axes
        order = (1, 0) if given in (None, ()) else normalize_axis_tuple(given, 2)
        if len(order) != 2:
            raise ValueError(f"axes={given!r}: expected 0 and 1 in either order")
        return self.T if order == (1, 0) else self

    @property
    def unscaled(self) -> TernaryMatrix:
        """The same bytes without the scale: int8 operands give exact int32 products."""
        p = self._packed
        return TernaryMatrix(Packed(p.bytes, p.rows, p.columns, None, p.encoding), self._transposed)

    def to(self, encoding: str) -> TernaryMatrix:
        """The same matrix in another encoding, trit for trit; itself where it has that already.

        Raises ValueError for an unknown encoding.
        """
        p = self._packed
        name = _check_encoding(encoding, p.rows, p.columns)
        if name == p.encoding:
            return self
        trits = self._rows_of_trits(0, p.rows)
        return TernaryMatrix(_pack(trits, p.scale, name), self._transposed)

    def moved(self, arena: Arena) -> TernaryMatrix:
        """The same matrix with its bytes in an arena."""
        p = self._packed
        packed = Packed(arena.copy(p.bytes), p.rows, p.columns, p.scale, p.encoding)
        return TernaryMatrix(packed, self._transposed)

    def to_trits(self) -> npt.NDArray[np.int8]:
        """The trits as an int8 array of this shape."""
        trits = self._rows_of_trits(0, self._packed.rows)
        return trits.T if self._transposed else trits

    def to_dense(self) -> npt.NDArray[np.float32]:
        """The weights as a float32 array of this shape: trits times scale."""
        dense = self._rows_of_trits(0, self._packed.rows).astype(np.float32)
        scale = self._packed.scale
        if scale is not None:
            dense *= scale if scale.ndim == 0 else scale[:, None]
        return dense.T if self._transposed else dense

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file, whole or not at all; `ternops.load` reads it.

        A symbolic link stays, and what it points to is written; so is a pipe or a device. Raises
        OSError for what cannot be written.
        """
        p = self._packed
        tensors = {"packed": p.bytes}
        if p.scale is not None:
            tensors["scale"] = p.scale
        metadata = {
            "format": _FORMAT,
            "version": _VERSION,
            "encoding": p.encoding,
            "rows": str(p.rows),
            "columns": str(p.columns),
            "transposed": str(int(self._transposed)),
        }
        metadata["crc32"] = _checksum(metadata, tensors)
        with replaced(path) as temporary:
            temporary.write_bytes(safetensors.numpy.save(tensors, metadata))

    def _rows_of_trits(self, first: int, last: int) -> npt.NDArray[np.int8]:
        """Packed rows [first, last) as int8."""
        p = self._packed
        trits: npt.NDArray[np.int8] = ENCODINGS[p.encoding].unpack(
            p.bytes, p.rows, p.columns, first, last
        )
        return trits

    def __matmul__(self, other: Any) -> Array:
        from ternops.product import matmul

        if comes_first(other):
            product: Array = type(other).__rmatmul__(other, self)
            if product is not NotImplemented:
                return product
        return matmul(self, other) if is_array_like(other) else NotImplemented

    def __rmatmul__(self, other: Any) -> Array:
        from ternops.product import matmul

        return matmul(other, self) if is_array_like(other) else NotImplemented

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        """``np.matmul`` is `ternops.matmul`, also that of ``x @= W.T``; no other ufunc is defined
        (a TypeError)."""
        if ufunc is not np.matmul or method != "__call__" or set(options) - {"out", "axes"}:
            return NotImplemented
        if "axes" in options and list(options["axes"]) not in _INPLACE_AXES:
            return NotImplemented
        from ternops.product import matmul

        left, right = inputs
        (out,) = options.get("out", (None,))
        return matmul(left, right, out)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        """``np.asarray(W)`` is `to_dense`; a view is impossible, so copy=False is an error."""
        if copy is False:
            raise ValueError("copy=False: a TernaryMatrix has no dense array to share")
        return self.to_dense().astype(dtype or np.float32, copy=False)

    def __reduce__(self) -> Any:
        # By value: addresses mean nothing in a copy or in another process.
        p = self._packed
        return _from_state, (p.bytes, p.rows, p.columns, p.scale, p.encoding, self._transposed)

    def __repr__(self) -> str:
        factors = self._packed.scale
        if factors is None or factors.ndim == 0:
            scale = str(self.scale)
        else:
            scale = f"one of {len(factors)} a {'column' if self._transposed else 'row'}"
        return (
            f"TernaryMatrix(shape={self.shape}, encoding={self.encoding!r}, scale={scale}, "
            f"bits_per_weight={self.bits_per_weight:.3f})"
        )


def _from_state(*state: Any) -> TernaryMatrix:
    *packed, transposed = state
    return TernaryMatrix(Packed(*packed), transposed)


def quantize(w: npt.ArrayLike, encoding: str = "auto") -> TernaryMatrix:
    """Quantise a float matrix as BitNet b1.58 does and pack it.

    w: (rows, columns), float16, float32 or float64, finite. The scale is mean|w| over the whole
    matrix (at least 1e-5); the trits are clip(round(w / scale), -1, 1).
    encoding: "two_bit", "base3", "tl1", "tl2", or "auto" for the best one here.
    Raises TypeError and ValueError, naming the argument, for anything else.
    """
    weight = as_array("w", w)
    if weight.ndim == 2:
        _check_columns("w", weight.shape[1])
        encoding = _check_encoding(encoding, *weight.shape)
    trits, scale = absmean(weight)
    return TernaryMatrix(_pack(trits, np.asarray(scale), encoding))


def pack(trits: npt.ArrayLike, scale: Any = None, encoding: str = "auto") -> TernaryMatrix:
    """Pack an int8 matrix of -1, 0 and 1.

    trits: (rows, columns) int8. scale: None, a finite real number, or one a row, shape (rows,).
    encoding: "two_bit", "base3", "tl1", "tl2", or "auto" for the best one here.
    Raises TypeError and ValueError, naming the argument, for anything else.
    """
    array = as_array("trits", trits)
    if array.dtype != np.int8:
        raise TypeError(f"trits: dtype {array.dtype}, expected int8 (floats: ternops.quantize)")
    if array.ndim != 2:
        raise ValueError(f"trits: shape {array.shape}, expected two dimensions")
    _check_columns("trits", array.shape[1])
    if array.size and (array.min() < -1 or array.max() > 1):
        i, j = np.argwhere((array < -1) | (array > 1))[0]
        raise ValueError(f"trits: trits[{i}, {j}] is {array[i, j]}, expected -1, 0 or 1")
    name = _check_encoding(encoding, *array.shape)
    return TernaryMatrix(_pack(array, _check_scale(scale, array.shape[0]), name))


def load(path: str | os.PathLike[str]) -> TernaryMatrix:
    """Read a file that `TernaryMatrix.save` wrote.

    Raises FileNotFoundError if there is none, ValueError, naming what is wrong, if it is cut off,
    damaged, or somebody else's.
    """
    name = os.fspath(path)
    if not os.path.isfile(name):
        raise FileNotFoundError(f"path: {name!r} is not a file")
    try:
        with safetensors.safe_open(name, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT or metadata.get("version") != _VERSION:
                raise ValueError(
                    f"format {metadata.get('format')!r} version {metadata.get('version')!r}, "
                    f"expected {_FORMAT!r} version {_VERSION!r}"
                )
            tensors = {
                name: file.get_tensor(name)
                for name, kind in (("packed", "U8"), ("scale", "F32"))
                if name in file.keys() and _has_dtype(file, name, kind)  # noqa: SIM118
            }
        return _restore(metadata, tensors)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise ValueError(f"path: {name!r} is no intact ternops file: {error}") from None


def _restore(metadata: dict[str, str], tensors: dict[str, Array]) -> TernaryMatrix:
    encoding = metadata["encoding"]
    if encoding not in ENCODINGS:
        raise ValueError(f"encoding {encoding!r}, expected one of {', '.join(ENCODINGS)}")
    layout = ENCODINGS[encoding]
    rows, columns = int(metadata["rows"]), int(metadata["columns"])
    packed, scale = tensors["packed"], tensors.get("scale")
    if min(rows, columns) < 0 or columns >= TERMS_LIMIT or rows >= 2**48:
        raise ValueError(f"shape ({rows}, {columns})")
    expected = layout.nbytes(rows, columns) + layout.SLACK
    if packed.dtype != np.uint8 or packed.shape != (expected,):
        raise ValueError(f"packed: {packed.dtype} {packed.shape}, expected uint8 ({expected},)")
    if metadata["transposed"] not in ("0", "1"):
        raise ValueError(f"transposed {metadata['transposed']!r}, expected '0' or '1'")
    if metadata["crc32"] != _checksum(metadata, tensors):
        raise ValueError("its checksum does not match: it was damaged after it was written")
    layout.check(packed, rows, columns)
    content = Packed(packed, rows, columns, _check_scale(scale, rows), encoding)
    return TernaryMatrix(content, metadata["transposed"] == "1")


def _has_dtype(file: Any, name: str, kind: str) -> bool:
    found = file.get_slice(name).get_dtype()
    if found != kind:
        raise ValueError(f"{name}: dtype {found}, expected {kind}")
    return True


def _checksum(metadata: dict[str, str], tensors: dict[str, Array]) -> str:
    """CRC-32 of all that makes the matrix, as hexadecimal digits."""
    fields = "\n".join(f"{k}={v}" for k, v in sorted(metadata.items()) if k != "crc32")
    crc = zlib.crc32(fields.encode())
    for name in sorted(tensors):
        crc = zlib.crc32(np.ascontiguousarray(tensors[name]).data, crc)
    return f"{crc:08x}"


def _pack(trits: npt.NDArray[np.int8], scale: Array | None, encoding: str) -> Packed:
    rows, columns = trits.shape
    return Packed(ENCODINGS[encoding].pack(trits), rows, columns, scale, encoding)


def _check_encoding(encoding: str, rows: int, columns: int) -> str:
    if encoding == "auto":
        return best_encoding(rows * columns)
    if encoding not in ENCODINGS:
        names = ", ".join(["auto", *ENCODINGS])
        raise ValueError(f"encoding={encoding!r}: expected one of {names}")
    return encoding


def _check_columns(name: str, columns: int) -> None:
    if columns >= TERMS_LIMIT:
        raise ValueError(
            f"{name}: {columns} columns, expected fewer than {TERMS_LIMIT} (2**24): "
            "a sum of that many products can overflow int32"
        )


def _check_scale(scale: Any, rows: int) -> Array | None:
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
