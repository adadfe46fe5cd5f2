"""StackMatrix: a float matrix as residual blocks, of which any number is a matrix too."""

from __future__ import annotations

import math
import operator
import os
from typing import Any

import numpy as np
import numpy.typing as npt

from ternops.arrays import as_array, comes_first, is_array_like
from ternops.kernels.stacked import MAX_RANK
from ternops.matrix import TernaryMatrix, matmul, pack
from ternops.packed import check_columns
from ternops.stacks.blocks import MAX_BLOCKS, SIGNS, PackedBlock, balanced
from ternops.stacks.decompose import decompose

Array = npt.NDArray[Any]

#: As in the paper's models.
BLOCKS, RANK = 16, 16
# Floats of a batch of tokens, each scaled k times.
_FLOATS_AT_ONCE = 1 << 22
_DTYPES = ("int8", "float16", "float32", "float64")


class StackMatrix:
    """An immutable float matrix: a sum of blocks, each of them signs times a product of rank k.

    The first blocks matter most: `limited` has as many of them as there is memory for. Made by
    `ternops.stack` and `StackMatrix.load`. Products: ``S @ x`` and ``x @ S.T``.
    """

    __slots__ = ("_blocks", "_shape", "_transposed")

    def __init__(
        self, blocks: tuple[PackedBlock, ...], shape: tuple[int, int], transposed: bool = False
    ) -> None:
        """For use by this package; shape: that of the blocks."""
        self._blocks, self._shape, self._transposed = blocks, shape, transposed

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self._shape[::-1] if self._transposed else self._shape

    @property
    def ndim(self) -> int:
        return 2

    @property
    def size(self) -> int:
        """The number of weights."""
        return math.prod(self._shape)

    @property
    def blocks(self) -> int:
        """How many blocks there are."""
        return len(self._blocks)

    @property
    def rank(self) -> int:
        """k of the factors' (rows, k) and (k, columns); 0 without a block."""
        return len(self._blocks[0].right) if self._blocks else 0

    @property
    def nbytes(self) -> int:
        """Bytes of all blocks: signs, their padding, and factors."""
        return sum(each.nbytes for each in self._blocks)

    @property
    def bits_per_weight(self) -> float:
        """8 * nbytes / size; nan for an empty matrix."""
        return 8 * self.nbytes / self.size if self.size else float("nan")

    @property
    def T(self) -> StackMatrix:
        """The transpose: the same blocks, seen with rows and columns exchanged."""
        return StackMatrix(self._blocks, self._shape, not self._transposed)

    def limited(self, nbytes: int) -> StackMatrix:
        """As many of the first blocks as take at most this many bytes; they are shared, not copied.

        Raises ValueError where not even one fits.
        """
        limit = operator.index(nbytes)
        total = 0
        for count, block in enumerate(self._blocks):
            total += block.nbytes
            if total > limit:
                return self._first(count, limit)
        return self

    def _first(self, count: int, limit: int) -> StackMatrix:
        if count == 0:
            least = self._blocks[0].nbytes
            raise ValueError(f"nbytes={limit}: expected {least} at least, which one block takes")
        return StackMatrix(self._blocks[:count], self._shape, self._transposed)

    def to_dense(self) -> npt.NDArray[np.float32]:
        """float32 of this shape: the blocks added up in their order, see `magnitudes`."""
        total = np.zeros(self._shape, np.float32)
        for block in self._blocks:
            total += block.dense
        return total.T if self._transposed else total

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file, whole or not at all; `StackMatrix.load` reads it.

        Raises OSError for what cannot be written.
        """
        from ternops.stacks.matrix_file import write

        write(path, self._blocks, self._shape, self._transposed)

    @staticmethod
    def load(path: str | os.PathLike[str], nbytes: int | None = None) -> StackMatrix:
        """Read a file that `save` wrote; nbytes: no more blocks than take so many bytes are read.

        Raises FileNotFoundError if it does not exist, ValueError, naming what is wrong, if it is
        cut off, damaged, or not such a file, and where not even one block fits.
        """
        from ternops.stacks.matrix_file import read

        return StackMatrix(*read(path, None if nbytes is None else operator.index(nbytes)))

    def __matmul__(self, other: Any) -> Array:
        if comes_first(other):
            product: Array = type(other).__rmatmul__(other, self)
            if product is not NotImplemented:
                return product
        return self._times(other, False) if is_array_like(other) else NotImplemented

    def __rmatmul__(self, other: Any) -> Array:
        return self._times(other, True) if is_array_like(other) else NotImplemented

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        """``np.matmul`` of two operands; no other ufunc is defined (a TypeError)."""
        if ufunc is not np.matmul or method != "__call__" or options:
            return NotImplemented
        left, right = inputs
        return self._times(right, False) if left is self else self._times(left, True)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        """``np.asarray(S)`` is `to_dense`; a view is impossible, so copy=False is an error."""
        if copy is False:
            raise ValueError("copy=False: a StackMatrix has no dense array to share")
        return self.to_dense().astype(dtype or np.float32, copy=False)

    def __repr__(self) -> str:
        return (
            f"StackMatrix(shape={self.shape}, blocks={self.blocks}, rank={self.rank}, "
            f"bits_per_weight={self.bits_per_weight:.3f})"
        )

    def _times(self, other: Any, on_right: bool) -> Array:
        """``other @ S`` if on_right, else ``S @ other``: float32.

        sum over blocks, then over k, of left_k * (signs @ (right_k * x)): each of them a product of
        int8, because right_k * x is quantised as any operand of `ternops.matmul` is, k rows to a
        token. right_k is multiplied by a power of two, and left_k divided by it, for the largest of
        |right_k| to be in [1, 2): what float16 holds of small weights is then not lost again.
        """
        if isinstance(other, StackMatrix | TernaryMatrix):
            raise TypeError("matmul: both operands are packed, expected one of them an array")
        x = as_array("matmul: operand", other)
        if x.dtype.name not in _DTYPES:
            raise TypeError(f"matmul: operand of dtype {x.dtype}, expected {' or '.join(_DTYPES)}")
        if x.ndim == 0:
            raise ValueError("matmul: operand is a scalar, expected at least one dimension")
        swap = not on_right and x.ndim > 1
        if swap:
            x = x.swapaxes(-1, -2)
        outputs, terms = self.shape[::-1] if on_right else self.shape
        if x.shape[-1] != terms:
            raise ValueError(
                f"matmul: operand of shape {np.shape(other)}, expected {terms} on axis "
                f"{-2 if swap else -1} for a matrix of shape {self.shape}"
            )
        with np.errstate(over="ignore"):  # what float32 cannot hold makes a NaN of its token
            tokens = x.reshape(math.prod(x.shape[:-1]), terms).astype(np.float32)
        result = np.empty((len(tokens), outputs), np.float32)
        step = max(1, _FLOATS_AT_ONCE // max(1, self.rank * max(terms, outputs)))
        for at in range(0, len(tokens), step):
            result[at : at + step] = self._product(tokens[at : at + step], on_right)
        result = result.reshape(*x.shape[:-1], outputs)
        return result.swapaxes(-1, -2) if swap else result

    def _product(self, tokens: Array, on_right: bool) -> Array:
        along_rows = on_right == self._transposed
        total = np.zeros((len(tokens), self._shape[0 if along_rows else 1]), np.float32)
        for block in self._blocks:
            outer, inner = block.left.T, block.right
            signs = block.signs
            if not along_rows:
                outer, inner, signs = inner, outer, signs.T
            scaled, factors = balanced(inner, outer)
            with np.errstate(over="ignore", invalid="ignore"):
                each = tokens[:, None] * scaled
                sums = matmul(each.reshape(-1, each.shape[2]), signs.T)
                sums = sums.reshape(len(tokens), -1, sums.shape[1])
                for k, factor in enumerate(factors):
                    total += factor * sums[:, k]
        return total


def stack(
    w: npt.ArrayLike,
    blocks: int = BLOCKS,
    rank: int = RANK,
    activations: npt.ArrayLike | None = None,
) -> StackMatrix:
    """Decompose a float matrix into residual blocks (BitStack, arXiv 2410.23918, section 3).

    w: (rows, columns), float16, float32 or float64, finite. blocks: how many, 1 to 64. rank: k of
    their factors, 1 to 256; a block takes 1 + 16 k (rows + columns) / (rows columns) bits a weight.
    activations: (samples, columns) that the matrix is to be multiplied with, whose columns then
    count as much as they have length.
    Raises TypeError and ValueError, naming the argument, for anything else.
    """
    check_counts(blocks, rank)
    found = [
        PackedBlock(pack(block.signs, encoding=SIGNS), block.left, block.right)
        for block in decompose(w, int(blocks), int(rank), activations)
    ]
    rows, columns = found[0].signs.shape
    check_columns("w", columns)
    return StackMatrix(tuple(found), (rows, columns))


def check_counts(blocks: int, rank: int) -> None:
    """Raise TypeError and ValueError, naming the argument, for what `stack` does not take."""
    for name, value, most in (("blocks", blocks, MAX_BLOCKS), ("rank", rank, MAX_RANK)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise TypeError(f"{name}={value!r}: expected an integer")
        if not 1 <= value <= most:
            raise ValueError(f"{name}={value!r}: expected 1 to {most}")
