"""The weights of a model of transformers for `ternops.decoder`: packed matrices where they lie."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

from ternops.decoder.architectures import INNER_NORMS, HuggingFace, find_hugging_face
from ternops.decoder.config import Config
from ternops.decoder.formats.hugging_face_config import config_of
from ternops.decoder.weights import HalfMatrix, Layer, Weights
from ternops.half import LINE
from ternops.matrix import TernaryMatrix
from ternops.torch.linear import TernaryLinear

#: Those whose layers are in transformers what they are in ternops.decoder, with tensors of the
#: same names.
_ARCHITECTURES = ("bitnet", "llama", "qwen2", "qwen3")
_THEIRS = "transformers."
#: What a layer has besides: modules that hold others, and the activation, which its config names.
_HOLDERS, _ACTIVATION = ("", "self_attn", "mlp"), "mlp.act_fn"
#: Frequencies of rope, which transformers has in float32.
_NEAR = 1e-5


class DecoderWeights:
    """Weights of the decoder within a model, without the embedding and the head, as they are now.

    model: as LlamaModel, with a TernaryLinear for each linear layer. Norms and biases are copied:
    `refresh` does it again. packed: all of them. Raises ValueError for a model that ternops.decoder
    does not compute.
    """

    def __init__(self, model: Any) -> None:
        config, self._form = _config_of(model)
        self._module = type(model).__module__
        self._activation = type(ACT2FN[model.config.hidden_act])
        #: Embedding and head stay PyTorch's: the decoder has one token, which is never looked up.
        self.config = replace(config, vocabulary=1)
        self.rotations: Tensor = model.rotary_emb.inv_freq
        self._frequencies = self.rotations.clone()
        self._check_rotations(model.rotary_emb)
        self._linear: list[TernaryLinear] = []
        self.floats: list[Tensor] = []
        layers = [self._layer(each, number) for number, each in enumerate(model.layers)]
        self.floats.append(_norm(model, "norm", config.epsilon))
        self._matrices = [(each, each._weights, each.rms_norm) for each in self._linear]
        found = {id(each) for each in [*self.floats, model.embed_tokens.weight]}
        _expect(found == {id(each) for each in model.parameters()}, "a parameter besides")
        with torch.inference_mode(False):  # or no others could be written to outside of it
            self._wide = [
                torch.empty(each.shape, dtype=torch.float32, device="cpu") for each in self.floats
            ]
        parts = iter(self._wide)
        for layer in layers:
            for vectors in (layer.norms, layer.biases):
                for name in vectors:
                    vectors[name] = next(parts).numpy()
        columns = -(-config.hidden // LINE) * LINE
        none = HalfMatrix(np.zeros((0, columns), np.uint16), config.hidden, is_bf16=False)
        self.packed = Weights(self.config, layers, next(parts).numpy(), none, none)
        self.refresh()

    def is_same(self) -> bool:
        """Whether layers have the same packed matrices and rotations still; the values of norms and
        biases may be others."""
        return all(
            layer._weights is weights and layer.rms_norm is norm
            for layer, weights, norm in self._matrices
        ) and torch.equal(self.rotations, self._frequencies)

    def refresh(self) -> None:
        """Read norms and biases anew."""
        with torch.no_grad():
            torch._foreach_copy_(self._wide, self.floats)

    def _check_rotations(self, rope: Any) -> None:
        scale = float(getattr(rope, "attention_scaling", 1.0))
        _expect(abs(scale - self.config.rope_scale) < _NEAR, "another scale of rotations")
        expected = torch.from_numpy(self.config.rope_turns())
        rates = self.rotations.double()
        _expect(bool(((rates - expected).abs() <= _NEAR * rates).all()), "other rotations")

    def _check_program(self, layer: nn.Module, number: int) -> None:
        """Whether a layer is of the classes that transformers makes it of."""
        for place in _HOLDERS:
            kind = type(layer.get_submodule(place))
            is_theirs = kind.__module__ == self._module
            _expect(is_theirs and kind.forward.__module__.startswith(_THEIRS), f"another {place}")
        activation = layer.get_submodule(_ACTIVATION)
        _expect(type(activation) is self._activation, "another activation")
        attention: Any = layer.get_submodule("self_attn")
        is_scaled = abs(attention.scaling * self.config.head_dim**0.5 - 1) < _NEAR
        _expect(is_scaled, "scores of another scale")
        _expect(attention.is_causal is True, "attention to later tokens")
        _expect(not attention.attention_dropout, "dropout in attention")
        _expect(attention.layer_idx == number, "layers in another order")

    def _layer(self, layer: nn.Module, number: int) -> Layer:
        config, form = self.config, self._form
        names = {name for name, _ in layer.named_modules(remove_duplicate=False)}
        known = {*_HOLDERS, _ACTIVATION}
        self._check_program(layer, number)
        linear: dict[str, TernaryMatrix | HalfMatrix] = {}
        for name, shape in config.linear_shapes(number).items():
            place = form.linear[name]
            found = layer.get_submodule(place)
            _expect(type(found) is TernaryLinear, f"{place} is no TernaryLinear")
            assert isinstance(found, TernaryLinear)
            _expect(found.matrix.shape == shape, f"{place} has another shape")
            _expect((found.rms_norm is not None) == config.inner_norms, f"a norm in {place}")
            linear[name] = found.matrix
            self._linear.append(found)
            known.add(place)
        norms: dict[str, Any] = {}
        for name, size in config.norm_sizes(number).items():
            inner = name in INNER_NORMS
            places = [each for each in form.norm_names(name) if each in names]
            _expect(len(places) == 1, f"no norm {name}")
            epsilon = config.inner_epsilon if inner else config.epsilon
            self.floats.append(_norm(layer, places[0], epsilon))
            _expect(self.floats[-1].shape == (size,), f"{places[0]} has another shape")
            norms[name] = None
            known.add(places[0])
        biases: dict[str, Any] = {}
        for name, size in config.bias_sizes(number).items():
            found = layer.get_submodule(form.linear[name])
            bias = found.bias
            _expect(isinstance(bias, Tensor) and bias.shape == (size,), f"no bias of {name}")
            assert isinstance(bias, Tensor)
            self.floats.append(bias)
            biases[name] = None
        _expect(names <= known, f"{', '.join(sorted(names - known))} in a layer")
        return Layer(linear, norms, biases)


def _config_of(model: Any) -> tuple[Config, HuggingFace]:
    """What a model's config says, as its config.json would."""
    kind = type(model)
    _expect(
        kind.__module__.startswith(f"{_THEIRS}models."), f"{kind.__name__} is not of transformers"
    )
    try:
        raw = json.loads(model.config.to_json_string())
    except TypeError as error:  # an attribute that no file can hold
        raise ValueError(f"model: config: {error}, expected what config.json can say") from None
    raw["architectures"] = [f"{kind.__name__.removesuffix('Model')}ForCausalLM"]
    config, (_, form) = config_of(raw), find_hugging_face(raw)
    _expect(config.architecture in _ARCHITECTURES, f"architecture {config.architecture}")
    # transformers chooses between them by how long each call is, and has caches for windows.
    _expect(not config.rope_long_factors, "rotations that change with the length")
    _expect(not any(config.windows), "windows of attention")
    _expect(len(model.layers) == config.layers, "another number of layers")
    _expect(type(model.embed_tokens) is nn.Embedding, "another embedding")
    return config, form


def _norm(module: nn.Module, place: str, epsilon: float) -> Tensor:
    norm: Any = module.get_submodule(place)
    _expect(type(norm).__name__.endswith("RMSNorm"), f"{place} is no RMS norm")
    found = norm.eps if hasattr(norm, "eps") else norm.variance_epsilon
    _expect(found == epsilon, f"{place} has another epsilon")
    weight = norm.weight
    _expect(isinstance(weight, Tensor) and weight.ndim == 1, f"{place} has no weight")
    assert isinstance(weight, Tensor)
    return weight


def _expect(is_so: bool, otherwise: str) -> None:
    if not is_so:
        raise ValueError(f"model: {otherwise}, expected what ternops.decoder computes")
