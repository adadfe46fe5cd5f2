"""FloatMatrix: weights as floats of eight bits, a baseline beside those of few levels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ternops.absmean import check_weights
from ternops.arrays import as_array, is_array_like
from ternops.memory import aligned_zeros
from ternops.quantizers import fp8
from ternops.quantizers.method import MIN_SCALE, absmax_of, check_finite, pieces, wide
from ternops.simd.lock import LOCK
from ternops.threads import check_threads

Array = npt.NDArray[Any]

#: The encoding's name, and its methods: the format with a scale a row.
ENCODING = "fp8"
METHODS = tuple(fp8.FORMATS)


class FloatMatrix:
    """An immutable matrix of floats of eight bits, with a scale a row.

    Its value is ``decode(codes) * scale[:, None]``. Made by `quantize_floats`. ``W @ x`` and
    ``x @ W.T`` are products with float32 activations, which are not rounded; the other two are
    right, but slower.
    """

    __slots__ = ("_codes", "_columns", "_is_transposed", "_scale", "method")

    def __init__(
        self, codes: npt.NDArray[np.uint8], columns: int, scale: npt.NDArray[np.float32],
        method: str, is_transposed: bool = False,
    ) -> None:  # fmt: skip
        """For use by this package. codes: (rows, columns), padded to whole cache lines."""
        self._codes, self._columns, self._scale = codes, columns, scale
        self._codes.flags.writeable = self._scale.flags.writeable = False
        self.method, self._is_transposed = method, is_transposed

    encoding = ENCODING
    ndim = 2
    group = None

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        shape = (len(self._codes), self._columns)
        return shape[::-1] if self._is_transposed else shape

    @property
    def size(self) -> int:
        """The number of weights."""
        return len(self._codes) * self._columns

    @property
    def scale(self) -> npt.NDArray[np.float32]:
        """One a packed row."""
        return self._scale

    @property
    def nbytes(self) -> int:
        """Bytes of weights and scales, padding included."""
        return self._codes.nbytes + self._scale.nbytes

    @property
    def bits_per_weight(self) -> float:
        """8 * nbytes / size; nan for an empty matrix."""
        return 8 * self.nbytes / self.size if self.size else float("nan")

    @property
    def T(self) -> FloatMatrix:
        """The transpose."""
        return FloatMatrix(
            self._codes, self._columns, self._scale, self.method, not self._is_transposed
        )

    def to_codes(self) -> npt.NDArray[np.uint8]:
        """The codes of the packed rows."""
        return self._codes[:, : self._columns]

    def to_dense(self) -> npt.NDArray[np.float32]:
        """The weights as float32."""
        dense = fp8.decode(self.to_codes(), fp8.FORMATS[self.method]) * self._scale[:, None]
        return dense.T if self._is_transposed else dense

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError("copy=False: a FloatMatrix has no dense array to share")
        return self.to_dense().astype(dtype or np.float32, copy=False)

    __array_ufunc__ = None

    def __matmul__(self, other: Any) -> Array:
        return self.product(other, "b", False) if is_array_like(other) else NotImplemented

    def __rmatmul__(self, other: Any) -> Array:
        return self.product(other, "a", True) if is_array_like(other) else NotImplemented

    def product(self, other: Any, name: str, on_right: bool, threads: int | None = None) -> Array:
        """``other @ W`` if on_right, else ``W @ other``, in the shapes of `numpy.matmul`.

        name: of the argument `other`: float16, float32, float64 or int8, as float32.
        """
        x = as_array(f"matmul: {name}", other)
        if x.dtype not in (np.int8, np.float16, np.float32, np.float64):
            raise TypeError(
                f"matmul: {name} has dtype {x.dtype}, expected int8, float16, float32 or float64"
            )
        if x.ndim == 0:
            raise ValueError(f"matmul: {name} is a scalar, expected at least one dimension")
        outputs, terms = self.shape[::-1] if on_right else self.shape
        swap = not on_right and x.ndim > 1
        tokens = x.swapaxes(-1, -2) if swap else x
        if tokens.shape[-1] != terms:
            raise ValueError(
                f"matmul: {name} has shape {x.shape}, expected {terms} on axis "
                f"{-2 if swap else -1} for a matrix of shape {self.shape}"
            )
        with np.errstate(over="ignore"):
            rows = np.require(
                tokens.reshape(math.prod(tokens.shape[:-1]), terms), np.float32, ["C", "A"]
            )
        if on_right == self._is_transposed:
            found = self._along_rows(rows, check_threads(threads))
        else:
            weights = self.to_dense().astype(np.float64)
            found = (rows @ (weights if on_right else weights.T)).astype(np.float32)
        found = found.reshape(*tokens.shape[:-1], outputs)
        return found.swapaxes(-1, -2) if swap else found

    def _along_rows(self, tokens: npt.NDArray[np.float32], threads: int) -> Array:
        """float32 (m, columns) times the rows: the kernels' direction."""
        with LOCK:
            from ternops.kernels.call import Call, Operand
            from ternops.product import multiply

        rows, codes = len(self._codes), self._codes
        out = np.zeros((len(tokens), rows), np.float32)
        if not out.size or not self._columns:
            return out
        scales = self._scale.ctypes.data
        operand = Operand(
            self.method, codes.ctypes.data, codes.nbytes, rows, self._columns, scales, 4
        )
        multiply(Call.of(operand, len(tokens)), codes.nbytes, tokens, out, threads)
        return out

    def __reduce__(self) -> Any:
        state = self._scale, self.method, self._is_transposed
        return _from_state, (np.ascontiguousarray(self.to_codes()), *state)

    def __repr__(self) -> str:
        return (
            f"FloatMatrix(shape={self.shape}, encoding='fp8', method={self.method!r}, "
            f"bits_per_weight={self.bits_per_weight:.3f})"
        )


def _from_state(
    codes: npt.NDArray[np.uint8], scale: npt.NDArray[np.float32], method: str,
    is_transposed: bool = False,
) -> FloatMatrix:  # fmt: skip
    """Of codes (rows, columns)."""
    with LOCK:  # for whoever forks
        from ternops.kernels.plan import UNPACKED

    rows, columns = codes.shape
    lines = aligned_zeros((rows, UNPACKED[method].stride(columns)), np.uint8)
    lines[:, :columns] = codes
    return FloatMatrix(lines, columns, np.array(scale, np.float32), method, is_transposed)


def quantize_floats(w: npt.ArrayLike, method: str = "e4m3") -> FloatMatrix:
    """Round a float matrix to floats of eight bits, with a scale a row.

    The scale is max|w| of the row over the format's largest number, 448 or 57344 (Micikevicius et
    al., FP8 Formats for Deep Learning, arXiv 2209.05433, section 3), so that none is beyond it.
    w: (rows, columns), float16, float32 or float64, finite. method: "e4m3" or "e5m2".
    Raises TypeError and ValueError, naming the argument, for anything else.
    """
    weight = check_weights(w)
    if method not in METHODS:
        raise ValueError(f"method={method!r}: expected {' or '.join(METHODS)} with encoding 'fp8'")
    kind = fp8.FORMATS[method]
    scales = absmax_of(weight) / kind.most
    if not np.isfinite(scales).all():
        check_finite(weight)
    with np.errstate(over="ignore"):
        kept = np.where(scales > 0, np.maximum(scales, MIN_SCALE), 1.0).astype(np.float32)
    if not np.isfinite(kept).all():
        raise ValueError(f"w: method {method!r} gives a scale of {scales.max():g}, beyond float32")
    codes = np.empty(weight.shape, np.uint8)
    for part in pieces(weight):
        ratio = wide(weight[part]).astype(np.float64) / kept[part, None]
        codes[part] = fp8.encode(ratio, kind)
    return _from_state(codes, kept, method)
