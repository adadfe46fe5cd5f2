"""What NumPy asks of matrices that are no arrays: operators, `numpy.matmul`, `numpy.asarray`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.array_utils import normalize_axis_tuple

from ternops.arrays import as_array, comes_first, is_array_like
from ternops.numpy_functions import NumpyFunctions, undefined

Array = npt.NDArray[Any]

#: Of the other operand.
DTYPES = frozenset(map(np.dtype, (np.int8, np.float16, np.float32, np.float64)))
#: What ``x @= W`` tells of its operands, for x of several dimensions and of one.
_INPLACE_AXES = ([(-2, -1)] * 3, [(-1,), (-2, -1), (-1,)])


class Operators(NumpyFunctions):
    """A matrix that is no array. What derives from it says what its bytes are and multiplies."""

    __slots__ = ()

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        raise NotImplementedError

    @property
    def T(self) -> Any:
        """The transpose."""
        raise NotImplementedError

    @property
    def nbytes(self) -> int:
        """Bytes of weights and scales, padding included."""
        raise NotImplementedError

    def to_dense(self) -> npt.NDArray[np.float32]:
        """The weights as a float32 array of this shape."""
        raise NotImplementedError

    def _times(
        self, other: Any, name: str, on_right: bool, out: Array | None, threads: int | None
    ) -> Array:
        """``other @ W`` if on_right, else ``W @ other``. name: of the argument `other`."""
        raise NotImplementedError

    @property
    def ndim(self) -> int:
        return 2

    @property
    def size(self) -> int:
        """The number of weights."""
        return math.prod(self.shape)

    @property
    def bits_per_weight(self) -> float:
        """8 * nbytes / size; nan for an empty matrix."""
        return 8 * self.nbytes / self.size if self.size else float("nan")

    def transpose(self, *axes: Any) -> Any:
        """`T`, or the matrix itself for the axes 0, 1; as `numpy.ndarray.transpose`."""
        given = axes[0] if len(axes) == 1 else axes
        order = (1, 0) if given in (None, ()) else normalize_axis_tuple(given, 2)
        if len(order) != 2:
            raise ValueError(f"axes={given!r}: expected 0 and 1 in either order")
        return self.T if order == (1, 0) else self

    def __matmul__(self, other: Any) -> Array:
        if comes_first(other):
            product: Array = type(other).__rmatmul__(other, self)
            if product is not NotImplemented:
                return product
        return matmul(self, other) if is_array_like(other) else NotImplemented

    def __rmatmul__(self, other: Any) -> Array:
        return matmul(other, self) if is_array_like(other) else NotImplemented

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        """``np.matmul`` is `ternops.matmul`, also that of ``x @= W.T``; any other ufunc, and any
        option of it but `out`, is a TypeError, unless another operand of it knows better."""
        given = (*inputs, *options.get("out", ()))
        is_product = ufunc is np.matmul and method == "__call__"
        if not is_product and any(map(_has_ufuncs_of_its_own, given)):
            return NotImplemented
        axes = options.get("axes", _INPLACE_AXES[0])
        if not is_product or set(options) - {"out", "axes"} or list(axes) not in _INPLACE_AXES:
            part = "" if method == "__call__" else f".{method}"
            also = ", ".join(sorted(set(options) - {"out"})) if is_product else ""
            name = f"numpy.{ufunc.__name__}{part}" + (f" with {also}" if also else "")
            raise undefined(name, next(each for each in given if isinstance(each, Operators)))
        left, right = inputs
        (out,) = options.get("out", (None,))
        return matmul(left, right, out)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        """``np.asarray(W)`` is `to_dense`, made anew each time: copy=True copies nothing further, a
        view is impossible, so that copy=False is an error."""
        if copy is False:
            raise ValueError(f"copy=False: a {type(self).__name__} has no dense array to share")
        return self.to_dense().astype(dtype or np.float32, copy=False)


def _has_ufuncs_of_its_own(value: Any) -> bool:
    found = getattr(type(value), "__array_ufunc__", np.ndarray.__array_ufunc__)
    return found not in (np.ndarray.__array_ufunc__, Operators.__array_ufunc__)


def matmul(
    a: Operators | npt.ArrayLike,
    b: Operators | npt.ArrayLike,
    out: Array | None = None,
    threads: int | None = None,
) -> Array:
    """The matrix product of a packed matrix and an array, in the shapes of `numpy.matmul`.

    a, b: one is what `quantize`, `pack`, `load`, `stack` or `delta` gives (a product of two is a
    TypeError), the other an array of int8, float16, float32 or float64, 1-D or more; leading
    dimensions of the array are a batch.
    out: an array for the result, which is returned. threads: how many, where the matrix is large
    enough for them (default: all usable CPUs, fewer while other processes keep them busy).

    An int8 operand and a TernaryMatrix without a scale give the exact int32. Otherwise the result
    is float32: a float operand is first quantised to int8, one absmax step a row (b1.58), which is
    a relative error of about 1/254 of the row's largest magnitude. A row of it that holds NaN or
    infinity gives NaN. A FloatMatrix takes floats as they are, in float32.

    With a scale a group of columns the sums of each group are exact, and one chain of fused
    multiply-adds takes them in the order of the groups.

    ``x @ W.T`` and ``W @ x`` run on the kernels. ``x @ W`` and ``W.T @ x`` sum over the rows of W,
    on kernels as well: of two_bit, base3 and one_bit as they are packed, or packed anew by columns
    for many tokens; of other encodings and levels packed by columns once, which is kept with the
    matrix and takes its bytes again. Of a FloatMatrix, and with a scale a group, they add up floats
    as they are, in float64.

    Raises TypeError for other types and dtypes, ValueError for shapes that do not fit.
    """
    if isinstance(a, Operators):
        if not isinstance(b, Operators):
            return a._times(b, "b", False, out, threads)
    elif isinstance(b, Operators):
        return b._times(a, "a", True, out, threads)
    raise TypeError(
        f"matmul: a is {type(a).__name__} and b is {type(b).__name__}, expected a packed matrix, "
        "as ternops.quantize gives, and an array"
    )


def as_tokens(
    other: Any, name: str, on_right: bool, shape: tuple[int, int]
) -> tuple[Array, bool, int]:
    """The operand of a product as kernels take it: its sums along the last axis; whether that was
    the last but one, as in ``W @ X``, whose tokens are columns of X; and the number of results.

    shape: the matrix's. Raises TypeError and ValueError, naming the argument, for what is no
    operand of it.
    """
    x = other if type(other) is np.ndarray else as_array(f"matmul: {name}", other)
    if x.dtype not in DTYPES:
        x = as_array(f"matmul: {name}", x)
    if x.dtype not in DTYPES:
        raise TypeError(
            f"matmul: {name} has dtype {x.dtype}, expected int8, float16, float32 or float64"
        )
    if x.ndim == 0:
        raise ValueError(f"matmul: {name} is a scalar, expected at least one dimension")
    terms, outputs = shape if on_right else shape[::-1]
    is_swapped = not on_right and x.ndim > 1
    if is_swapped:
        x = x.swapaxes(-1, -2)
    if x.shape[-1] != terms:
        turned = ", whose transpose (.T) fits" if x.shape[-1] == outputs else ""
        raise ValueError(
            f"matmul: {name} has shape {np.shape(other)}, expected {terms} on axis "
            f"{-2 if is_swapped else -1} for a matrix of shape {shape}{turned}"
        )
    return x, is_swapped, outputs


def filled(
    tokens: Array,
    is_swapped: bool,
    outputs: int,
    dtype: np.dtype[Any],
    out: Array | None,
    fill: Callable[[Array, Array], None],
) -> Array:
    """The result of a product, `out` where that is given, in the shape that NumPy has.

    tokens, is_swapped, outputs: of `as_tokens`. fill: is given tokens (m, terms) and contiguous
    rows (m, outputs) of the dtype, none of them empty, to write.
    """
    batch = tokens.shape[:-1]
    shape = (*batch, outputs)
    direct = False
    if out is not None:
        _check_out(out, (*batch[:-1], outputs, batch[-1]) if is_swapped else shape, dtype)
        direct = not is_swapped and out.dtype == dtype and out.flags.carray
    result = out if direct and out is not None else np.empty(shape, dtype)
    if result.size:
        count, terms = math.prod(batch), tokens.shape[-1]
        fill(
            tokens if tokens.ndim == 2 else tokens.reshape(count, terms),
            result if result.ndim == 2 else result.reshape(count, outputs),
        )
    if direct:
        return result
    if is_swapped:
        result = result.swapaxes(-1, -2)
    if out is None:
        return result
    np.copyto(out, result, casting="same_kind")
    return out


def _check_out(out: Any, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
    if not isinstance(out, np.ndarray) or isinstance(out, np.ma.MaskedArray):
        raise TypeError(f"matmul: out is {type(out).__name__}, expected a plain array")
    if out.shape != shape:
        raise ValueError(f"matmul: out has shape {out.shape}, expected {shape}")
    if out.dtype != dtype and not np.can_cast(dtype, out.dtype, "same_kind"):
        raise TypeError(f"matmul: out has dtype {out.dtype}, expected {np.dtype(dtype)}")
    if not out.flags.writeable:
        raise ValueError("matmul: out is read-only, expected an array that can be written")
