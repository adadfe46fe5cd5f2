"""A product as NumPy has it: check, prepare the operand, run the kernels, shape the result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ternops.absmean import MIN_ABSMAX
from ternops.encodings.blocks import Blocks
from ternops.encodings.common import SLACK
from ternops.kernels.call import Call
from ternops.kernels.linear import linear
from ternops.kernels.over_rows import sums_over_rows
from ternops.kernels.reference import quantize_rows
from ternops.kernels.transpose import transpose
from ternops.kernels.tuning import useful_threads
from ternops.operators import as_tokens, filled
from ternops.packed import Packed, in_bits, terms_limit
from ternops.scratch import address_of_array, give_back, take_scratch
from ternops.team import TEAM

Array = npt.NDArray[Any]
_ROWS_AT_ONCE = 1 << 12
#: Tokens that are multiplied one by one with rows that are summed up; for more of them the matrix
#: is packed anew by columns.
_FEW = 48
_INT8, _INT32, _FLOAT32 = np.dtype(np.int8), np.dtype(np.int32), np.dtype(np.float32)
_KERNEL_DTYPES = frozenset((_INT8, _FLOAT32))


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
    shape = (packed.columns, packed.rows) if transposed else (packed.rows, packed.columns)
    x, is_swapped, outputs = as_tokens(other, name, on_right, shape)
    scaled = packed.factors is not None or x.dtype != _INT8

    def fill(tokens: Array, rows: Array) -> None:
        if on_right == transposed:
            _along_rows(packed, tokens, rows, scaled, threads, adapts)
        else:
            _along_columns(packed, tokens, rows, threads)

    return filled(x, is_swapped, outputs, _FLOAT32 if scaled else _INT32, out, fill)


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
    x, out = address_of_array(tokens), address_of_array(result)
    multiply_at(call, nbytes * len(tokens), x, out, threads, adapts)


def multiply_at(call: Call, work_bytes: int, x: int, out: int, threads: int, adapts: bool) -> None:
    """`multiply`, for the addresses of arrays; work_bytes: of the weights, once a token."""
    used = threads if threads == 1 else useful_threads(threads, work_bytes)
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


def integer_sums(
    packed: Packed, tokens: npt.NDArray[np.int8], over_rows: bool, threads: int
) -> npt.NDArray[np.int32]:
    """int8 tokens (m, terms) times a matrix without groups, its scale aside: exact. Sums run over
    its rows, or along them."""
    if over_rows:
        _check_terms(packed)
    result = np.empty((len(tokens), packed.columns if over_rows else packed.rows), np.int32)
    if not result.size:
        return result
    if over_rows:
        _sum_rows(packed, tokens, result, threads)
    else:
        _along_rows(packed, tokens, result, False, threads, False)
    return result


def _check_terms(packed: Packed) -> None:
    limit = terms_limit(packed.levels)
    if packed.rows >= limit:
        raise ValueError(
            f"matmul: a sum over {packed.rows} rows, expected fewer than {limit}{in_bits(limit)}"
        )


def _along_columns(packed: Packed, tokens: Array, result: Array, threads: int) -> None:
    """tokens (m, rows) times the packed matrix, whose rows are summed up."""
    _check_terms(packed)
    if packed.group:
        sum_dense(packed.dense, tokens, result)
        # As everywhere; times 0 alone would make a NaN of an infinity.
        result[~np.isfinite(tokens).all(axis=1)] = np.nan
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
    total = result if result.dtype == np.int32 else np.empty(result.shape, np.int32)
    _sum_rows(packed, tokens, total, threads)
    if result is total:
        return
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        np.multiply(total.astype(np.float32), np.float32(1) if scale is None else scale, out=result)
        if step is not None:
            result *= step[:, None]
        if exponents is not None:
            np.ldexp(result, exponents[:, None], out=result)


def _sum_rows(packed: Packed, tokens: Array, total: Array, threads: int) -> None:
    """int8 tokens (m, rows) times the rows, without a scale."""
    layout = packed.layout
    if not isinstance(layout, Blocks):
        _along_rows(packed.by_columns(), tokens, total, False, threads, False)
    elif len(tokens) <= _FEW:
        used = useful_threads(threads, packed.bytes.nbytes * len(tokens))
        call = packed.call(1, False, False)
        sums_over_rows(packed.operand, call, tokens, total, used)
    else:
        turned = np.zeros(layout.nbytes(packed.columns, packed.rows) + SLACK, np.uint8)
        transpose(packed.operand, turned, threads)
        columns = Packed(turned, packed.columns, packed.rows, None, packed.encoding, packed.levels)
        _along_rows(columns, np.ascontiguousarray(tokens), total, False, threads, False)


def sum_dense(dense: Callable[[int, int], Array], tokens: Array, result: Array) -> None:
    """tokens (m, rows) times a matrix of floats, in float64; dense: rows [first, last) of it."""
    total = np.zeros(result.shape)
    with np.errstate(over="ignore", invalid="ignore"):
        for first in range(0, tokens.shape[1], _ROWS_AT_ONCE):
            last = min(first + _ROWS_AT_ONCE, tokens.shape[1])
            total += tokens[:, first:last].astype(np.float64) @ dense(first, last)
        result[...] = total
