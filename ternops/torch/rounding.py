"""What BitLinear rounds to: weights to trits and a scale, activations to int8 and a step.

All in float32, or float64 where that is given, and as the papers' own code has it: what is said to
be rounded away from 0 or to even there is so here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ternops.absmean import floor_of

#: The least scale of weights.
_LEAST = 1e-5
#: SEQ: weights beyond this part of alpha are clipped, and just below 1, so that 3/2 of it is 1
#: when it is rounded; the middles of thirds are 2/3 of alpha apart.
_CLIP, _THIRD = 0.99, 2 / 3


def wide(x: Tensor) -> Tensor:
    """In float32 at least."""
    return x if x.dtype is torch.float64 else x.to(torch.float32)


def absmean(weight: Tensor, alpha: Tensor | None, group: int = 0) -> tuple[Tensor, Tensor]:
    """clip(round(w / s), -1, 1), s = mean|w| (BitNet b1.58, arXiv 2402.17764, section 2); of groups
    of inputs apart as `ternops.absmean.absmean_groups`, whose scales float16 has."""
    if group:
        parts = weight.unflatten(1, (-1, group))
        scale = parts.abs().mean(dim=2).clamp_(min=_LEAST).half().to(weight.dtype)
        return (parts / scale[:, :, None]).round_().clamp_(-1, 1).flatten(1), scale
    inverse = 1.0 / weight.abs().mean().clamp_(min=_LEAST)
    return (weight * inverse).round_().clamp_(-1, 1), 1.0 / inverse


def sign(weight: Tensor, alpha: Tensor | None, group: int = 0) -> tuple[Tensor, Tensor]:
    """+1 where w > mean(w), else -1; s = mean|w| (BitNet, arXiv 2310.11453, section 2.1)."""
    return (weight > weight.mean()).to(weight.dtype).mul_(2).sub_(1), weight.abs().mean()


def seq(weight: Tensor, alpha: Tensor | None, group: int = 0) -> tuple[Tensor, Tensor]:
    """round(3/2 clip(w / alpha, -1, 1)), s = 2/3 alpha, alpha learned, one a row (ParetoQ, arXiv
    2502.02631, section 3, SEQ)."""
    assert alpha is not None
    alpha = alpha.clamp(min=_LEAST)
    return (weight / alpha).clamp_(-_CLIP, _CLIP).mul_(1.5).round_(), alpha[:, 0] * _THIRD


def pass_through(
    grad: Tensor, weight: Tensor, alpha: Tensor | None, trits: Tensor
) -> tuple[Tensor, None]:
    """The gradient of rounded weights is that of weights (straight-through estimator)."""
    return grad, None


def seq_gradient(
    grad: Tensor, weight: Tensor, alpha: Tensor | None, trits: Tensor
) -> tuple[Tensor, Tensor]:
    """That of weights within the range alone; of alpha the sum over a row of
    grad * (rounded - w) / alpha there, and of grad * 2/3 of the sign beyond it."""
    assert alpha is not None
    ratio = weight / alpha.clamp(min=_LEAST)
    inside = ratio.abs() <= _CLIP
    slope = torch.where(inside, trits.to(ratio.dtype) * _THIRD - ratio, ratio.sign() * _THIRD)
    return grad * inside, (grad * slope).sum(dim=1, keepdim=True)


@dataclass(frozen=True)
class Rounding:
    """How weights are rounded and how gradients go through that.

    round: weights (rows, columns), alpha (rows, 1) or None and inputs that share a scale, 0 but of
    has_groups -> trits, of their dtype, and scale, (), (rows,) or (rows, groups). gradient: of
    rounded weights, with weights, alpha and trits -> that of weights and that of alpha.
    first_alpha: of weights, where it is learned.
    """

    round: Callable[..., tuple[Tensor, Tensor]]
    gradient: Callable[..., tuple[Tensor, Any]] = pass_through
    first_alpha: Callable[[Tensor], Tensor] | None = None
    has_groups: bool = False


ROUNDINGS: Mapping[str, Rounding] = {
    "absmean": Rounding(absmean, has_groups=True),
    "sign": Rounding(sign),
    "seq": Rounding(seq, seq_gradient, lambda weight: weight.abs().amax(dim=1, keepdim=True)),
}


def int8(x: Tensor, group: int = 0) -> tuple[Tensor, Tensor]:
    """round(x * 127 / max|x|) as floats, and the step that 1 stands for, one a row, (..., 1), or
    for each group of a row, (..., groups).

    max|x| of a row is at least 1e-5 (BitNet b1.58, arXiv 2402.17764, section 2).
    """
    parts = x.unflatten(-1, (-1, group)) if group else x
    most = parts.abs().amax(dim=-1, keepdim=True).clamp_(min=floor_of(bool(group)))
    levels, step = (parts * (127 / most)).round_().clamp_(-128, 127), most / 127
    return (levels.flatten(-2), step[..., 0]) if group else (levels, step)


def scaled(levels: Tensor, scale: Tensor) -> Tensor:
    """The product of whole numbers, (rows..., columns), with a scale that has a last dimension of
    groups, or none of rows: (), or one a row."""
    if scale.ndim < levels.ndim:
        return levels * scale[..., None] if scale.ndim else levels * scale
    parts = levels.unflatten(-1, (scale.shape[-1], -1))
    return (parts * scale[..., None]).flatten(-2)
