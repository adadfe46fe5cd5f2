"""FloatMatrix: weights as floats of eight bits, a baseline beside those of few levels."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ternops.absmean import check_weights
from ternops.memory import aligned_zeros
from ternops.operators import Operators, as_tokens, filled
from ternops.quantizers import fp8
from ternops.quantizers.method import MIN_SCALE, absmax_of, check_finite, pieces, wide
from ternops.simd.lock import LOCK
from ternops.threads import check_threads

if TYPE_CHECKING:  # kernels are imported with the first product
    from ternops.kernels.call import Operand
    from ternops.matrix_file import Content

Array = npt.NDArray[Any]

#: A format each, with a scale a row.
METHODS = tuple(fp8.FORMATS)


class FloatMatrix(Operators):
    """An immutable matrix of floats of eight bits, with a scale a row.

    Its value is ``decode(codes) * scale[:, None]``, see `ternops.quantizers.fp8`. Made by `load`,
    and by `quantize` with encoding "fp8". Products: ``W @ x``, ``x @ W.T`` and `ternops.matmul`,
    with activations in float32, which are not rounded further.
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

    encoding = fp8.ENCODING
    group = None

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        shape = (len(self._codes), self._columns)
        return shape[::-1] if self._is_transposed else shape

    @property
    def scale(self) -> npt.NDArray[np.float32]:
        """One a packed row."""
        return self._scale

    @property
    def nbytes(self) -> int:
        """Bytes of weights and scales, padding included."""
        return self._codes.nbytes + self._scale.nbytes

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
        dense = self._dense(0, len(self._codes))
        return dense.T if self._is_transposed else dense

    def _dense(self, first: int, last: int) -> npt.NDArray[np.float32]:
        """Of the packed rows [first, last)."""
        codes = self._codes[first:last, : self._columns]
        return fp8.decode(codes, fp8.FORMATS[self.method]) * self._scale[first:last, None]

    def to(self, encoding: str) -> FloatMatrix:
        """The matrix itself: no other encoding has floats. ValueError for another name."""
        if encoding != fp8.ENCODING:
            raise ValueError(
                f"encoding={encoding!r}: a FloatMatrix has floats, expected {fp8.ENCODING!r} "
                "(ternops.quantize rounds W.to_dense() to levels)"
            )
        return self

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file, whole or not at all; `ternops.load` reads it.

        Raises OSError for what cannot be written.
        """
        from ternops.matrix_file import write

        codes = np.ascontiguousarray(self.to_codes())
        tensors: dict[str, Array] = {"packed": codes, "scale": self._scale}
        fields = {"encoding": fp8.ENCODING, "method": self.method}
        write(path, tensors, fields, codes.shape, self._is_transposed)

    def _times(
        self, other: Any, name: str, on_right: bool, out: Array | None, threads: int | None
    ) -> Array:
        adapts = threads is None
        count = check_threads(threads)
        x, is_swapped, outputs = as_tokens(other, name, on_right, self.shape)
        with LOCK:  # for whoever forks
            from ternops.kernels.call import Call
            from ternops.product import multiply, sum_dense

        def fill(tokens: Array, result: Array) -> None:
            with np.errstate(over="ignore"):
                rows = np.require(tokens, np.float32, ["C", "A"])
            if on_right != self._is_transposed:
                sum_dense(self._dense, rows, result)
            elif self._columns:
                call = Call.of(self._operand(), len(rows))
                multiply(call, self._codes.nbytes, rows, result, count, adapts)
            else:
                result[...] = 0

        return filled(x, is_swapped, outputs, np.dtype(np.float32), out, fill)

    def _operand(self) -> Operand:
        """The same for kernels, whose direction is along the packed rows."""
        from ternops.kernels.call import Operand

        codes = self._codes
        scales = self._scale.ctypes.data
        return Operand(
            self.method, codes.ctypes.data, codes.nbytes, len(codes), self._columns, scales, 4
        )

    def __reduce__(self) -> Any:
        state = self._scale, self.method, self._is_transposed
        return of_codes, (np.ascontiguousarray(self.to_codes()), *state)

    def __repr__(self) -> str:
        return (
            f"FloatMatrix(shape={self.shape}, encoding='fp8', method={self.method!r}, "
            f"bits_per_weight={self.bits_per_weight:.3f})"
        )


def of_codes(
    codes: npt.NDArray[np.uint8], scale: npt.NDArray[np.float32], method: str,
    is_transposed: bool = False,
) -> FloatMatrix:  # fmt: skip
    """Of codes (rows, columns) of finite numbers and scales (rows,), both copied."""
    with LOCK:  # for whoever forks
        from ternops.kernels.plan import UNPACKED

    rows, columns = codes.shape
    lines = aligned_zeros((rows, UNPACKED[method].stride(columns)), np.uint8)
    lines[:, :columns] = codes
    return FloatMatrix(lines, columns, np.array(scale, np.float32), method, is_transposed)


def from_file(content: Content) -> FloatMatrix:
    """What `FloatMatrix.save` wrote; KeyError and ValueError for anything else."""
    tensors, metadata, shape, is_transposed = content
    codes, scale, method = tensors["packed"], tensors["scale"], metadata["method"]
    if method not in METHODS:
        raise ValueError(f"method {method!r}, expected {' or '.join(METHODS)}")
    if codes.shape != shape:
        raise ValueError(f"packed: shape {codes.shape}, expected {shape}")
    if scale.dtype != np.float32 or scale.shape != shape[:1]:
        raise ValueError(f"scale: {scale.dtype} {scale.shape}, expected float32 {shape[:1]}")
    if not np.isfinite(scale).all():
        raise ValueError("scale: not finite, expected finite numbers")
    # Kernels take the codes of NaN and infinity for numbers.
    if (codes & 0x7F).max(initial=0) > fp8.FORMATS[method].largest:
        raise ValueError("packed: holds NaN or infinity, expected finite numbers")
    return of_codes(codes, scale, method, is_transposed)


def quantize_floats(
    w: npt.ArrayLike, encoding: str = fp8.ENCODING, group: int | str | None = None,
    method: str | None = None, levels: Any = None,
) -> FloatMatrix:  # fmt: skip
    """Round a float matrix to floats of eight bits, with a scale a row.

    The scale is max|w| of the row over the format's largest number, 448 or 57344, so that none is
    beyond it: Micikevicius et al., FP8 Formats for Deep Learning, arXiv 2209.05433, which leaves it
    open what shares a scale.
    Arguments are those of `ternops.quantize`. method: "e4m3", by default, or "e5m2".
    Raises TypeError and ValueError, naming the argument, for anything else.
    """
    weight = check_weights(w)
    method = METHODS[0] if method is None else method
    if method not in METHODS:
        raise ValueError(
            f"method={method!r}: expected {' or '.join(METHODS)} with encoding {fp8.ENCODING!r}"
        )
    if encoding not in ("auto", fp8.ENCODING):
        raise ValueError(
            f"encoding={encoding!r}: cannot hold the floats of method {method!r}, "
            f"expected {fp8.ENCODING}"
        )
    if group not in (None, "row"):
        raise ValueError(
            f"group={group!r}: {fp8.ENCODING} has a scale a row, expected 'row' or None"
        )
    if levels is not None:
        raise ValueError(f"levels={levels!r}: {fp8.ENCODING} has floats, expected None")
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
    return of_codes(codes, kept, method)
