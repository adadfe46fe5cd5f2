"""BitLinear: a layer for training, whose products have rounded weights and activations."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ternops.encodings.two_bit import TWO_BIT
from ternops.matrix import pack
from ternops.packed import check_group
from ternops.spelling import expected_one
from ternops.torch.linear import TernaryLinear
from ternops.torch.rounding import ROUNDINGS, int8, scaled, wide


class BitLinear(nn.Linear):
    """y = int8(x) trits(W)^T, times a step a row of x and a scale, + bias.

    Gradients are straight-through: those of the product of rounded operands, as if rounding were
    the identity (see `ternops.torch.rounding`). In bfloat16, autocast's too, the product is of
    whole numbers, which bfloat16 has exactly. A `torch.nn.Linear` otherwise: its state_dict loads
    here and this one's there, but for what `weights` and `rms_norm` add.

    lambda_: how far operands are rounded, 1 (wholly) unless it is set: w + lambda (rounded(w) - w),
    and x so, too. A fine-tune that raises it from 0 keeps more of a float model (the 1.58-bit
    fine-tuning recipe, https://huggingface.co/blog/1_58_llm_extreme_quantization).
    """

    lambda_: float = 1.0

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, *, weights: str = "absmean",
        group: int | None = None, rms_norm: bool = False, rms_norm_eps: float = 1e-6,
        device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        """weights: "absmean" (BitNet b1.58), "sign" (BitNet), or "seq" (ParetoQ), which learns
        `weight_clip_val`, (out_features, 1). group: of "absmean", inputs that share a scale, and
        whose activations share a step. rms_norm: x is normalised first (the sub-norm), with a
        learned gain.

        Raises ValueError for another name or group.
        """
        super().__init__(in_features, out_features, bias, device=device, dtype=dtype)
        self._extend(weights, group, rms_norm, rms_norm_eps)

    def _extend(self, weights: str, group: int | None, rms_norm: bool, eps: float) -> None:
        if weights not in ROUNDINGS:
            raise ValueError(expected_one("weights", weights, ROUNDINGS))
        if group is not None and not ROUNDINGS[weights].has_groups:
            raise ValueError(f"group={group!r}: expected None with weights={weights!r}")
        self.weights, self.group = weights, check_group(group, TWO_BIT.name, self.in_features)
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
        cls, linear: nn.Linear, *, weights: str = "absmean", group: int | None = None,
        rms_norm: bool = False, rms_norm_eps: float = 1e-6,
    ) -> BitLinear:  # fmt: skip
        """A layer with the parameters of another, which stay the same objects."""
        if linear.weight.is_complex():
            raise TypeError(f"weight: dtype {str(linear.weight.dtype)[6:]}, expected real floats")
        with torch.device("meta"):  # no memory for parameters that are replaced
            found = cls(linear.in_features, linear.out_features, bias=False)
        found.weight, found.bias = linear.weight, linear.bias
        found._extend(weights, group, rms_norm, rms_norm_eps)
        found.train(linear.training)
        return found

    def forward(self, x: Tensor) -> Tensor:
        if x.is_complex() or not x.is_floating_point():
            raise TypeError(f"x: dtype {str(x.dtype)[6:]}, expected floats")
        if self.rms_norm is not None:
            x = self.rms_norm(x)
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        if not 0 <= self.lambda_ <= 1:
            raise ValueError(f"lambda_={self.lambda_!r}: expected 0 to 1")
        how = self.weights, self.group, float(self.lambda_), dtype
        y = _Product.apply(x, self.weight, self.weight_clip_val, how)
        return y if self.bias is None else y + self.bias.to(y.dtype)

    @torch.no_grad()
    def to_ternary(self, encoding: str = "auto") -> TernaryLinear:
        """The layer for inference with the trits, the scale, the bias and the norm of this one.

        encoding: as `ternops.pack` takes it. Raises TypeError for weights elsewhere than on a CPU,
        ValueError for weights that are not finite, and for a lambda_ below 1.
        """
        if self.lambda_ != 1:
            raise ValueError(f"lambda_={self.lambda_!r}: expected 1, which rounds weights wholly")
        if self.weight.device.type != "cpu":
            raise TypeError(f"weight: device {self.weight.device}, expected a CPU tensor")
        trits, scale = _rounded(self.weight, self.weight_clip_val, self.weights, self.group)
        if not (trits.isfinite().all() and scale.isfinite().all()):
            raise ValueError("weight: holds NaN or infinity, expected finite numbers")
        matrix = pack(trits.to(torch.int8).numpy(), scale.numpy(), encoding)
        found = TernaryLinear(matrix, self.bias, self.rms_norm)
        return found.train(self.training)

    def extra_repr(self) -> str:
        """As `torch.nn.Linear` has it, with what weights are rounded to."""
        group = f", group={self.group}" if self.group else ""
        return f"{super().extra_repr()}, weights={self.weights!r}{group}"


def _rounded(weight: Tensor, alpha: Tensor | None, name: str, group: int) -> tuple[Tensor, Tensor]:
    return ROUNDINGS[name].round(wide(weight), None if alpha is None else wide(alpha), group)


def _toward(x: Tensor, rounded: Tensor, part: float) -> Tensor:
    return rounded if part == 1 else x + part * (rounded - x)


class _Product(torch.autograd.Function):
    """x (..., columns), weight (rows, columns), alpha (rows, 1) or None; how: a name of ROUNDINGS,
    the group, or 0, lambda, and the dtype of y (..., rows)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, alpha: Tensor | None,
        how: tuple[str, int, float, torch.dtype],
    ) -> Tensor:  # fmt: skip
        name, group, part, dtype = how
        trits, scale = _rounded(weight, alpha, name, group)
        levels, step = int8(wide(x), group)
        # float16 has the operands, but not the sums.
        inner = torch.float32 if dtype is torch.float16 else dtype
        # Those that are no whole numbers times one factor of all of a row's inputs.
        is_dense = bool(group) or part < 1
        if is_dense:
            left = _toward(wide(x), scaled(levels, step), part).to(inner)
            right = _toward(wide(weight), scaled(trits, scale), part).to(inner)
        else:
            left, right = levels.to(inner), trits.to(inner)
        with torch.autocast(x.device.type, enabled=False):
            y = F.linear(left, right)
        if not is_dense:
            y = y.mul_(step * scale) if scale.ndim == 0 else y.mul_(step).mul_(scale)
        ctx.name, ctx.part, ctx.is_dense, ctx.dtypes = name, part, is_dense, (x.dtype, weight.dtype)
        kept = trits if is_dense and alpha is not None else None
        ctx.save_for_backward(left, step, right, scale, weight, alpha, kept)
        return y.to(dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        left, step, right, scale, weight, alpha, trits = ctx.saved_tensors
        of_x = of_weight = of_alpha = None
        grad = grad.to(right.dtype)
        if ctx.needs_input_grad[0]:
            if ctx.is_dense:
                of_x = grad @ right
            elif scale.ndim == 0:
                of_x = (grad @ right).mul_(scale)
            else:
                of_x = (grad * scale).to(right.dtype) @ right
            of_x = of_x.to(ctx.dtypes[0])
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            rows = grad.reshape(-1, grad.shape[-1])
            inputs = left if ctx.is_dense else (left * step).to(left.dtype)
            of_rounded = (rows.T @ inputs.reshape(-1, left.shape[-1])).to(ctx.dtypes[1])
            of_weight, of_alpha = ROUNDINGS[ctx.name].gradient(
                of_rounded, weight, alpha, right if trits is None else trits
            )
            if ctx.part < 1:
                of_weight = _toward(of_rounded, of_weight, ctx.part)
                of_alpha = None if of_alpha is None else of_alpha * ctx.part
        return of_x, of_weight, of_alpha, None
