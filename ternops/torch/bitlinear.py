"""BitLinear: a layer for training, whose products have rounded weights and activations."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ternops.matrix import pack
from ternops.torch.linear import TernaryLinear
from ternops.torch.rounding import ROUNDINGS, Rounding, int8, wide


class BitLinear(nn.Linear):
    """y = int8(x) trits(W)^T, times a step a row of x and a scale, + bias.

    Gradients are straight-through: those of the product of rounded operands, as if rounding were
    the identity (see `ternops.torch.rounding`). In bfloat16, autocast's too, the product is of
    whole numbers, which bfloat16 has exactly. A `torch.nn.Linear` otherwise: its state_dict loads
    here and this one's there, but for what `weights` and `rms_norm` add.
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, *, weights: str = "absmean",
        rms_norm: bool = False, rms_norm_eps: float = 1e-6, device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        """weights: "absmean" (BitNet b1.58), "sign" (BitNet), or "seq" (ParetoQ), which learns
        `weight_clip_val`, (out_features, 1). rms_norm: x is normalised first (the sub-norm), with
        a learned gain.

        Raises ValueError for another name.
        """
        super().__init__(in_features, out_features, bias, device=device, dtype=dtype)
        self._extend(weights, rms_norm, rms_norm_eps)

    def _extend(self, weights: str, rms_norm: bool, eps: float) -> None:
        if weights not in ROUNDINGS:
            raise ValueError(f"weights={weights!r}: expected one of {', '.join(ROUNDINGS)}")
        self.weights = weights
        self.rms_norm = self.weight_clip_val = None
        first = ROUNDINGS[weights].first_alpha
        if first is not None:
            with torch.no_grad():
                self.weight_clip_val = nn.Parameter(first(self.weight))
        if rms_norm:
            self.rms_norm = nn.RMSNorm(
                self.in_features, eps, device=self.weight.device, dtype=self.weight.dtype
            )

    @classmethod
    def from_linear(
        cls, linear: nn.Linear, *, weights: str = "absmean", rms_norm: bool = False,
        rms_norm_eps: float = 1e-6,
    ) -> BitLinear:  # fmt: skip
        """A layer with the parameters of another, which stay the same objects."""
        if linear.weight.is_complex():
            raise TypeError(f"weight: dtype {str(linear.weight.dtype)[6:]}, expected real floats")
        with torch.device("meta"):  # no memory for parameters that are replaced
            found = cls(linear.in_features, linear.out_features, bias=False)
        found.weight, found.bias = linear.weight, linear.bias
        found._extend(weights, rms_norm, rms_norm_eps)
        found.train(linear.training)
        return found

    def forward(self, x: Tensor) -> Tensor:
        if x.is_complex() or not x.is_floating_point():
            raise TypeError(f"x: dtype {str(x.dtype)[6:]}, expected floats")
        if self.rms_norm is not None:
            x = self.rms_norm(x)
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        y = _Product.apply(x, self.weight, self.weight_clip_val, self.weights, dtype)
        return y if self.bias is None else y + self.bias.to(y.dtype)

    @torch.no_grad()
    def to_ternary(self, encoding: str = "auto") -> TernaryLinear:
        """The layer for inference with the trits, the scale, the bias and the norm of this one.

        encoding: as `ternops.pack` takes it. Raises TypeError for weights elsewhere than on a CPU,
        ValueError for weights that are not finite.
        """
        if self.weight.device.type != "cpu":
            raise TypeError(f"weight: device {self.weight.device}, expected a CPU tensor")
        trits, scale = _rounded(self.weight, self.weight_clip_val, ROUNDINGS[self.weights])
        if not (trits.isfinite().all() and scale.isfinite().all()):
            raise ValueError("weight: holds NaN or infinity, expected finite numbers")
        matrix = pack(trits.to(torch.int8).numpy(), scale.numpy(), encoding)
        found = TernaryLinear(matrix, self.bias, self.rms_norm)
        return found.train(self.training)

    def extra_repr(self) -> str:
        """As `torch.nn.Linear` has it, with what weights are rounded to."""
        return f"{super().extra_repr()}, weights={self.weights!r}"


def _rounded(weight: Tensor, alpha: Tensor | None, rounding: Rounding) -> tuple[Tensor, Tensor]:
    return rounding.round(wide(weight), None if alpha is None else wide(alpha))


class _Product(torch.autograd.Function):
    """x (..., columns), weight (rows, columns), alpha (rows, 1) or None, a name of ROUNDINGS, and
    the dtype of y (..., rows)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, alpha: Tensor | None, name: str, dtype: torch.dtype
    ) -> Tensor:
        trits, scale = _rounded(weight, alpha, ROUNDINGS[name])
        levels, step = int8(wide(x))
        # float16 has the operands, but not the sums.
        inner = torch.float32 if dtype is torch.float16 else dtype
        trits, levels = trits.to(inner), levels.to(inner)
        with torch.autocast(x.device.type, enabled=False):
            y = F.linear(levels, trits)
        y = y.mul_(step * scale) if scale.ndim == 0 else y.mul_(step).mul_(scale)
        ctx.name, ctx.dtypes = name, (x.dtype, weight.dtype)
        ctx.save_for_backward(levels, step, trits, scale, weight, alpha)
        return y.to(dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        levels, step, trits, scale, weight, alpha = ctx.saved_tensors
        of_x = of_weight = of_alpha = None
        grad = grad.to(trits.dtype)
        if ctx.needs_input_grad[0]:
            if scale.ndim == 0:
                of_x = (grad @ trits).mul_(scale)
            else:
                of_x = (grad * scale).to(trits.dtype) @ trits
            of_x = of_x.to(ctx.dtypes[0])
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            rows = grad.reshape(-1, grad.shape[-1])
            inputs = (levels * step).to(levels.dtype).reshape(-1, levels.shape[-1])
            of_rounded = (rows.T @ inputs).to(ctx.dtypes[1])
            of_weight, of_alpha = ROUNDINGS[ctx.name].gradient(of_rounded, weight, alpha, trits)
        return of_x, of_weight, of_alpha, None, None
