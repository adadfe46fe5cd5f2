"""Models of transformers whose BitNet layers run on packed weights."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from ternops.kernels.tuning import best_encoding
from ternops.matrix import pack
from ternops.quarters import unpack_quarters
from ternops.torch.bitlinear import BitLinear
from ternops.torch.half_linear import HalfLinear
from ternops.torch.linear import TernaryLinear
from ternops.torch.replace import check_module, replaced
from ternops.torch.rounding import absmean, wide

_Module = TypeVar("_Module", bound=nn.Module)


def accelerate(model: _Module, encoding: str = "auto") -> _Module:
    """Put a TernaryLinear in the place of every BitLinear and AutoBitLinear of transformers, and of
    every BitLinear of ours, a `HalfLinear` in that of the head, and return the model: `generate()`
    then runs on our kernels.

    The model within it, as BitNetModel, gets a class of the same name whose forward is one pass
    over all layers where `ternops.decoder` computes the same. A DynamicCache that is handed to it
    keeps its keys and values in our pages from then on, until its `layers` are read. The model gets
    one whose greedy decoding computes those logits alone that may be the largest.

    model: as `from_pretrained` gives it, on the CPU: BitNetForCausalLM, or another whose config
    says `quant_method` "bitnet". encoding: as `ternops.pack` takes it; "auto" is the best one for
    all layers together.

    The function is the same: activations are rounded to the same int8, sums are exact and rounded
    to the model's dtype once. `save_pretrained` writes packed trits afterwards, whatever was
    loaded; with a scale a row or a group, which ternops.decoder reads and transformers refuses.
    Raises TypeError and ValueError, naming the layer, for one that is elsewhere than on a CPU,
    whose weights are no trits, or shared, and for layers some of which alone norm their inputs, and
    ImportError for a version of transformers before 4.54; the model is then as it was.
    """
    import transformers
    from transformers import cache_utils
    from transformers.integrations import bitnet

    if not hasattr(cache_utils, "DynamicLayer"):
        raise ImportError(
            f"transformers: version {transformers.__version__}, expected 4.54 or later"
        )
    from ternops.torch.decoder_forward import run_on_decoder
    from ternops.torch.greedy import decode_greedily

    check_module(model)
    known = (BitLinear, bitnet.BitLinear, bitnet.AutoBitLinear)

    def made(layer: Any) -> TernaryLinear:
        found = _ternary(layer, encoding, bitnet)
        if found.bias is not None:
            found.register_state_dict_post_hook(_divide_bias)
            found.register_load_state_dict_pre_hook(_multiply_bias)
        return found

    layers = [each for each in model.modules() if isinstance(each, known)]
    norms = _norms(layers)
    if encoding == "auto":
        # A token reads all of them, which seldom stay in a cache.
        encoding = best_encoding(sum(each.in_features * each.out_features for each in layers))
    replaced(model, lambda name, module: isinstance(module, known), made, "BitLinear")
    if getattr(model, "config", None) is not None:
        _declare(model, norms)
        _accelerate_head(model)
        run_on_decoder(model)
        decode_greedily(model)
    return model


def _accelerate_head(model: Any) -> None:
    """Of a model of transformers, if it has one of its own class."""
    head = getattr(model, "get_output_embeddings", lambda: None)()
    if type(head) is nn.Linear:
        model.set_output_embeddings(HalfLinear.from_linear(head))


def _ternary(layer: Any, encoding: str, bitnet: Any) -> TernaryLinear:
    if isinstance(layer, BitLinear):
        return layer.to_ternary(encoding)
    if layer.weight.device.type != "cpu":
        raise TypeError(f"weight: device {layer.weight.device}, expected a CPU tensor")
    trits, scale = _values(layer, bitnet)
    bias = layer.bias
    if bias is not None and isinstance(layer, bitnet.AutoBitLinear) and not layer.online_quant:
        bias = (wide(bias) * scale).to(bias.dtype)  # which it adds before the scale
    matrix = pack(trits.numpy(), scale.numpy(), encoding)
    return TernaryLinear(matrix, bias, layer.rms_norm).train(layer.training)


def _norms(layers: list[Any]) -> float | None:
    """The epsilon of the norm that every layer has of its own, None without; ValueError for
    several, of which a config can say one."""
    norms = [each.rms_norm for each in layers if hasattr(each, "rms_norm")]
    found = {None if each is None else _epsilon(each) for each in norms}
    if len(found) > 1:
        raise ValueError(
            f"model: layers have {', '.join(sorted(map(str, found)))} for the epsilon of their own "
            "norms, expected one for all (to_ternary replaces any)"
        )
    return found.pop() if found else None


def _epsilon(norm: Any) -> float:
    """Of a norm of PyTorch's or of transformers'."""
    return float(norm.eps if hasattr(norm, "eps") else norm.variance_epsilon)


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


def _declare(model: Any, epsilon: float | None) -> None:
    """Say in the config what `save_pretrained` will write: trits whose scale is multiplied by, the
    norms of layers, of this epsilon, and which layers are no trits, where more are than the head.
    """
    from transformers import BitNetQuantConfig

    found = getattr(model.config, "quantization_config", None)
    if not isinstance(found, BitNetQuantConfig):
        found = model.config.quantization_config = BitNetQuantConfig()
    found.linear_class, found.quantization_mode = "autobitlinear", "offline"
    found.use_rms_norm = epsilon is not None
    if epsilon is not None:
        found.rms_norm_eps = epsilon
    floats = [name for name, each in model.named_modules() if isinstance(each, nn.Linear)]
    if set(floats) - {"lm_head"}:
        found.modules_to_not_convert = floats
    # How weights were unpacked when they were loaded, which transformers cannot do backwards.
    if hasattr(model, "_weight_conversions"):
        del model._weight_conversions


def _factor(layer: TernaryLinear) -> Tensor:
    """What an AutoBitLinear multiplies its bias by, which files have divided by that: its scale, if
    that is one of all inputs."""
    scale = layer.matrix.scale
    return torch.ones(()) if scale is None or scale.ndim > 1 else torch.from_numpy(np.array(scale))


def _divide_bias(layer: Any, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    state[f"{prefix}bias"] = wide(state[f"{prefix}bias"]) / _factor(layer)


def _multiply_bias(layer: Any, state: dict[str, Any], prefix: str, *of_loading: Any) -> None:
    """The layer has the scale of the same state already."""
    if f"{prefix}bias" in state:
        state[f"{prefix}bias"] = wide(state[f"{prefix}bias"]) * _factor(layer)
