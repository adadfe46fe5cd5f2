"""The public product: check, prepare the operand, run the kernel, give back what NumPy would."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ternops.absmean import MIN_ABSMAX
from ternops.arrays import as_array
from ternops.kernels.linear import linear
from ternops.kernels.operands import CHANGING, FIXED
from ternops.kernels.plan import Plan, kind_of, make_plan
from ternops.kernels.reference import quantize_rows
from ternops.kernels.tuning import useful_threads
from ternops.matrix import TERMS_LIMIT, Packed, TernaryMatrix
from ternops.team import TEAM
from ternops.threads import check_threads
from ternops.workspace import address_of_array, give_back, take_workspace

Array = npt.NDArray[Any]
_ROWS_AT_ONCE = 1 << 12
_INT8, _INT32, _FLOAT32 = np.dtype(np.int8), np.dtype(np.int32), np.dtype(np.float32)
_KERNEL_DTYPES = frozenset((_INT8, _FLOAT32))
_DTYPES = _KERNEL_DTYPES | {np.dtype(np.float16), np.dtype(np.float64)}


def matmul(
    a: TernaryMatrix | npt.ArrayLike,
    b: TernaryMatrix | npt.ArrayLike,
    out: Array | None = None,
    threads: int | None = None,
) -> Array:
    """The matrix product of a TernaryMatrix and an array, in the shapes of `numpy.matmul`.

    a, b: one is a TernaryMatrix (a product of two is a TypeError), the other an array of int8,
    float16, float32 or float64, 1-D or more; leading dimensions of the array are a batch.
    out: an array for the result, which is returned. threads: so many, where the matrix is large
    enough for them (default: all usable CPUs, fewer while other processes keep them busy).

    An int8 operand and a matrix without a scale give the exact int32. Otherwise the result is
    float32: a float operand is first quantised to int8, one absmax step a row (b1.58), which is
    a relative error of about 1/254 of the row's largest magnitude. A row of it that holds NaN or
    infinity gives NaN.

    ``x @ W.T`` and ``W @ x`` run on the kernels. ``x @ W`` and ``W.T @ x`` sum over the rows of W:
    they are right, but slower, as the matrix is unpacked block by block.

    Raises TypeError for other types and dtypes, ValueError for shapes that do not fit.
    """
    adapts = threads is None
    threads = check_threads(threads)
    if isinstance(a, TernaryMatrix):
        if isinstance(b, TernaryMatrix):
            raise TypeError("matmul: a and b are both TernaryMatrix, expected one of them an array")
        return _product(a, b, "b", False, out, threads, adapts)
    if isinstance(b, TernaryMatrix):
        return _product(b, a, "a", True, out, threads, adapts)
    raise TypeError(
        f"matmul: a is {type(a).__name__} and b is {type(b).__name__}, "
        "expected one of them a TernaryMatrix"
    )


def _product(
    matrix: TernaryMatrix,
    other: Any,
    name: str,
    on_right: bool,
    out: Array | None,
    threads: int,
    adapts: bool,
) -> Array:
    """``other @ matrix`` if on_right, else ``matrix @ other``; adapts: see `Team.run_at`."""
    x = other if type(other) is np.ndarray else as_array(f"matmul: {name}", other)
    if x.dtype not in _DTYPES:
        x = as_array(f"matmul: {name}", x)
    if x.dtype not in _DTYPES:
        raise TypeError(
            f"matmul: {name} has dtype {x.dtype}, expected int8, float16, float32 or float64"
        )
    if x.ndim == 0:
        raise ValueError(f"matmul: {name} is a scalar, expected at least one dimension")
    packed = matrix._packed
    along_rows = on_right == matrix._transposed
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
        raise ValueError(
            f"matmul: {name} has shape {np.shape(other)}, expected {terms} on axis {axis} "
            f"for a matrix of shape {matrix.shape}"
        )
    batch = x.shape[:-1]
    count = math.prod(batch)
    scaled = packed.scale is not None or x.dtype != _INT8
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
    m = len(tokens)
    is_float = tokens.dtype != _INT8
    plan, fixed = _fixed_part(packed, m, is_float, scaled)
    used = threads if threads == 1 else useful_threads(threads, packed.bytes.nbytes * m)
    if m > plan.max_tokens and np.may_share_memory(tokens, result):
        tokens = tokens.copy()  # or the first turn's results would overwrite later turns' tokens
    x, out = address_of_array(tokens), address_of_array(result)
    work = take_workspace()
    for first in range(0, m, plan.max_tokens):
        count = m
        if m > plan.max_tokens:
            count = min(plan.max_tokens, m - first)
            plan, fixed = _fixed_part(packed, count, is_float, scaled)
        prepared = -(-count // plan.token_step) * plan.token_step
        room = work.reserve(used * plan.scratch_bytes + prepared * (plan.placed_bytes + 8))
        placed = room + used * plan.scratch_bytes
        sums = placed + prepared * plan.placed_bytes
        work.record[: FIXED.size] = fixed
        CHANGING.pack_into(
            work.record, FIXED.size, x + first * packed.columns * tokens.itemsize,
            out + 4 * first * packed.rows, placed, sums, sums + 4 * prepared, room,
        )  # fmt: skip
        TEAM.run_at(linear.address, work.address, used, fixed if adapts else None)
    give_back(work)
    if exponents is not None:
        with np.errstate(over="ignore", under="ignore"):
            np.ldexp(result, exponents[:, None], out=result)


def _fixed_part(packed: Packed, tokens: int, is_float: bool, scaled: bool) -> tuple[Plan, bytes]:
    """The plan for so many tokens, and what an OPERANDS record begins with; the matrix keeps both.

    They belong to a matrix and not to a call, because each object that is touched costs time here.
    """
    key = (tokens, is_float, scaled)
    found: tuple[Plan, bytes] | None = packed.plans.get(key)
    if found is None:
        kind = kind_of(tokens, packed.bytes.nbytes)
        plan = make_plan(packed.encoding, packed.columns, kind)
        fixed = FIXED.pack(
            MIN_ABSMAX, plan.prepare, plan.multiply, plan.row_step, packed.address, plan.stride,
            packed.rows, packed.columns, plan.fields, packed.scale_address,
            packed.scale_step if scaled else -1, is_float, tokens, plan.placed_bytes, packed.rows,
            plan.scratch_bytes,
        )  # fmt: skip
        found = packed.plans[key] = plan, fixed
    return found


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
    rows, scale = matrix._packed.rows, matrix.scale
    if rows >= TERMS_LIMIT:
        raise ValueError(
            f"matmul: a sum over {rows} rows, expected fewer than {TERMS_LIMIT} (2**24)"
        )
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
