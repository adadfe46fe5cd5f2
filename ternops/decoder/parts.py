"""Some rows of a matrix, where kernels keep the numbers that they have in the whole of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ternops.decoder.config import A48, Config
from ternops.decoder.stacked import ResidentStack
from ternops.decoder.weights import HalfMatrix, Weights, operand_of
from ternops.encodings.common import SLACK
from ternops.encodings.panels import ROWS
from ternops.kernels.call import Operand
from ternops.matrix import TernaryMatrix
from ternops.memory import Arena
from ternops.packed import Packed
from ternops.ranks.split import Split

Matrix = TernaryMatrix | HalfMatrix


def rows_of(matrix: Matrix, first: int, last: int) -> Matrix:
    """Rows [first, last), a view: `first` a multiple of `ranks.split.UNIT`, and `last` too, where
    it is not the end."""
    if (first, last) == (0, matrix.shape[0]):
        return matrix
    if isinstance(matrix, HalfMatrix):
        return HalfMatrix(matrix.bits[first:last], matrix.columns, matrix.is_bf16)
    p = matrix._packed
    start, end = (p.layout.nbytes(each, p.columns) for each in (first, last))
    factors = p.factors
    if factors is not None and factors.ndim:
        factors = factors[first // ROWS : -(-last // ROWS)] if p.group else factors[first:last]
    packed = p.bytes[start : end + SLACK]
    return TernaryMatrix(Packed(packed, last - first, p.columns, factors, p.encoding, p.levels))


def moved(matrix: Matrix, arena: Arena) -> Matrix:
    """The same in memory of its own."""
    if isinstance(matrix, HalfMatrix):
        return HalfMatrix(arena.copy(matrix.bits), matrix.columns, matrix.is_bf16)
    return matrix.moved(arena)


def operand_from(matrix: Matrix, first: int, rows: int) -> Operand:
    """The whole of a matrix of so many rows to kernels that compute those alone that are there,
    from `first` on: its addresses are where row 0 would lie."""
    operand = operand_of(matrix)
    if first == 0:
        return operand._replace(rows=rows)
    if isinstance(matrix, HalfMatrix):
        before = first * matrix.bits.strides[0]
    else:
        before = matrix._packed.layout.nbytes(first, operand.columns)
    groups = operand.columns // operand.group if operand.group else 1
    scales = operand.scales - first * max(0, operand.scale_step) * groups
    return operand._replace(address=operand.address - before, scales=scales, rows=rows)


def part_of(weights: Weights, split: Split) -> Weights:
    """What one of several processes has of a model: views."""
    layers = [
        replace(each, linear={name: rows_of(matrix, *split.rows(name))
                              for name, matrix in each.linear.items()})
        for each in weights.layers[split.layers.first : split.layers.last]
    ]  # fmt: skip
    head = rows_of(weights.head, *split.vocabulary)
    embedding = rows_of(weights.embedding, *split.embedding)
    return replace(weights, layers=layers, embedding=embedding, head=head)


def check_parts(weights: Weights, deltas: Mapping[str, Any] | None, adapter: Any) -> None:
    """Raises ValueError for what several processes cannot decode together."""
    check_shared_out(weights.config)
    linear = [each for layer in weights.layers for each in layer.linear.values()]
    for found, what in (
        (any(isinstance(each, ResidentStack) for each in linear), "a stack of residual blocks"),
        (deltas, "deltas"),
        (adapter, "a model with an adapter"),
    ):
        if found:
            raise _not_shared_out(what)


def check_shared_out(config: Config) -> None:
    """Raises ValueError for a model that has what one process alone decodes."""
    if config.delta_layers:
        raise _not_shared_out("a model with delta nets")
    if config.activation_quantization == A48:
        raise _not_shared_out("a model with activations of a4.8")


def _not_shared_out(what: str) -> ValueError:
    return ValueError(f"ranks: {what} is decoded by one process alone, expected mpirun -n 1")
