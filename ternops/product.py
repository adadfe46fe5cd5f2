"""A product as NumPy has it: check, prepare the operand, run the kernels, shape the result."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ternops.absmean import MIN_ABSMAX
from ternops.arrays import as_array
from ternops.kernels.call import Call
from ternops.kernels.linear import linear
from ternops.kernels.reference import quantize_rows
from ternops.kernels.tuning import useful_threads
from ternops.packed import TERMS_LIMIT, Packed
from ternops.scratch import address_of_array, give_back, take_scratch
from ternops.team import TEAM

Array = npt.NDArray[Any]
_ROWS_AT_ONCE = 1 << 12
_INT8, _INT32, _FLOAT32 = np.dtype(np.int8), np.dtype(np.int32), np.dtype(np.float32)
_KERNEL_DTYPES = frozenset((_INT8, _FLOAT32))
_DTYPES = _KERNEL_DTYPES | {np.dtype(np.float16), np.dtype(np.float64)}


def product(
    packed: Packed,
    transposed: bool,
    other: Any,
    name: str,
    on_right: bool,
    out: Array | None,
    threads: int,
    adapts: bool,
) -> Array:
    """``other @ W`` if on_right, else ``W @ other``, for the matrix or its transpose.

    name: of the argument `other`. adapts: see `Team.run_at`.
    """
    x = other if type(other) is np.ndarray else as_array(f"matmul: {name}", other)
    if x.dtype not in _DTYPES:
        x = as_array(f"matmul: {name}", x)
    if x.dtype not in _DTYPES:
        raise TypeError(
            f"matmul: {name} has dtype {x.dtype}, expected int8, float16, float32 or float64"
        )
    if x.ndim == 0:
        raise ValueError(f"matmul: {name} is a scalar, expected at least one dimension")
    along_rows = on_right == transposed
    if along_rows:
        outputs, terms = packed.rows, packed.columns
    else:
        outputs, terms = packed.columns, packed.rows
    # The kernels take a row a token; the tokens of W @ X are the columns of X.
    swap = not on_right and x.ndim > 1
    if swap:
        x = x.swapaxes(-1, -2)
    if x.shape[-1] != terms:
        axis = -2 if swap else -1
        shape = (packed.columns, packed.rows) if transposed else (packed.rows, packed.columns)
        raise ValueError(
            f"matmul: {name} has shape {np.shape(other)}, expected {terms} on axis {axis} "
            f"for a matrix of shape {shape}"
        )
    batch = x.shape[:-1]
    count = math.prod(batch)
    scaled = packed.factors is not None or x.dtype != _INT8
    dtype = _FLOAT32 if scaled else _INT32
    shape = (*batch, outputs)
    direct = False
    if out is not None:
        _check_out(out, (*batch[:-1], outputs, batch[-1]) if swap else shape, dtype)
        direct = not swap and out.dtype == dtype and out.flags.carray
    result = out if direct and out is not None else np.empty(shape, dtype)
    if result.size:
        tokens = x if x.ndim == 2 else x.reshape(count, terms)
        rows = result if result.ndim == 2 else result.reshape(count, outputs)
        if along_rows:
            _along_rows(packed, tokens, rows, scaled, threads, adapts)
        else:
            _along_columns(packed, tokens, rows)
    if direct:
        return result
    if swap:
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


def _along_rows(
    packed: Packed, tokens: Array, result: Array, scaled: bool, threads: int, adapts: bool
) -> None:
    """tokens (m, columns) times the packed rows: the kernels' direction."""
    exponents = None
    if tokens.dtype not in _KERNEL_DTYPES or not tokens.flags.carray:
        tokens, exponents = _as_kernel_input(tokens)
    call = packed.call(len(tokens), tokens.dtype != _INT8, scaled)
    multiply(call, packed.bytes.nbytes, tokens, result, threads, adapts)
    if exponents is not None:
        with np.errstate(over="ignore", under="ignore"):
            np.ldexp(result, exponents[:, None], out=result)


def multiply(
    call: Call, nbytes: int, tokens: Array, result: Array, threads: int, adapts: bool = False
) -> None:
    """Run a call on arrays as kernels take them, (m, columns) and (m, rows).

    nbytes: of the weights, which tell with m how many threads are worth it. adapts: see
    `Team.run_at`.
    """
    used = threads if threads == 1 else useful_threads(threads, nbytes * len(tokens))
    x, out = address_of_array(tokens), address_of_array(result)
    work = take_scratch()
    call.write(work.record, x, out, work.reserve(call.memory_bytes(used)), used)
    TEAM.run_at(linear.address, work.address, used, call.fixed if adapts else None)
    give_back(work)


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


def _along_columns(packed: Packed, tokens: Array, result: Array) -> None:
    """tokens (m, rows) times the unpacked matrix, a block of rows at a time."""
    rows = packed.rows
    if rows >= TERMS_LIMIT:
        raise ValueError(
            f"matmul: a sum over {rows} rows, expected fewer than {TERMS_LIMIT} (2**24)"
        )
    if packed.group:
        _sum_dense(packed, tokens, result)
        return
    scale = packed.scale
    if scale is not None and scale.ndim == 1:
        with np.errstate(invalid="ignore"):
            tokens = tokens * scale.astype(np.float64)
        scale = None
    exponents = step = None
    if tokens.dtype != np.int8:
        floats, exponents = _as_kernel_input(tokens)
        with np.errstate(invalid="ignore"):
            tokens, step = quantize_rows(floats, MIN_ABSMAX)
    total = np.zeros(result.shape, np.int32)
    for first in range(0, rows, _ROWS_AT_ONCE):
        last = min(first + _ROWS_AT_ONCE, rows)
        # Exact in float32: no partial sum exceeds 128 * _ROWS_AT_ONCE, well below 2**24.
        part = tokens[:, first:last].astype(np.float32)
        values = packed.unpack(first, last).astype(np.float32)
        total += (part @ values).astype(np.int32)
    if result.dtype == np.int32:
        result[...] = total
        return
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        np.multiply(total.astype(np.float32), np.float32(1) if scale is None else scale, out=result)
        if step is not None:
            result *= step[:, None]
        if exponents is not None:
            np.ldexp(result, exponents[:, None], out=result)


def _sum_dense(packed: Packed, tokens: Array, result: Array) -> None:
    """The same with a scale a group: the sums are of floats, in float64."""
    total = np.zeros(result.shape)
    with np.errstate(over="ignore", invalid="ignore"):
        for first in range(0, packed.rows, _ROWS_AT_ONCE):
            last = min(first + _ROWS_AT_ONCE, packed.rows)
            total += tokens[:, first:last].astype(np.float64) @ packed.dense(first, last)
        # As everywhere; times 0 alone would make a NaN of an infinity.
        total[~np.isfinite(tokens).all(axis=1)] = np.nan
        result[...] = total
