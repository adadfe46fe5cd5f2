"""BitDelta: a fine-tuned matrix as its base and one bit a weight (arXiv 2402.10193)."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ternops.absmean import check_weights
from ternops.arrays import as_array, check_finite
from ternops.encodings.one_bit import ONE_BIT
from ternops.half import HalfMatrix
from ternops.kernels.call import Call
from ternops.matrix import TernaryMatrix, pack
from ternops.operators import DTYPES, Operators, as_tokens, filled, matmul
from ternops.product import multiply
from ternops.threads import check_threads

Array = npt.NDArray[Any]
Base = TernaryMatrix | HalfMatrix

_ROWS_AT_ONCE = 1 << 22  # weights that are float32 at a time


class DeltaMatrix(Operators):
    """A fine-tuned matrix: base + alpha * signs, of which the base belongs to others as well.

    Made by `ternops.delta`. Products: ``D @ x``, ``x @ D.T``, `ternops.matmul_deltas`.
    """

    __slots__ = ("_base", "_signs", "_transposed")

    def __init__(self, base: Base, signs: TernaryMatrix, transposed: bool = False) -> None:
        """For use by this package."""
        self._base, self._signs, self._transposed = base, signs, transposed

    @property
    def base(self) -> Base:
        """What it is a fine-tune of: packed, or in two bytes a weight."""
        return self._base

    @property
    def signs(self) -> TernaryMatrix:
        """The difference: -1 and 1 in one bit each, with the scale `alpha`."""
        return self._signs

    @property
    def alpha(self) -> np.float32:
        """What the signs are multiplied by."""
        return np.float32(np.asarray(self._signs.scale))

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self._signs.shape
        return (columns, rows) if self._transposed else (rows, columns)

    @property
    def nbytes(self) -> int:
        """Bytes of the difference alone."""
        return self._signs.nbytes

    @property
    def T(self) -> DeltaMatrix:
        """The transpose: the same bytes, seen with rows and columns exchanged."""
        return DeltaMatrix(self._base, self._signs, not self._transposed)

    def to_dense(self) -> npt.NDArray[np.float32]:
        """base + alpha * signs in float32, of this shape."""
        dense = self._base.to_dense() + self._signs.to_dense()
        return dense.T if self._transposed else dense

    def _times(
        self, other: Any, name: str, on_right: bool, out: Array | None, threads: int | None
    ) -> Array:
        if on_right != self._transposed:
            given = "x @ D" if on_right else "D.T @ x"
            raise TypeError(f"matmul: {given}, expected x @ D.T or D @ x")
        x, is_swapped, outputs = as_tokens(other, name, on_right, self.shape)

        def fill(tokens: Array, result: Array) -> None:
            result[...] = matmul_deltas(tokens, [self], np.zeros(len(tokens), np.intp), threads)

        return filled(x, is_swapped, outputs, np.dtype(np.float32), out, fill)

    def __repr__(self) -> str:
        kind = "bf16" if isinstance(self._base, HalfMatrix) and self._base.is_bf16 else "fp16"
        kind = kind if isinstance(self._base, HalfMatrix) else self._base.encoding
        return f"DeltaMatrix(shape={self.shape}, base={kind!r}, alpha={self.alpha})"


def delta(
    base: TernaryMatrix | HalfMatrix | npt.ArrayLike,
    tuned: npt.ArrayLike,
    x: npt.ArrayLike | None = None,
) -> DeltaMatrix:
    """One bit a weight of what fine-tuning changed: alpha * sign(tuned - base) (arXiv 2402.10193,
    section 3.1), where sign(0) is -1, as in the paper.

    base: a TernaryMatrix; the base of another DeltaMatrix, which is then shared; or floats, finite,
    which are held in two bytes: bfloat16 where that has each of them, else float16, rounded. The
    difference is that to what is held. tuned: floats of the same shape, finite.
    alpha: mean|tuned - base|, which makes |tuned - base - alpha * signs| least. With activations x
    (tokens, columns) alpha makes the outputs' |x (tuned - base)^T - alpha * x signs^T| least: the
    distillation of one matrix, in closed form.
    Raises TypeError and ValueError, naming the argument, for anything else.
    """
    held = base if isinstance(base, TernaryMatrix | HalfMatrix) else half_of(base)
    if isinstance(held, TernaryMatrix) and held._transposed:
        raise ValueError("base: a transpose, expected the matrix itself")
    weight = _floats("tuned", tuned)
    if weight.shape != held.shape:
        raise ValueError(f"tuned: shape {weight.shape}, expected the base's {held.shape}")
    signs, alpha = split(held, weight)
    if x is not None:
        alpha = fitted_alpha(held, weight, signs, _check_activations(x, held.shape[1]))
    return DeltaMatrix(held, pack(signs, alpha, ONE_BIT.name))


def half_of(base: npt.ArrayLike) -> HalfMatrix:
    """Finite floats in two bytes a weight: bfloat16 where that has each of them and float16 has
    not, else rounded to float16; ValueError beyond its range."""
    weight = _floats("base", base)
    with np.errstate(over="ignore"):
        values = weight.astype(np.float32)
        is_half = np.array_equal(values.astype(np.float16).astype(np.float32), values)
    bits = values.view(np.uint32)
    if not is_half and not (bits & 0xFFFF).any():
        return HalfMatrix.from_bits((bits >> 16).astype(np.uint16), is_bf16=True)
    try:
        return HalfMatrix.from_floats(values)
    except ValueError:
        raise ValueError("base: a weight exceeds float16, expected at most 65504") from None


def split(base: Base, tuned: Array) -> tuple[npt.NDArray[np.int8], np.float32]:
    """int8 signs of tuned - base, and the mean magnitude of that, in float64."""
    signs = np.empty(base.shape, np.int8)
    total = 0.0
    for rows in _pieces(base):
        difference = _difference(base, tuned, rows)
        signs[rows] = np.where(difference > 0, np.int8(1), np.int8(-1))
        total += float(np.abs(difference).sum())
    return signs, np.float32(total / max(1, signs.size))


def fitted_alpha(base: Base, tuned: Array, signs: Array, x: Array) -> np.float32:
    """The least-squares alpha of x (tuned - base)^T = alpha * x signs^T, in float64; 0 where the
    activations tell nothing."""
    above = below = 0.0
    for rows in _pieces(base):
        with np.errstate(over="ignore"):
            outputs = x @ _difference(base, tuned, rows).T
            sums = x @ signs[rows].T.astype(np.float64)
            above += float((outputs * sums).sum())
            below += float((sums * sums).sum())
    if not np.isfinite((above, below)).all():
        raise ValueError("x: sums of squares beyond float64, expected smaller activations")
    return np.float32(above / below if below else 0.0)


def matmul_deltas(
    x: npt.ArrayLike,
    deltas: Sequence[DeltaMatrix],
    index: npt.ArrayLike,
    threads: int | None = None,
) -> npt.NDArray[np.float32]:
    """float32 (tokens, rows): x times the transposed matrices, of which each token has its own.

    x: (tokens, columns), int8 or floats. deltas: of one base. index: which of them each
    token meets, -1 for the base alone. The base is read once for all tokens, and each difference
    for the tokens that have it.

    A result is one addition of two float32: the product with the base, as `ternops.matmul` has it
    (of two bytes a weight: activations as they are, sums in the order of
    `ternops.kernels.reference.dot`; int32 sums are rounded), and `ternops.matmul` of the signs.
    float64 is rounded to float32 first.
    Raises TypeError and ValueError, naming the argument, for anything else.
    """
    count = check_threads(threads)
    base = _check_deltas(deltas)
    tokens = as_array("x", x)
    if tokens.dtype not in DTYPES:
        raise TypeError(f"x: dtype {tokens.dtype}, expected int8, float16, float32 or float64")
    if tokens.ndim != 2 or tokens.shape[1] != base.shape[1]:
        raise ValueError(f"x: shape {tokens.shape}, expected (tokens, {base.shape[1]})")
    if tokens.dtype != np.int8:
        with np.errstate(over="ignore", under="ignore"):
            tokens = tokens.astype(np.float32)
    tokens = np.require(tokens, requirements=["C", "A"])
    which = _check_index(index, len(tokens), len(deltas))
    if isinstance(base, HalfMatrix):
        result = half_product(base, tokens.astype(np.float32, copy=False), count)
    else:
        result = matmul(tokens, base.T, threads=threads).astype(np.float32, copy=False)
    for number in np.unique(which[which >= 0]):
        mine = which == number
        whole = mine.all()
        part = matmul(tokens if whole else tokens[mine], deltas[number].signs.T, threads=threads)
        with np.errstate(over="ignore", invalid="ignore"):
            result[slice(None) if whole else mine] += part
    return result


def half_product(matrix: HalfMatrix, x: Array, threads: int) -> npt.NDArray[np.float32]:
    """float32 (tokens, columns) times the transposed matrix, sums as `reference.dot`."""
    result = np.empty((len(x), matrix.shape[0]), np.float32)
    if not result.size:
        return result
    multiply(Call.of(matrix.operand, len(x)), matrix.nbytes, x, result, threads)
    return result


def _check_deltas(deltas: Sequence[DeltaMatrix]) -> Base:
    if not len(deltas):
        raise ValueError("deltas: empty, expected at least one DeltaMatrix")
    for number, each in enumerate(deltas):
        if not isinstance(each, DeltaMatrix):
            raise TypeError(f"deltas[{number}]: {type(each).__name__}, expected a DeltaMatrix")
        if each.base is not deltas[0].base:
            raise ValueError(
                f"deltas[{number}]: of another base than deltas[0], expected one that all share"
            )
    return deltas[0].base


def _check_index(index: npt.ArrayLike, tokens: int, deltas: int) -> npt.NDArray[np.intp]:
    which = as_array("index", index)
    if which.dtype.kind not in "iu" and which.size:
        raise TypeError(f"index: dtype {which.dtype}, expected integers")
    if which.shape != (tokens,):
        raise ValueError(f"index: shape {which.shape}, expected one for each of {tokens} tokens")
    for at in np.flatnonzero((which < -1) | (which >= deltas))[:1]:
        found = operator.index(which[at])
        raise ValueError(f"index[{at}]: {found}, expected -1 (the base) to {deltas - 1}")
    return which.astype(np.intp)


def _check_activations(x: npt.ArrayLike, columns: int) -> npt.NDArray[np.float64]:
    values = as_array("x", x)
    if values.dtype not in DTYPES:
        raise TypeError(f"x: dtype {values.dtype}, expected int8, float16, float32 or float64")
    if values.ndim != 2 or values.shape[1] != columns or not len(values):
        raise ValueError(f"x: shape {values.shape}, expected (tokens, {columns}), at least a token")
    check_finite("x", values)
    return values.astype(np.float64)


def _floats(name: str, value: npt.ArrayLike) -> Array:
    """A finite matrix of floats; raises TypeError and ValueError, naming the argument."""
    try:
        weight = check_weights(value)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}{str(error).removeprefix('w')}") from None
    check_finite(name, weight)
    return weight


def _pieces(base: Base) -> list[slice]:
    rows, columns = base.shape
    step = max(1, _ROWS_AT_ONCE // max(1, columns))
    return [slice(start, start + step) for start in range(0, rows, step)]


def _difference(base: Base, tuned: Array, rows: slice) -> npt.NDArray[np.float64]:
    if isinstance(base, HalfMatrix):
        held = base.to_dense(rows)
    else:
        held = base._packed.dense(rows.start, min(rows.stop, base.shape[0]))
    return tuned[rows].astype(np.float64) - held
