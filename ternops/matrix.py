"""TernaryMatrix: the packed operand that users hold, how it is made and multiplied."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal, overload

import numpy as np
import numpy.typing as npt

from ternops.absmean import check_weights
from ternops.arrays import as_array
from ternops.encodings import ENCODINGS
from ternops.encodings.encoding import check_values
from ternops.float_matrix import FloatMatrix, from_file, quantize_floats
from ternops.memory import Arena
from ternops.operators import Operators
from ternops.packed import (
    Packed,
    check_columns,
    check_encoding,
    check_group,
    check_scale,
    group_of,
    pack_values,
)
from ternops.quantizers import fp8
from ternops.simd.lock import LOCK
from ternops.threads import check_threads

Array = npt.NDArray[Any]


class TernaryMatrix(Operators):
    """An immutable matrix of -1, 0 and 1, or of a few other integers, its levels, packed, with an
    optional scale.

    Its value is ``to_trits() * scale``, a scale array counting along the packed rows, or along
    these and groups of columns. Made by `quantize`, `pack` and `load`. Products: ``W @ x``,
    ``x @ W.T`` and `ternops.matmul`.
    """

    __slots__ = ("_packed", "_transposed")

    def __init__(self, packed: Packed, transposed: bool = False) -> None:
        """For use by this package."""
        self._packed = packed
        self._transposed = transposed

    @property
    def encoding(self) -> str:
        """How the bytes are packed: a name of `ternops.encodings.ENCODINGS`."""
        return self._packed.encoding

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        p = self._packed
        return (p.columns, p.rows) if self._transposed else (p.rows, p.columns)

    @property
    def scale(self) -> np.float32 | npt.NDArray[Any] | None:
        """None, one float32, a float32 array with one a packed row, or an array (rows, groups).

        That is float16 where it has each of them exactly, else float32. Of ``W.T`` the packed rows
        are the columns.
        """
        scale = self._packed.scale
        return scale[()] if scale is not None and scale.ndim == 0 else scale

    @property
    def group(self) -> int | None:
        """How many weights of a packed row share a scale; None: all of a row, or of the matrix."""
        return self._packed.group or None

    @property
    def levels(self) -> tuple[int, ...]:
        """What a weight may be, before it is scaled: ascending integers."""
        return self._packed.levels

    @property
    def nbytes(self) -> int:
        """Bytes of packed weights and of the scale, padding included."""
        scale = self._packed.factors
        return self._packed.bytes.nbytes + (0 if scale is None else scale.nbytes)

    @property
    def T(self) -> TernaryMatrix:
        """The transpose: the same bytes, seen with rows and columns exchanged."""
        return TernaryMatrix(self._packed, not self._transposed)

    def __getitem__(self, key: Any) -> Any:
        """Some rows, ``W[:100]``, ``W[[3, 1]]`` or ``W[mask]``, or columns, ``W[:, key]``: a matrix
        of copies, packed as this one is. ``W[3]`` and ``W[:, 3]`` are float32 (columns,), (rows,).

        A key is one that NumPy has for an axis; IndexError, TypeError as there. With a scale a
        group of packed columns, these are taken in whole groups, or it is a ValueError.
        """
        from ternops.indexing import indexed

        found = indexed(self._packed, self._transposed, key)
        if isinstance(found, Packed):
            return TernaryMatrix(found, self._transposed)
        return found

    @classmethod
    def _concatenated(cls, matrices: Sequence[TernaryMatrix], axis: int) -> TernaryMatrix:
        """Matrices with the same encoding, one after another along the packed rows."""
        from ternops.indexing import concatenated

        sides = {each._transposed for each in matrices}
        if sides != {axis == 1}:
            raise ValueError(
                f"concatenate: axis={axis}, expected 0, and 1 for transposes: packed rows"
            )
        return cls(concatenated([each._packed for each in matrices]), axis == 1)

    @property
    def nonzero_count(self) -> int:
        """How many of `to_dense` are not 0."""
        from ternops.indexing import nonzero_count

        return nonzero_count(self._packed)

    def to_scipy(self) -> Any:
        """A `scipy.sparse.csr_array` of float32, of a transpose a csc_array: what of `to_dense` is
        not 0, in eight bytes each. Raises ImportError without SciPy."""
        from ternops.scipy import to_csr

        array = to_csr(self._packed)
        return array.T if self._transposed else array

    def as_linear_operator(self) -> Any:
        """A `scipy.sparse.linalg.LinearOperator`, float64, for solvers that need products of more
        digits than ``W @ x`` has: see `ternops.scipy`. Raises ImportError without SciPy."""
        from ternops.scipy import linear_operator

        return linear_operator(self._packed, self._transposed)

    @property
    def unscaled(self) -> TernaryMatrix:
        """The same bytes without the scale: int8 operands give exact int32 products."""
        p = self._packed
        if p.group:  # packed in another way
            return TernaryMatrix(p.repacked(p.encoding, None), self._transposed)
        unscaled = Packed(p.bytes, p.rows, p.columns, None, p.encoding, p.levels)
        return TernaryMatrix(unscaled, self._transposed)

    def to(self, encoding: str) -> TernaryMatrix:
        """The same matrix in another encoding, weight for weight; itself where it has that already.

        It has the other encoding's values for its levels, or keeps its own where these are not
        among them. Raises ValueError for an unknown encoding, and for a weight that it does not
        have.
        """
        p = self._packed
        name = check_encoding(encoding, p.rows, p.columns)
        if name == p.encoding:
            return self
        check_group(p.group or None, name, p.columns)
        other = ENCODINGS[name]
        levels = other.values
        if not set(p.levels) <= set(levels):
            if other.can_have(p.levels):
                levels = p.levels
            else:
                check_values("trits", p.unpack(), levels)
        return TernaryMatrix(p.repacked(name, p.factors, levels), self._transposed)

    def moved(self, arena: Arena) -> TernaryMatrix:
        """The same matrix with its bytes and its scales in an arena."""
        p = self._packed
        factors = None if p.factors is None else arena.copy(p.factors)
        packed = Packed(arena.copy(p.bytes), p.rows, p.columns, factors, p.encoding, p.levels)
        return TernaryMatrix(packed, self._transposed)

    def to_trits(self) -> npt.NDArray[np.int8]:
        """The trits as an int8 array of this shape."""
        trits = self._packed.unpack()
        return trits.T if self._transposed else trits

    def to_dense(self) -> npt.NDArray[np.float32]:
        """The weights as a float32 array of this shape: trits times scale."""
        dense = self._packed.dense()
        return dense.T if self._transposed else dense

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file, whole or not at all; `ternops.load` reads it.

        A symbolic link stays, and what it points to is written; so is a pipe or a device. Raises
        OSError for what cannot be written.
        """
        from ternops.matrix_file import fields_of, write

        p = self._packed
        write(path, *fields_of(p), (p.rows, p.columns), self._transposed)

    def _times(
        self, other: Any, name: str, on_right: bool, out: Array | None, threads: int | None
    ) -> Array:
        adapts = threads is None
        threads = check_threads(threads)
        return _product(self._packed, self._transposed, other, name, on_right, out, threads, adapts)

    def __reduce__(self) -> Any:
        # By value: addresses mean nothing in a copy or in another process.
        p = self._packed
        state = p.bytes, p.rows, p.columns, p.factors, p.encoding, p.levels
        return _from_state, (*state, self._transposed)

    def __repr__(self) -> str:
        factors = self._packed.factors
        if factors is None or factors.ndim == 0:
            scale = str(self.scale)
        elif self.group:
            scale = f"one for {self.group} {'rows' if self._transposed else 'columns'}"
        else:
            scale = f"one of {len(factors)} a {'column' if self._transposed else 'row'}"
        return (
            f"TernaryMatrix(shape={self.shape}, encoding={self.encoding!r}, scale={scale}, "
            f"bits_per_weight={self.bits_per_weight:.3f})"
        )


def _from_state(*state: Any) -> TernaryMatrix:
    *packed, transposed = state
    return TernaryMatrix(Packed(*packed), transposed)


@overload
def quantize(  # type: ignore[overload-overlap]
    w: npt.ArrayLike, encoding: Literal["fp8"], group: Literal["row"] | None = None,
    method: str | None = None, levels: None = None,
) -> FloatMatrix: ...  # fmt: skip


@overload
def quantize(  # type: ignore[overload-overlap]
    w: npt.ArrayLike, encoding: Literal["auto"] = "auto", group: Literal["row"] | None = None,
    *, method: Literal["e4m3", "e5m2"], levels: None = None,
) -> FloatMatrix: ...  # fmt: skip


@overload
def quantize(
    w: npt.ArrayLike, encoding: str = "auto", group: int | str | None = None,
    method: str | None = None, levels: int | Sequence[int] | None = None,
) -> TernaryMatrix: ...  # fmt: skip


def quantize(
    w: npt.ArrayLike,
    encoding: str = "auto",
    group: int | str | None = None,
    method: str | None = None,
    levels: int | Sequence[int] | None = None,
) -> TernaryMatrix | FloatMatrix:
    """Quantise a float matrix and pack it; by default as BitNet b1.58 does.

    w: (rows, columns), float16, float32 or float64, finite.
    encoding: a name of `ternops.encodings.ENCODINGS`, "fp8" for a FloatMatrix, or "auto" for the
    usual one of the method's levels, the best one here for ternary ones.
    group: 16, 32, 64, 128 or 256, for a scale of so many columns, or "row" for one a row, which
    fp8 always has; None for the method's own: one of the whole matrix for absmean and sign, one a
    row for most others.
    method: how scales and levels are found, a name of `ternops.quantizers.METHODS`; by default
    absmean: the scale is mean|w|, at least 1e-5, and trits are clip(round(w / scale), -1, 1). Of
    fp8 "e4m3" or "e5m2", see `ternops.float_matrix.quantize_floats`.
    levels: how many, where the method has a choice, or which, ascending.
    Raises TypeError and ValueError, naming the argument, for anything else.
    """
    from ternops.quantizers import choose
    from ternops.quantizers import quantize as rounded

    if encoding == fp8.ENCODING or (isinstance(method, str) and method in fp8.FORMATS):
        return quantize_floats(w, encoding, group, method, levels)
    weight = check_weights(w)
    rows, columns = weight.shape
    check_columns("w", columns)
    check_encoding(encoding, rows, columns, fp8.ENCODING)
    choice = choose(columns, encoding, group, method, levels)
    name = check_encoding(choice.encoding, rows, columns)
    check_group(choice.group if isinstance(choice.group, int) else None, name, columns)
    values, scale, found = rounded(weight, choice)
    if not ENCODINGS[name].can_have(found):  # it has all of them among its own
        found = ENCODINGS[name].values
    check_columns("w", columns, found)
    return TernaryMatrix(pack_values(values, check_scale(scale, rows, columns), name, found))


def pack(
    trits: npt.ArrayLike,
    scale: Any = None,
    encoding: str = "auto",
    levels: Sequence[int] | None = None,
) -> TernaryMatrix:
    """Pack an int8 matrix of -1, 0 and 1, or of other levels.

    trits: (rows, columns) int8. scale: None, a finite real number, one a row, shape (rows,), or one
    a group of 16, 32, 64, 128 or 256 columns, shape (rows, columns / group): not of tl1 and tl2,
    and kept in float16 where that has each of them.
    encoding: a name of `ternops.encodings.ENCODINGS`, or "auto" for the best ternary one here.
    levels: what the numbers may be, by default the encoding's values: ascending integers; of
    two_bit up to four and of three_bit up to eight that are all 1 or all 2 apart, of nibble any up
    to 16 from -127 to 127.
    Raises TypeError and ValueError, naming the argument, for anything else.
    """
    array = as_array("trits", trits)
    if array.dtype != np.int8:
        raise TypeError(
            f"trits: dtype {array.dtype}, expected int8: ternops.quantize(w) rounds floats, "
            "trits.astype(np.int8) takes whole numbers"
        )
    if array.ndim != 2:
        raise ValueError(f"trits: shape {array.shape}, expected two dimensions")
    name = check_encoding(encoding, *array.shape)
    record = ENCODINGS[name]
    found = record.values if levels is None else record.check_levels(levels)
    check_columns("trits", array.shape[1], found)
    check_values("trits", array, found)
    factors = check_scale(scale, *array.shape)
    check_group(group_of(factors, array.shape[1]) or None, name, array.shape[1])
    return TernaryMatrix(pack_values(array, factors, name, found))


def load(path: str | os.PathLike[str]) -> TernaryMatrix | FloatMatrix:
    """Read a file that `TernaryMatrix.save` or `FloatMatrix.save` wrote.

    Raises FileNotFoundError if it does not exist, ValueError, naming what is wrong, if it is cut
    off, damaged, or not such a file.
    """
    from ternops.matrix_file import Content, packed_of, read

    def restore(content: Content) -> TernaryMatrix | FloatMatrix:
        if content.metadata["encoding"] == fp8.ENCODING:
            return from_file(content)
        return TernaryMatrix(packed_of(content), content.transposed)

    return read(path, restore)


def _product(*arguments: Any) -> Array:
    """`ternops.product.product`, which takes this name when it is first called: the kernels need
    not be there before."""
    with LOCK:  # for whoever forks
        from ternops.product import product

    globals()["_product"] = product
    return product(*arguments)
