"""Packed matrices for SciPy: sparse arrays, and operators for its iterative solvers.

A solver (scipy.sparse.linalg.cg, lsqr, svds, ...) asks for products of a matrix as if it were
linear to the last digit. ``W @ x``, which rounds x to eight bits, is not; this operator splits x
into integers of eight bits, multiplies each with the trits on the kernels, whose sums are exact,
and adds the products up in float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ternops.arrays import as_array
from ternops.packed import Packed
from ternops.product import integer_sums, sum_dense
from ternops.threads import check_threads

Array = npt.NDArray[Any]

#: Integers of eight bits that hold a float64 of as large an exponent as its row's largest.
_DIGITS = 7
#: Bits of those: 2**54 is no more than 127 * (256**6 + ... + 1), and float64 has 53.
_BITS = 54


def to_csr(packed: Packed) -> Any:
    """scipy.sparse.csr_array of float32; indices are int32, or int64 from 2**31 values on."""
    sparse = _imported("scipy.sparse")
    counts, columns, values = [np.zeros(1, np.int64)], [], []
    for start, stop in packed.row_spans():
        dense = packed.dense(start, stop)
        where = dense != 0
        counts.append(where.sum(axis=1))
        columns.append(np.nonzero(where)[1].astype(np.int32))
        values.append(dense[where])
    pointers = np.cumsum(np.concatenate(counts))
    if pointers[-1] < 1 << 31:  # SciPy has indices as wide as these
        pointers = pointers.astype(np.int32)
    empty = np.empty(0, np.int32), np.empty(0, np.float32)
    indices, data = (
        np.concatenate([start, *each]) for start, each in zip(empty, (columns, values), strict=True)
    )
    shape = packed.rows, packed.columns
    return sparse.csr_array((data, indices, pointers), shape=shape)


def linear_operator(packed: Packed, transposed: bool) -> Any:
    """scipy.sparse.linalg.LinearOperator of float64: products of vectors and of matrices, and those
    of the transpose.

    Each is off by at most 2**-52 times the product of magnitudes, sum |w| max|x|, and a rounding of
    the scale. It reads the packed weights once for seven tokens of int8 a vector. With a scale a
    group the matrix is unpacked, some rows at a time, for a product in float64.
    """
    linalg = _imported("scipy.sparse.linalg")

    def times(over_rows: bool) -> Any:
        def multiply(x: Any) -> Array:
            columns = _real(x)
            tokens = columns.T if columns.ndim == 2 else columns[None]
            found = _product(packed, tokens, over_rows)
            return found.T if columns.ndim == 2 else found[0]

        return multiply

    forward, back = times(transposed), times(not transposed)
    shape = (packed.columns, packed.rows) if transposed else (packed.rows, packed.columns)
    return linalg.LinearOperator(
        shape, matvec=forward, rmatvec=back, matmat=forward, rmatmat=back, dtype=np.float64
    )


def _product(packed: Packed, tokens: Array, over_rows: bool) -> Array:
    """tokens (m, terms) times the packed matrix if over_rows, else its transpose: float64."""
    result = np.empty((len(tokens), packed.columns if over_rows else packed.rows))
    scale = packed.scale
    if packed.group:
        if over_rows:
            sum_dense(packed.dense, tokens, result)
        else:
            for start, stop in packed.row_spans():
                result[:, start:stop] = tokens @ packed.dense(start, stop).T.astype(np.float64)
        return result
    factors = np.float64(1) if scale is None else scale.astype(np.float64)
    if over_rows and factors.ndim:
        tokens, factors = tokens * factors, np.float64(1)
    return _digit_product(packed, tokens, over_rows) * factors


def _digit_product(packed: Packed, tokens: Array, over_rows: bool) -> Array:
    """The same without the scale, by digits to the base 256 from -128 to 127."""
    absmax = np.abs(tokens).max(axis=1, initial=0)
    is_finite = np.isfinite(absmax)
    exponents = np.frexp(np.where(is_finite, absmax, 0))[1][:, None]
    finite = np.where(is_finite[:, None], tokens, 0)
    left = np.rint(np.ldexp(finite, _BITS - exponents)).astype(np.int64)
    digits = np.empty((_DIGITS, *left.shape), np.int8)
    for digit in digits:
        digit[...] = left.astype(np.int8)  # the lowest eight bits, as a number from -128 to 127
        left = (left - digit) >> 8
    rows = digits.reshape(_DIGITS * len(tokens), left.shape[1])
    sums = integer_sums(packed, rows, over_rows, check_threads(None))
    total = np.zeros(())
    for part in sums.reshape(_DIGITS, len(tokens), sums.shape[1])[::-1]:
        total = total * 256 + part
    found = np.ldexp(total, exponents - _BITS)
    found[~is_finite] = np.nan
    return found


def _real(x: Any) -> Array:
    array = as_array("x", x)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"x: dtype {array.dtype}, expected real numbers")
    return array.astype(np.float64)


def _imported(name: str) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(f"{name}: {error}; SciPy is needed: pip install scipy") from None
