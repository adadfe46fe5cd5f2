"""NumPy's functions of packed matrices: those that are a product, or that need no values."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ternops.arrays import as_array

Array = npt.NDArray[Any]


class NumpyFunctions:
    """What a matrix that is no array has of NumPy's functions (NEP 18); its operators are products
    in the shapes of `numpy.matmul`.

    ``numpy.dot`` and ``numpy.einsum`` are products with an array; ``numpy.concatenate``,
    ``transpose``, ``count_nonzero``, ``shape``, ``ndim`` and ``size`` are those of the matrix. Any
    other function is a TypeError: it would unpack the matrix unsaid.
    """

    __slots__ = ()

    def __array_function__(
        self, function: Any, types: Any, arguments: tuple[Any, ...], options: dict[str, Any]
    ) -> Any:
        if not all(issubclass(each, np.ndarray | NumpyFunctions) for each in types):
            return NotImplemented
        call = _FUNCTIONS.get(function)
        if call is None:
            raise undefined(f"{function.__module__}.{function.__name__}", self)
        return call(*arguments, **options)


def undefined(name: str, matrix: Any) -> TypeError:
    """The error of a function that there is none of for a matrix."""
    return TypeError(
        f"{name}: not defined for a {type(matrix).__name__}, expected an array: "
        "numpy.asarray(W) has its values"
    )


def _dot(a: Any, b: Any, out: Array | None = None) -> Any:
    product: Array = np.matmul(a, b) if out is None else np.matmul(a, b, out=out)
    # numpy.dot has the rows of the first operand before the batch of the second.
    if isinstance(a, NumpyFunctions) and product.ndim > 2:
        if out is not None:
            raise TypeError("dot: out with a batch of matrices, expected numpy.matmul")
        return np.moveaxis(product, -2, 0)
    return product


def _concatenate(arrays: Sequence[Any], axis: int | None = 0, **options: Any) -> Any:
    if given := [name for name, value in options.items() if value is not None]:
        raise TypeError(f"concatenate: {given[0]}, expected none of packed matrices")
    kind = next(type(each) for each in arrays if isinstance(each, NumpyFunctions))
    for number, each in enumerate(arrays):
        if type(each) is not kind:
            raise TypeError(
                f"concatenate: arrays[{number}] is {type(each).__name__}, expected {kind.__name__} "
                "throughout: ternops.quantize and ternops.pack make one, numpy.asarray an array"
            )
    join = getattr(kind, "_concatenated", None)
    if join is None:
        raise undefined("numpy.concatenate", arrays[0])
    if axis is None:
        raise TypeError("concatenate: axis=None, expected 0, along which rows follow one another")
    if axis not in (-2, -1, 0, 1):
        raise np.exceptions.AxisError(axis, 2)
    return join(arrays, axis % 2)


def _count_nonzero(a: Any, axis: Any = None, *, keepdims: bool = False) -> int:
    if axis is not None or keepdims or not hasattr(type(a), "nonzero_count"):
        raise undefined("numpy.count_nonzero" + (" with an axis" if axis is not None else ""), a)
    count: int = a.nonzero_count
    return count


def _of_shape(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function of an array of this shape."""

    def call(a: Any, *arguments: Any, **options: Any) -> Any:
        return function(np.broadcast_to(np.int8(0), a.shape), *arguments, **options)

    return call


_LABELS = re.compile(r"[A-Za-z]*(\.\.\.)?[A-Za-z]*")


def _einsum(*operands: Any, out: Array | None = None, optimize: Any = None, **options: Any) -> Any:
    """A product over the one label that a matrix and an array share. optimize: nothing to."""
    if options:
        raise TypeError(f"einsum: {next(iter(options))}, expected none with a packed matrix")
    if len(operands) != 3 or not isinstance(operands[0], str):
        raise TypeError(
            "einsum: expected a string, a packed matrix and an array, as in "
            "numpy.einsum('bj,ij->bi', x, W)"
        )
    subscripts, *pair = operands
    first, second = (isinstance(each, NumpyFunctions) for each in pair)
    if first == second:
        raise TypeError("einsum: two packed matrices, expected a packed matrix and an array")
    matrix, other = pair if first else pair[::-1]
    x = as_array("einsum: an operand", other)
    labels = _labels(subscripts, (2, x.ndim) if first else (x.ndim, 2))
    mine, others = labels[:2] if first else labels[1::-1]
    shared = [each for each in mine if each in others]
    kept = [each for each in (*others, *mine) if each not in shared]
    if len(shared) != 1 or len(set(kept)) != x.ndim or sorted(labels[2]) != sorted(kept):
        raise TypeError(
            f"einsum: {subscripts!r} is no product of a matrix and an array over one label, "
            "expected one, as 'bj,ij->bi': numpy.asarray(W) has its values"
        )
    along, side = others.index(shared[0]), mine.index(shared[0])
    if x.shape[along] != matrix.shape[side]:
        raise ValueError(
            f"einsum: the label {shared[0]!r} of {subscripts!r} has the sizes {matrix.shape[side]} "
            f"and {x.shape[along]}"
        )
    found = np.moveaxis(x, along, -1) @ (matrix.T if side else matrix)
    found = found.transpose([kept.index(each) for each in labels[2]])
    if out is None:
        return found
    if type(out) is not np.ndarray or out.shape != found.shape:
        raise ValueError(f"einsum: out, expected a plain array of shape {found.shape}")
    np.copyto(out, found, casting="same_kind")
    return out


def _labels(subscripts: str, dimensions: tuple[int, int]) -> list[list[str]]:
    """The labels of two operands and of the result, a batch in the place of "..."."""
    text = subscripts.replace(" ", "")
    inputs, arrow, result = text.partition("->")
    parts = inputs.split(",")
    if len(parts) != 2 or not all(map(_LABELS.fullmatch, (*parts, result))):
        raise ValueError(f"einsum: subscripts {subscripts!r}, expected such as 'bj,ij->bi'")
    batch: list[str] = []
    found = []
    for part, size in zip(parts, dimensions, strict=True):
        names = part.replace("...", "")
        if len(names) > size or (len(names) < size and names == part):
            raise ValueError(
                f"einsum: {part!r} of {subscripts!r} for an operand of {size} dimensions"
            )
        more = [str(each) for each in range(size - len(names))]
        batch = max(batch, more, key=len)
        found.append(_expanded(part, more))
    if arrow:
        return [*found, _expanded(result, batch)]
    once = [each for each in text if each.isalpha() and text.count(each) == 1]
    return [*found, [*batch, *sorted(once)]]


def _expanded(part: str, batch: Sequence[str]) -> list[str]:
    before, dots, after = part.partition("...")
    return [*before, *(batch if dots else ()), *after]


_FUNCTIONS: dict[Any, Callable[..., Any]] = {
    np.dot: _dot,
    np.einsum: _einsum,
    np.concatenate: _concatenate,
    np.count_nonzero: _count_nonzero,
    np.transpose: lambda a, axes=None: a.transpose(axes),
    np.shape: _of_shape(np.shape),
    np.ndim: _of_shape(np.ndim),
    np.size: _of_shape(np.size),
}
