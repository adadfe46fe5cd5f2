"""StackMatrix: a float matrix as residual blocks, of which any number is a matrix too."""

from __future__ import annotations

import operator
import os
from typing import Any

import numpy as np
import numpy.typing as npt

from ternops.kernels.stacked import MAX_RANK
from ternops.matrix import pack
from ternops.operators import Operators, as_tokens, filled, matmul
from ternops.packed import check_columns
from ternops.stacks.blocks import MAX_BLOCKS, SIGNS, PackedBlock, balanced
from ternops.stacks.decompose import decompose
from ternops.threads import check_threads

Array = npt.NDArray[Any]

#: As in the paper's models.
BLOCKS, RANK = 16, 16
# Floats of a batch of tokens, each scaled k times.
_FLOATS_AT_ONCE = 1 << 22


class StackMatrix(Operators):
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

    def __repr__(self) -> str:
        return (
            f"StackMatrix(shape={self.shape}, blocks={self.blocks}, rank={self.rank}, "
            f"bits_per_weight={self.bits_per_weight:.3f})"
        )

    def _times(
        self, other: Any, name: str, on_right: bool, out: Array | None, threads: int | None
    ) -> Array:
        """``other @ S`` if on_right, else ``S @ other``: float32.

        sum over blocks, then over k, of left_k * (signs @ (right_k * x)): each of them a product of
        int8, because right_k * x is quantised as any operand of `ternops.matmul` is, k rows to a
        token. right_k is multiplied by a power of two, and left_k divided by it, for the largest of
        |right_k| to be in [1, 2): what float16 holds of small weights is then not lost again.
        """
        check_threads(threads)
        x, is_swapped, outputs = as_tokens(other, name, on_right, self.shape)

        def fill(tokens: Array, result: Array) -> None:
            with np.errstate(over="ignore"):  # what float32 cannot hold makes a NaN of its token
                tokens = tokens.astype(np.float32)
            step = max(1, _FLOATS_AT_ONCE // max(1, self.rank * max(self.shape)))
            for at in range(0, len(tokens), step):
                rows = tokens[at : at + step]
                result[at : at + step] = self._product(rows, on_right, threads)

        return filled(x, is_swapped, outputs, np.dtype(np.float32), out, fill)

    def _product(self, tokens: Array, on_right: bool, threads: int | None) -> Array:
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
                sums = matmul(each.reshape(-1, each.shape[2]), signs.T, threads=threads)
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
