"""Sign times rank k of what is left, again and again (BitStack, arXiv 2410.23918, section 3).

A residual R of W becomes sign(R) * (U @ V), where U @ V is the best rank k of |R|, and what that
leaves is the next residual. Magnitudes are all positive, so that little rank says most of them, and
a block is about one bit a weight. U has the square roots of the singular values, and so has V.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ternops.absmean import check_weights
from ternops.arrays import as_array, check_finite
from ternops.stacks.blocks import Block

Array = npt.NDArray[Any]

#: Of a norm of activations, beside their mean: what was never active is not lost altogether, and
#: its inverse is a float16.
MIN_ACTIVITY = 1e-4
#: Larger matrices have their first singular vectors from random projections.
MAX_EXACT_SIDE = 256
# Vectors more than are wanted, and passes over the matrix: the first singular value of magnitudes
# is far above the others, which are close together.
_SPARE, _PASSES = 8, 3


def decompose(
    w: npt.ArrayLike, blocks: int, rank: int, activations: npt.ArrayLike | None = None
) -> Iterator[Block]:
    """The first `blocks` residual blocks of a float matrix (rows, columns).

    activations: (samples, columns) of what the matrix is to be multiplied with. Its columns count
    as much as the activations' have length (section 3.1): W * s is decomposed, s being the norm of
    each over the mean of all, and V is divided by s again.
    A block's residual is what its float16 leave. Raises as `check_weights`; ValueError, naming the
    argument, for what float16 cannot hold and for activations of another shape.
    """
    weight = check_weights(w)
    check_finite("w", weight)
    scale = activity(activations, weight.shape[1])
    rest = weight.astype(np.float32) * scale
    inverse = 1 / scale
    for _ in range(blocks):
        signs = np.where(rest < 0, np.int8(-1), np.int8(1))
        left, right = low_rank(np.abs(rest), rank)
        with np.errstate(over="ignore", under="ignore"):
            halves = left.astype(np.float16), (right * inverse).astype(np.float16)
        if not all(np.isfinite(each).all() for each in halves):
            largest = np.abs(weight).max()
            raise ValueError(f"w: largest magnitude {largest}, whose factors exceed float16")
        block = Block(signs, *halves)
        rest -= block.dense * scale
        yield block


def activity(activations: npt.ArrayLike | None, columns: int) -> npt.NDArray[np.float32]:
    """The norm of each column over the mean of all, at least MIN_ACTIVITY; ones without any."""
    if activations is None:
        return np.ones(columns, np.float32)
    samples = as_array("activations", activations)
    if samples.dtype.kind != "f":
        raise TypeError(f"activations: dtype {samples.dtype}, expected floats")
    if samples.ndim != 2 or samples.shape[1] != columns:
        raise ValueError(f"activations: shape {samples.shape}, expected (samples, {columns})")
    norms = np.sqrt(np.square(samples, dtype=np.float64).sum(axis=0))
    if not np.isfinite(norms).all():
        raise ValueError("activations: NaN or infinity, expected finite numbers")
    if not norms.any():
        return np.ones(columns, np.float32)
    return np.maximum(norms / norms.mean(), MIN_ACTIVITY).astype(np.float32)


def low_rank(
    matrix: npt.NDArray[np.float32], rank: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Factors (rows, k) and (k, columns) of the best rank-k approximation, zeros where the matrix
    has fewer: exactly, or, for large ones, by random projections with some passes over the matrix
    (Halko, Martinsson and Tropp, 2011, algorithm 4.4), the same ones each time."""
    rows, columns = matrix.shape
    found = min(rank, rows, columns)
    if min(rows, columns) <= max(MAX_EXACT_SIDE, rank + _SPARE):
        u, values, v = np.linalg.svd(matrix, full_matrices=False)
    else:
        random = np.random.default_rng(0)
        basis = matrix @ random.standard_normal((columns, rank + _SPARE), np.float32)
        for _ in range(_PASSES):
            basis = np.linalg.qr(matrix @ (matrix.T @ np.linalg.qr(basis)[0]))[0]
        u, values, v = np.linalg.svd(basis.T @ matrix, full_matrices=False)
        u = basis @ u
    root = np.sqrt(values[:found])
    left, right = np.zeros((rows, rank), np.float32), np.zeros((rank, columns), np.float32)
    left[:, :found], right[:found] = u[:, :found] * root, root[:, None] * v[:found]
    return left, right
