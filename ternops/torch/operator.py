"""The product of tensors and a packed matrix as an operator of PyTorch.

An operator takes tensors and numbers: matrices are known to it by a number each. It is opaque to
`torch.compile`, which is told the shape of its result (a "fake" kernel) and its gradient.
"""

from __future__ import annotations

import itertools
import math
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from ternops.absmean import floor_of
from ternops.kernels.call import Call
from ternops.matrix import TernaryMatrix
from ternops.operators import matmul
from ternops.product import multiply_at
from ternops.threads import default_threads

#: Of tensors; those but float32 are converted by PyTorch, and the result is converted back.
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_NAMES = "float32, bfloat16 or float16"
_ALIGNMENT = 4

_numbers = itertools.count()


class Weights:
    """A matrix (rows, columns) that the operator finds by its `key`, for as long as this lives.

    It never changes: copies of a layer share it, and another process makes its own.
    """

    __slots__ = ("__weakref__", "calls", "columns", "key", "matrix", "packed", "rows")

    def __init__(self, matrix: TernaryMatrix) -> None:
        self.matrix, self.packed = matrix, matrix._packed
        self.rows, self.columns = matrix.shape
        self.calls: dict[int, Call] = {}
        self.key = next(_numbers)
        _known[self.key] = self

    def call(self, tokens: int) -> Call:
        """The product with so many tokens, prepared; max|x| has BitNet's floor, as in training, and
        where columns share a scale in groups, activations have a step for each, as in decoders."""
        found = self.calls.get(tokens)
        if found is None:
            is_blocked = bool(self.packed.group)
            floor = floor_of(is_blocked)
            found = Call.of(self.packed.operand, tokens, floor=floor, is_blocked=is_blocked)
            self.calls[tokens] = found
        return found

    def __deepcopy__(self, memo: Any) -> Weights:
        return self

    def __reduce__(self) -> Any:
        return Weights, (self.matrix,)


_known: WeakValueDictionary[int, Weights] = WeakValueDictionary()


def product(weights: Weights, x: Tensor) -> Tensor:
    """x (..., columns) -> (..., rows), of the same dtype. A contiguous float32 x is not copied.

    Each row of x is rounded to int8, one absmax step a row (arXiv 2402.17764, section 2), or one
    for each group of columns that share a scale; sums are exact, and one of NaN or infinity is NaN.
    No more threads than PyTorch has.
    Raises TypeError for another dtype, device or layout, ValueError for another last dimension.
    """
    if x.dtype is not torch.float32 or not x.is_cpu or x.layout is not torch.strided:
        check_input(x)
    shape = x.shape
    if not shape or shape[-1] != weights.columns:
        raise ValueError(f"x: shape {tuple(shape)}, expected (..., {weights.columns})")
    tokens = x
    if x.dtype is not torch.float32:
        tokens = x.to(torch.float32)
    tokens = tokens.contiguous()
    if tokens.is_neg() or tokens.data_ptr() % _ALIGNMENT:
        tokens = tokens.clone()
    out = torch.empty((*shape[:-1], weights.rows), dtype=torch.float32, device="cpu")
    count = math.prod(shape[:-1])
    if count and weights.rows:
        multiply_at(
            weights.call(count),
            weights.packed.bytes.nbytes * count,
            tokens.data_ptr(),
            out.data_ptr(),
            min(default_threads(), torch.get_num_threads()),
            True,
        )
    return out if x.dtype is torch.float32 else out.to(x.dtype)


def check_input(x: Tensor) -> None:
    """Raises TypeError for what is no strided float tensor of a CPU."""
    if x.device.type != "cpu":
        raise TypeError(f"x: device {x.device}, expected a CPU tensor")
    if x.layout is not torch.strided:
        raise TypeError(f"x: layout {x.layout}, expected a dense tensor (torch.strided)")
    if x.dtype not in DTYPES:
        raise TypeError(f"x: dtype {str(x.dtype).removeprefix('torch.')}, expected {_NAMES}")


def _found(key: int) -> Weights:
    try:
        return _known[key]
    except KeyError:
        raise ValueError(
            f"key={key}: no TernaryLinear of this process has these weights; a graph runs where "
            "its layers are"
        ) from None


@torch.library.custom_op(
    "ternops::ternary_linear", mutates_args=(), schema="(Tensor x, int key, int rows) -> Tensor"
)
def ternary_linear(x: Tensor, key: int, rows: int) -> Tensor:
    """`product` with the matrix of a key."""
    return product(_found(key), x)


@torch.library.custom_op(
    "ternops::ternary_linear_backward",
    mutates_args=(),
    schema="(Tensor grad, int key, int columns) -> Tensor",
)
def ternary_linear_backward(grad: Tensor, key: int, columns: int) -> Tensor:
    """The gradient of `product`'s x: grad (..., rows) times the matrix.

    It is our own ``grad @ W``, which rounds each row of grad to int8; the rounding of x itself
    passes gradients on as they are (straight through).
    """
    rows = grad.detach().to(torch.float32).numpy()
    threads = min(default_threads(), torch.get_num_threads())
    found = matmul(rows, _found(key).matrix, threads=threads)
    return torch.from_numpy(found).to(grad.dtype)


@ternary_linear.register_fake
@ternary_linear_backward.register_fake
def _shaped(x: Tensor, key: int, outputs: int) -> Tensor:
    return x.new_empty((*x.shape[:-1], outputs))


def _keep(ctx: Any, inputs: tuple[Tensor, int, int], output: Tensor) -> None:
    x, key, _ = inputs
    ctx.weights = _found(key)  # which the layer may not outlive
    ctx.columns = x.shape[-1]


def _gradient(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    found = torch.ops.ternops.ternary_linear_backward(grad, ctx.weights.key, ctx.columns)
    return found, None, None


ternary_linear.register_autograd(_gradient, setup_context=_keep)
