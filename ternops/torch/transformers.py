"""Models of transformers whose BitNet layers run on packed weights."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ternops.matrix import pack
from ternops.quarters import unpack_quarters
from ternops.torch.bitlinear import BitLinear
from ternops.torch.linear import TernaryLinear
from ternops.torch.replace import replaced
from ternops.torch.rounding import absmean, wide

_Module = TypeVar("_Module", bound=nn.Module)


def accelerate(model: _Module, encoding: str = "auto") -> _Module:
    """Put a TernaryLinear in the place of every BitLinear and AutoBitLinear of transformers, and of
    every BitLinear of ours, and return the model: ``generate()`` then runs on our kernels.

    model: as `from_pretrained` gives it, on the CPU: BitNetForCausalLM, or another whose config
    says `quant_method` "bitnet". encoding: as `ternops.pack` takes it.

    The function is the same: activations are rounded to the same int8, sums are exact and rounded
    to the model's dtype once. `save_pretrained` writes packed trits afterwards, whatever was
    loaded. Raises TypeError and ValueError, naming the layer, for one that is elsewhere than on a
    CPU, whose weights are no trits, or shared; the model is then as it was.
    """
    from transformers.integrations import bitnet

    def made(layer: Any) -> TernaryLinear:
        if isinstance(layer, BitLinear):
            return layer.to_ternary(encoding)
        if layer.weight.device.type != "cpu":
            raise TypeError(f"weight: device {layer.weight.device}, expected a CPU tensor")
        trits, scale = _values(layer, bitnet)
        matrix = pack(trits.numpy(), scale.numpy(), encoding)
        found = TernaryLinear(matrix, layer.bias, layer.rms_norm)
        return found.train(layer.training)

    known = (BitLinear, bitnet.BitLinear, bitnet.AutoBitLinear)
    replaced(model, lambda name, module: isinstance(module, known), made, "BitLinear")
    _declare(model)
    return model


@torch.no_grad()
def _values(layer: Any, bitnet: Any) -> tuple[Tensor, Tensor]:
    """int8 trits and the float32 scale () that they are multiplied by."""
    weight = layer.weight
    if isinstance(layer, bitnet.BitLinear):  # which divides by its scale
        trits = torch.from_numpy(unpack_quarters(weight.numpy(), layer.out_features, "weight"))
        return trits, 1 / wide(layer.weight_scale).reshape(())
    if layer.online_quant:
        values, scale = absmean(wide(weight), None)
        return values.to(torch.int8), _rounded(scale, weight.dtype)
    trits = weight.to(torch.int8)
    if not torch.equal(trits.to(weight.dtype), weight) or (trits.numel() and trits.abs().max() > 1):
        raise ValueError("weight: holds other numbers, expected -1, 0 and 1")
    return trits, wide(layer.weight_scale).reshape(())


def _rounded(scale: Tensor, dtype: torch.dtype) -> Tensor:
    """As the weights of a layer in this dtype have it, which are rounded to that."""
    return wide(scale.to(dtype))


def _declare(model: Any) -> None:
    """Say in the config what `save_pretrained` will write: trits whose scale is multiplied by."""
    config = getattr(model, "config", None)
    if config is None:
        return
    from transformers import BitNetQuantConfig

    found = getattr(config, "quantization_config", None)
    if not isinstance(found, BitNetQuantConfig):
        found = config.quantization_config = BitNetQuantConfig()
    found.linear_class, found.quantization_mode = "autobitlinear", "offline"
    # How weights were unpacked when they were loaded, which transformers cannot do backwards.
    if hasattr(model, "_weight_conversions"):
        del model._weight_conversions
