"""HalfLinear: a layer of two bytes a weight whose products with few tokens take a pass of memory.

PyTorch's own of one token read a large matrix, as the head of a language model, at less than half
of the bandwidth.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ternops.half import LINE
from ternops.kernels.call import Call, Operand
from ternops.product import multiply_at
from ternops.threads import default_threads

_NAMES = {torch.bfloat16: "bf16", torch.float16: "fp16"}
#: More tokens are multiplied by PyTorch.
_FEW = 4
_ALIGNMENT = 64


class HalfLinear(nn.Linear):
    """y = x W^T + bias of bfloat16 or float16, sums in float32, rounded once.

    The parameters are those of the `torch.nn.Linear` that it is made of, and tied ones stay so. For
    other dtypes, more than four tokens, gradients and in compiled graphs it is that.
    """

    _call: tuple[Any, Call] | None = None

    @classmethod
    def from_linear(cls, linear: nn.Linear) -> HalfLinear:
        """A layer with the parameters of another, which stay the same objects."""
        with torch.device("meta"):  # no memory for parameters that are replaced
            found = cls(linear.in_features, linear.out_features, bias=False)
        found.weight, found.bias = linear.weight, linear.bias
        return found.train(linear.training)

    def forward(self, x: Tensor) -> Tensor:
        if not self._is_ours(x):
            return super().forward(x)
        tokens = x.detach().to(torch.float32).contiguous()
        out = torch.empty((*x.shape[:-1], self.out_features), dtype=torch.float32, device="cpu")
        count = tokens.numel() // self.in_features
        multiply_at(
            self._product(count),
            2 * self.weight.numel() * count,
            tokens.data_ptr(),
            out.data_ptr(),
            min(default_threads(), torch.get_num_threads()),
            True,
        )
        y = out.to(x.dtype)
        return y if self.bias is None else y + self.bias

    def _is_ours(self, x: Tensor) -> bool:
        w = self.weight
        return (
            not torch.compiler.is_compiling()
            and type(x) is Tensor
            and x.dtype is w.dtype
            and x.dtype in _NAMES
            and x.is_cpu
            and w.is_cpu
            and x.ndim > 0
            and x.shape[-1] == self.in_features
            and 0 < x.numel() <= _FEW * self.in_features
            and w.is_contiguous()
            and w.data_ptr() % _ALIGNMENT == 0
            and self.in_features % LINE == 0
            and not (torch.is_grad_enabled() and (x.requires_grad or w.requires_grad))
        )

    def _product(self, count: int) -> Call:
        """With so many tokens, prepared, for where the weights are now."""
        key = self.weight.data_ptr(), self.weight.dtype, count
        if self._call is None or self._call[0] != key:
            nbytes = 2 * self.weight.numel()
            shape = self.out_features, self.in_features
            operand = Operand(_NAMES[self.weight.dtype], key[0], nbytes, *shape, scale_step=0)
            self._call = key, Call.of(operand, count)
        return self._call[1]

    def __getstate__(self) -> dict[str, Any]:
        return {name: each for name, each in self.__dict__.items() if name != "_call"}
