"""TernaryLinear: a layer for inference, whose weights are a packed matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ternops.matrix import TernaryMatrix, pack, quantize
from ternops.quarters import pack_quarters, packed_rows, unpack_quarters
from ternops.torch.operator import Weights, product

_TRITS = {-1, 0, 1}


class TernaryLinear(nn.Module):
    """y = x W^T + bias, with x rounded to int8, one absmax step a row, and W trits times a scale.
    Where columns share a scale in groups, x has a step for each group as well.

    x: (..., in_features), float32, bfloat16 or float16 on the CPU; y has its dtype. The gradient of
    x is ``grad @ W``; weights have none. `torch.compile` takes the layer as it is.

    A state_dict has `weight`, packed as transformers packs it whatever the encoding (see
    `ternops.quarters`), `weight_scale`, that trits are multiplied by, (1,), (out_features,)
    or (out_features, groups), and `bias`.
    """

    def __init__(
        self, matrix: TernaryMatrix, bias: Tensor | None = None, rms_norm: nn.Module | None = None
    ) -> None:
        """matrix: (out_features, in_features), of -1, 0 and 1, as `ternops.quantize` and
        `ternops.pack` give it. bias: (out_features,). rms_norm: what x goes through before.

        Raises TypeError and ValueError, naming the argument, for anything else.
        """
        super().__init__()
        self._set(matrix)
        if bias is not None and tuple(bias.shape) != (self.out_features,):
            raise ValueError(f"bias: shape {tuple(bias.shape)}, expected ({self.out_features},)")
        kept = None if bias is None else nn.Parameter(bias.detach().clone(), requires_grad=False)
        self.register_parameter("bias", kept)
        self.rms_norm = rms_norm

    @classmethod
    def from_linear(cls, linear: nn.Linear, **settings: Any) -> TernaryLinear:
        """The weights of a layer rounded to trits: its own bias, and `ternops.quantize` with the
        settings (encoding, group, method); by default one absmean scale of the whole matrix.

        Raises TypeError and ValueError, naming the argument, as that does, and for levels that are
        no trits.
        """
        weight = linear.weight
        if weight.device.type != "cpu":
            raise TypeError(f"weight: device {weight.device}, expected a CPU tensor")
        if weight.is_complex():
            raise TypeError(f"weight: dtype {str(weight.dtype)[6:]}, expected real floats")
        found = quantize(weight.detach().to(torch.float32).numpy(), **settings)
        if not isinstance(found, TernaryMatrix):
            raise ValueError(f"encoding={found.encoding!r}: expected one that has trits")
        return cls(found, linear.bias)

    def _set(self, matrix: TernaryMatrix) -> None:
        if not isinstance(matrix, TernaryMatrix):
            raise TypeError(f"matrix: {type(matrix).__name__}, expected a TernaryMatrix")
        if matrix._transposed:
            raise ValueError("matrix: a transpose, whose sums run over packed rows, expected none")
        if not set(matrix.levels) <= _TRITS:
            raise ValueError(f"matrix: levels {matrix.levels}, expected -1, 0 and 1")
        self._weights = Weights(matrix)
        # Numbers, which a compiled graph holds as constants: key is the operator's for the matrix.
        self.key = self._weights.key
        self.out_features, self.in_features = matrix.shape

    @property
    def matrix(self) -> TernaryMatrix:
        """The packed weights."""
        return self._weights.matrix

    def forward(self, x: Tensor) -> Tensor:
        if self.rms_norm is not None:
            x = self.rms_norm(x)
        # The operator costs 10 us, which only graphs, gradients and subclasses of tensors need.
        if (
            torch.compiler.is_compiling()
            or type(x) is not Tensor
            or (x.requires_grad and torch.is_grad_enabled())
        ):
            y = torch.ops.ternops.ternary_linear(x, self.key, self.out_features)
        else:
            y = product(self._weights, x)
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def requires_grad_(self, requires_grad: bool = True) -> TernaryLinear:
        """Weights have no gradient: TypeError for True."""
        if requires_grad:
            raise TypeError(
                "requires_grad: True, expected False: the weights of a TernaryLinear have no "
                "gradient (train a BitLinear)"
            )
        super().requires_grad_(False)
        return self

    def extra_repr(self) -> str:
        """As `torch.nn.Linear` has it, with the encoding."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}, encoding={self.matrix.encoding!r}"
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.key = self._weights.key  # which another process has counted

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        matrix = self.matrix
        destination[f"{prefix}weight"] = torch.from_numpy(pack_quarters(matrix.to_trits()))
        scale = np.float32(1) if matrix.scale is None else matrix.scale
        destination[f"{prefix}weight_scale"] = torch.from_numpy(
            np.atleast_1d(np.array(scale, np.float32))
        )

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: Any, strict: bool,
        missing_keys: list[str], unexpected_keys: list[str], error_msgs: list[str],
    ) -> None:  # fmt: skip
        names = [f"{prefix}weight", f"{prefix}weight_scale"]
        missing = [name for name in names if name not in state_dict]
        if missing:
            missing_keys.extend(missing)
        else:
            try:
                self._set(self._restored(*(state_dict[name] for name in names)))
            except (TypeError, ValueError) as error:
                error_msgs.append(f"{prefix}{error}")
        rest = {name: value for name, value in state_dict.items() if name not in names}
        super()._load_from_state_dict(
            rest, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )

    def _restored(self, weight: Tensor, scale: Tensor) -> TernaryMatrix:
        """The matrix of what a state_dict has, in the present encoding."""
        shape = (packed_rows(self.out_features), self.in_features)
        if weight.dtype != torch.uint8 or tuple(weight.shape) != shape:
            raise ValueError(
                f"weight: {str(weight.dtype)[6:]} {tuple(weight.shape)}, expected packed trits, "
                f"uint8 {shape}"
            )
        factors = scale.detach().to("cpu", torch.float32).numpy()
        if factors.size == 1:
            factors = factors.reshape(())
        trits = unpack_quarters(weight.detach().cpu().numpy(), self.out_features, "weight")
        return pack(trits, factors, self.matrix.encoding)
