"""A residual block, its value and its factors: what everything here is defined by."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ternops.matrix import TernaryMatrix

Array = npt.NDArray[Any]

MAX_BLOCKS = 64
#: The encoding of signs.
SIGNS = "one_bit"


class Block(NamedTuple):
    """One residual block: int8 signs (rows, columns), -1 or 1, and float16 factors left (rows, k)
    and right (k, columns)."""

    signs: npt.NDArray[np.int8]
    left: npt.NDArray[np.float16]
    right: npt.NDArray[np.float16]

    @property
    def dense(self) -> npt.NDArray[np.float32]:
        """float32 (rows, columns), see `magnitudes`."""
        return np.where(self.signs > 0, 1, -1) * magnitudes(self.left, self.right)


def magnitudes(left: Array, right: Array) -> npt.NDArray[np.float32]:
    """left @ right in float32, from the first of k to the last.

    Products of float16 are exact in float32: it makes no difference whether they are fused with the
    sum, and these are the bits of every kernel.
    """
    total = np.zeros((len(left), right.shape[1]), np.float32)
    for column, row in zip(left.T.astype(np.float32), right.astype(np.float32), strict=True):
        total += column[:, None] * row
    return total


class PackedBlock(NamedTuple):
    """A `Block` with its signs packed, a bit each."""

    signs: TernaryMatrix
    left: npt.NDArray[np.float16]
    right: npt.NDArray[np.float16]

    @property
    def nbytes(self) -> int:
        """Of signs and factors, in memory."""
        return self.signs.nbytes + self.left.nbytes + self.right.nbytes

    @property
    def dense(self) -> npt.NDArray[np.float32]:
        return Block(self.signs.to_trits(), self.left, self.right).dense


def balanced(inner: Array, outer: Array) -> tuple[Array, Array]:
    """float32 factors (k, terms) and (k, outputs), a power of two moved from one to the other so
    that the largest magnitudes of the first are in [1, 2)."""
    inner, outer = inner.astype(np.float32), outer.astype(np.float32)
    largest = np.abs(inner).max(axis=1, initial=0.0)
    exponent = np.where(largest > 0, np.frexp(largest)[1] - 1, 0)[:, None]
    return np.ldexp(inner, -exponent), np.ldexp(outer, exponent)
