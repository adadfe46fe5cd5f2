"""The public product: check, prepare the operand, run the kernel, give back what NumPy would."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ternops.encodings import ENCODINGS
from ternops.kernels.linear import RECORD, linear
from ternops.kernels.reference import quantize_rows
from ternops.kernels.table import useful_threads
from ternops.matrix import MOST_TERMS, TernaryMatrix
from ternops.quantize import LEAST_ABSMAX
from ternops.team import TEAM, check_threads

Array = npt.NDArray[Any]
_ONE = np.ones(1, np.float32)
_ROWS_AT_ONCE = 1 << 12
_DTYPES = (np.int8, np.float16, np.float32, np.float64)


def matmul(
    a: TernaryMatrix | npt.ArrayLike,
    b: TernaryMatrix | npt.ArrayLike,
    out: Array | None = None,
    threads: int | None = None,
) -> Array:
    """The matrix product of a TernaryMatrix and an array, in the shapes of `numpy.matmul`.

    a, b: one is a TernaryMatrix (a product of two is a TypeError), the other an array of int8,
    float16, float32 or float64, 1-D or more; leading dimensions of the array are a batch.
    out: an array for the result, which is returned. threads: at most so many (default: all).

    An int8 operand and a matrix without a scale give the exact int32. Otherwise the result is
    float32: a float operand is first quantised to int8, one absmax step a row (b1.58), which is
    a relative error of about 1/254 of the row's largest magnitude. A row of it that holds NaN or
    infinity gives NaN.

    ``x @ W.T`` and ``W @ x`` run on the kernels. ``x @ W`` and ``W.T @ x`` sum over the rows of W:
    they are right, but slower, as the matrix is unpacked block by block.

    Raises TypeError for other types and dtypes, ValueError for shapes that do not fit.
    """
    threads = check_threads(threads)
    if isinstance(a, TernaryMatrix):
        if isinstance(b, TernaryMatrix):
            raise TypeError("matmul: a and b are both TernaryMatrix, expected one of them an array")
        return _product(a, b, "b", False, out, threads)
    if isinstance(b, TernaryMatrix):
        return _product(b, a, "a", True, out, threads)
    raise TypeError(
        f"matmul: a is {type(a).__name__} and b is {type(b).__name__}, "
        "expected one of them a TernaryMatrix"
    )


def _product(
    matrix: TernaryMatrix, other: Any, name: str, on_right: bool, out: Array | None, threads: int
) -> Array:
    """``other @ matrix`` if on_right, else ``matrix @ other``."""
    x = np.asarray(other)
    if x.dtype not in _DTYPES:
        raise TypeError(
            f"matmul: {name} has dtype {x.dtype}, expected int8, float16, float32 or float64"
        )
    if x.ndim == 0:
        raise ValueError(f"matmul: {name} is a scalar, expected at least one dimension")
    outputs, terms = matrix.shape[::-1] if on_right else matrix.shape
    # The kernels take a row a token; the tokens of W @ X are the columns of X.
    swap = not on_right and x.ndim > 1
    if swap:
        x = x.swapaxes(-1, -2)
    if x.shape[-1] != terms:
        axis = -2 if swap else -1
        raise ValueError(
            f"matmul: {name} has shape {np.shape(other)}, expected {terms} on axis {axis} "
            f"for a matrix of shape {matrix.shape}"
        )
    batch = x.shape[:-1]
    scaled = matrix._scale is not None or x.dtype != np.int8
    dtype = np.float32 if scaled else np.int32
    shape = (*batch, outputs)
    natural = (*batch[:-1], outputs, batch[-1]) if swap else shape
    if out is not None:
        _check_out(out, natural, dtype)
    direct = out is not None and not swap and out.dtype == dtype and out.flags.carray
    result = out if direct and out is not None else np.empty(shape, dtype)
    tokens = x.reshape(int(np.prod(batch, dtype=np.int64)), terms)
    rows = result.reshape(len(tokens), outputs)
    if rows.size:
        if on_right == matrix._transposed:
            _along_rows(matrix, tokens, rows, scaled, threads)
        else:
            _along_columns(matrix, tokens, rows)
    if direct:
        return result
    if swap:
        result = result.swapaxes(-1, -2)
    if out is None:
        return result
    np.copyto(out, result, casting="same_kind")
    return out


def _check_out(out: Any, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
    if not isinstance(out, np.ndarray):
        raise TypeError(f"matmul: out is {type(out).__name__}, expected an array")
    if out.shape != shape:
        raise ValueError(f"matmul: out has shape {out.shape}, expected {shape}")
    if not np.can_cast(dtype, out.dtype, "same_kind"):
        raise TypeError(f"matmul: out has dtype {out.dtype}, expected {np.dtype(dtype)}")
    if not out.flags.writeable:
        raise ValueError("matmul: out is read-only, expected an array that can be written")


def _along_rows(
    matrix: TernaryMatrix, tokens: Array, result: Array, scaled: bool, threads: int
) -> None:
    """tokens (m, columns) times the packed rows: the kernels' direction."""
    tokens, exponents = _as_kernel_input(tokens)
    m, columns = tokens.shape
    layout = ENCODINGS[matrix.encoding]
    placed = np.empty(m * -(-columns // layout.BLOCK) * layout.BLOCK, np.int8)
    offsets = np.empty(m, np.int32)
    steps = np.empty(m, np.float32)
    record = np.empty((), RECORD)
    has_scale = matrix._scale is not None
    record[()] = (
        matrix._address,
        matrix._row_bytes,
        matrix._rows,
        columns,
        matrix._scale_address if has_scale else _ONE.ctypes.data,
        matrix._scale_step if scaled else -1,
        tokens.ctypes.data,
        tokens.dtype != np.int8,
        m,
        placed.ctypes.data,
        offsets.ctypes.data,
        steps.ctypes.data,
        result.ctypes.data,
    )
    TEAM.run(linear, record, useful_threads(threads, matrix._packed.nbytes * m))
    if exponents is not None:
        with np.errstate(over="ignore", under="ignore"):
            np.ldexp(result, exponents[:, None], out=result)


def _as_kernel_input(tokens: Array) -> tuple[Array, Array | None]:
    """int8 or float32, contiguous and aligned; float64 rows come with an exponent taken out."""
    exponents = None
    if tokens.dtype == np.float64:
        absmax = np.abs(tokens).max(axis=1, initial=0.0)
        exponents = np.frexp(np.where(np.isfinite(absmax), absmax, 0))[1]
        with np.errstate(over="ignore", under="ignore"):  # beside an infinity, which makes it NaN
            tokens = np.ldexp(tokens, -exponents[:, None]).astype(np.float32)
    elif tokens.dtype == np.float16:
        tokens = tokens.astype(np.float32)
    return np.require(tokens, requirements=["C", "A"]), exponents


def _along_columns(matrix: TernaryMatrix, tokens: Array, result: Array) -> None:
    """tokens (m, rows) times the unpacked matrix, a block of rows at a time."""
    if matrix._rows >= MOST_TERMS:
        raise ValueError(
            f"matmul: a sum over {matrix._rows} rows, expected fewer than {MOST_TERMS} (2**24)"
        )
    scale = matrix._scale
    if scale is not None and scale.ndim == 1:
        with np.errstate(invalid="ignore"):
            tokens = tokens * scale.astype(np.float64)
        scale = None
    exponents = step = None
    if tokens.dtype != np.int8:
        floats, exponents = _as_kernel_input(tokens)
        with np.errstate(invalid="ignore"):
            tokens, step = quantize_rows(floats, LEAST_ABSMAX)
    total = np.zeros(result.shape, np.int32)
    for first in range(0, matrix._rows, _ROWS_AT_ONCE):
        last = min(first + _ROWS_AT_ONCE, matrix._rows)
        # Exact in float32: no partial sum exceeds 128 * _ROWS_AT_ONCE, well below 2**24.
        part = tokens[:, first:last].astype(np.float32)
        trits = matrix._rows_of_trits(first, last).astype(np.float32)
        total += (part @ trits).astype(np.int32)
    if result.dtype == np.int32:
        result[...] = total
        return
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        np.multiply(total.astype(np.float32), np.float32(1) if scale is None else scale, out=result)
        if step is not None:
            result *= step[:, None]
        if exponents is not None:
            np.ldexp(result, exponents[:, None], out=result)
