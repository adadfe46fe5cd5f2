"""Reading a LoRA adapter as peft writes it: adapter_config.json and adapter_model.safetensors."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ternops.decoder.adapter import Adapter, LowRank
from ternops.decoder.architectures import ARCHITECTURES
from ternops.decoder.config import Config
from ternops.decoder.formats.json_files import read_object
from ternops.decoder.formats.placeholders import check_fetched
from ternops.decoder.formats.safetensors_file import Mapped, map_file
from ternops.half import bf16_floats
from ternops.shown import shown

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
#: How peft begins the names of tensors.
_PREFIX = "base_model.model."
_PARTS = {"lora_A.weight": "a", "lora_B.weight": "b"}
#: Settings that make another computation, and the values that do not.
_PLAIN: Mapping[str, tuple[Any, ...]] = {
    "use_dora": (None, False),
    "bias": (None, "none"),
    "lora_bias": (None, False),
    "modules_to_save": (None, []),
    "trainable_token_indices": (None, [], {}),
    "target_parameters": (None, []),
    "fan_in_fan_out": (None, False),
    "layer_replication": (None, []),
    "use_qalora": (None, False),
    "alora_invocation_tokens": (None, []),
}
#: How A and B began, where that leaves the base as it is. Others (PiSSA, OLoRA, LoftQ, CorDA) take
#: what A and B begin with away from the base's weights, each time that peft opens the adapter.
_BEGINNINGS = (None, True, False, "gaussian", "orthogonal", "eva", "lora_ga", "mica")
_BYTES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}


def read_lora(path: str | os.PathLike[str], config: Config) -> Adapter:
    """The adapter of a model with this Config.

    path: adapter_model.safetensors, with adapter_config.json beside it, or their folder. What
    stands beside W x is scale B (A x), where scale is lora_alpha / r, or, with use_rslora,
    lora_alpha / sqrt(r), and alpha_pattern and rank_pattern count. Raises FileNotFoundError and
    ValueError, naming the file and what is wrong with it: other settings, tensors of other layers,
    of modules that are no linear layers of this decoder, or of other shapes.
    """
    where = Path(path)
    weights = where / WEIGHTS if where.is_dir() else where
    if not weights.is_file():
        raise FileNotFoundError(f"lora: {os.fspath(path)!r} is neither {WEIGHTS} nor its folder")
    try:
        check_fetched(weights)
        settings = _settings(weights.parent)
        _, tensors = map_file(weights)
        return _adapter(settings, tensors, config)
    except ValueError as error:
        raise ValueError(f"lora: {os.fspath(path)!r}: {error}") from None


def _settings(folder: Path) -> dict[str, Any]:
    if not (folder / CONFIG).is_file():
        raise ValueError(f"no {CONFIG} beside it, which has the scale")
    found = read_object(folder / CONFIG)
    if found.get("peft_type") != "LORA":
        raise ValueError(f"{CONFIG}: peft_type is {shown(found.get('peft_type'))}, expected 'LORA'")
    for key, plain in _PLAIN.items():
        if found.get(key) not in plain:
            raise ValueError(f"{CONFIG}: {key} is {shown(found[key])}, expected {plain[-1]!r}")
    beginning = found.get("init_lora_weights")
    if beginning not in _BEGINNINGS:
        raise ValueError(
            f"{CONFIG}: init_lora_weights is {shown(beginning)}, which changes the base: expected "
            "what save_pretrained(path_initial_model_for_weight_conversion=...) writes"
        )
    for key in ("rank_pattern", "alpha_pattern"):
        if not isinstance(found.get(key) or {}, dict):
            raise ValueError(f"{CONFIG}: {key} is {shown(found[key])}, expected an object")
    return found


def _adapter(settings: dict[str, Any], tensors: dict[str, Mapped], config: Config) -> Adapter:
    places = _places(config)
    parts: dict[tuple[int, str], dict[str, Any]] = {}
    modules = {}
    for key in sorted(tensors):
        name = key.removeprefix(_PREFIX)
        module, _, part = name.partition(".lora_")
        kind = _PARTS.get(f"lora_{part}")
        if module not in places or kind is None:
            raise ValueError(
                f"tensor {shown(key)} is of no linear layer here, expected lora_A and lora_B of "
                f"{', '.join(sorted({each.rsplit('.', 1)[1] for each in places}))} in "
                f"{config.layers} layers"
            )
        found = parts.setdefault(places[module], {})
        if kind in found:
            raise ValueError(f"tensor {shown(key)} is there under another name as well")
        found[kind] = _floats(key, tensors[key])
        modules[places[module]] = module
    if not parts:
        raise ValueError("holds no tensors, expected lora_A and lora_B of linear layers")
    layers: list[dict[str, LowRank]] = [{} for _ in range(config.layers)]
    for (layer, name), found in parts.items():
        module, shape = modules[layer, name], config.linear_shapes(layer)[name]
        if len(found) < 2:
            missing = "B" if "a" in found else "A"
            raise ValueError(f"tensor {_PREFIX}{module}.lora_{missing}.weight is missing")
        a, b = found["a"], found["b"]
        rank = len(a)
        if (a.shape, b.shape) != ((rank, shape[1]), (shape[0], rank)) or not rank:
            raise ValueError(
                f"{module} has lora_A {a.shape} and lora_B {b.shape}, expected (r, {shape[1]}) and "
                f"({shape[0]}, r)"
            )
        layers[layer][name] = LowRank(a, b, _scale(settings, module, rank))
    return Adapter(layers)


def _places(config: Config) -> dict[str, tuple[int, str]]:
    """Linear layers by the names of modules in transformers: number of the layer, and name.

    An adapter may have been made for a program without a head, as one of an encoder is.
    """
    found = {}
    forms = ARCHITECTURES[config.architecture].hugging_face
    for form in (*forms, *(each.without_prefix() for each in forms)):
        for layer in range(config.layers):
            for name in config.linear_shapes(layer):
                found[form.matrix(layer, name).removesuffix(".weight")] = layer, name
    return found


def _scale(settings: dict[str, Any], module: str, rank: int) -> float:
    stated = _of_pattern(settings, "rank_pattern", "r", module)
    alpha = _of_pattern(settings, "alpha_pattern", "lora_alpha", module)
    if stated != rank:
        raise ValueError(f"{module} has lora_A of {rank} rows, expected r={stated:g} of {CONFIG}")
    return alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)


def _of_pattern(settings: dict[str, Any], patterns: str, key: str, module: str) -> float:
    """The setting of a module, whose name ends with that of a pattern, which may be a regular
    expression, or of all."""
    for name, each in (settings.get(patterns) or {}).items():
        try:
            is_meant = re.fullmatch(rf"(.*\.)?({name})", module)
        except re.error as error:
            raise ValueError(f"{CONFIG}: {patterns} has {shown(name)}, {error}") from None
        if is_meant:
            return _number(f"{patterns} of {name}", each)
    return _number(key, settings.get(key))


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{CONFIG}: {name} is {shown(value)}, expected a number")
    return float(value)


def _floats(name: str, tensor: Mapped) -> Any:
    if tensor.dtype not in _BYTES or len(tensor.shape) != 2:
        raise ValueError(
            f"tensor {shown(name)} is {tensor.dtype} {tensor.shape}, expected a float matrix"
        )
    values = np.frombuffer(tensor.bytes.tobytes(), _BYTES[tensor.dtype]).reshape(tensor.shape)
    values = bf16_floats(values) if tensor.dtype == "BF16" else values.astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError(f"tensor {shown(name)} holds NaN or infinity, expected finite numbers")
    return values
