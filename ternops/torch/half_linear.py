"""HalfLinear: a layer of two bytes a weight whose products with few tokens take a pass of memory.

PyTorch's own of one token read a large matrix, as the head of a language model, at less than half
of the bandwidth.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor, nn

from ternops.decoder.head import screens_by_itself
from ternops.half import LINE
from ternops.kernels.call import Call, Operand
from ternops.product import multiply_at
from ternops.threads import default_threads
from ternops.torch.screen import Screen

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
    _screen: Screen | None = None

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
            _threads(),
            True,
        )
        y = out.to(x.dtype)
        return y if self.bias is None else y + self.bias

    def largest(self, x: Tensor) -> int:
        """The number of the largest result for one token x, (..., columns): of
        ``self(x).float().argmax()``, which it also is where several are equal, or NaN.

        What `prepare_largest` has made it possible to leave out is not read.
        """
        screen = self._screen
        if (
            screen is None
            or self.bias is not None
            or x.numel() != self.in_features
            or not self._is_ours(x)
            or not screen.is_of(self.weight)
        ):
            return int(self(x).float().argmax())
        token = x.detach().to(torch.float32).contiguous()
        return screen.largest(token, self.weight, _threads())

    def prepare_largest(self) -> None:
        """Make a copy in int8, half as large, of bfloat16 weights that exceed the last-level cache,
        or read them all to see that the last one is theirs.

        `largest` sees by itself what PyTorch does to them later, but not what is written to
        ``weight.data`` or to their memory: call this again then.
        """
        w, screen = self.weight, self._screen
        self._screen = None
        if (
            type(w) not in (Tensor, nn.Parameter)
            or w.dtype is not torch.bfloat16
            or self.bias is not None
            or not self._has_lines()
            or not screens_by_itself(self.out_features, self.in_features, 2 * self.in_features)
        ):
            return
        if screen is None or not screen.is_still_of(w, _threads()):
            del screen  # or there would be two of them for a moment
            with contextlib.suppress(MemoryError):
                self._screen = Screen(w, _threads())
        else:
            self._screen = screen

    def _is_ours(self, x: Tensor) -> bool:
        w = self.weight
        return (
            not torch.compiler.is_compiling()
            and type(x) is Tensor
            and x.dtype is w.dtype
            and x.dtype in _NAMES
            and x.is_cpu
            and x.ndim > 0
            and x.shape[-1] == self.in_features
            and 0 < x.numel() <= _FEW * self.in_features
            and self._has_lines()
            and not (torch.is_grad_enabled() and (x.requires_grad or w.requires_grad))
        )

    def _has_lines(self) -> bool:
        """Whether the weights lie as kernels read them, row by row in whole cache lines."""
        w = self.weight
        return (
            w.is_cpu
            and w.shape == (self.out_features, self.in_features)
            and w.is_contiguous()
            and w.data_ptr() % _ALIGNMENT == 0
            and self.in_features % LINE == 0
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
        return {k: each for k, each in self.__dict__.items() if k not in ("_call", "_screen")}


def _threads() -> int:
    return min(default_threads(), torch.get_num_threads())
