"""Random LoRA adapters, in memory and as peft's files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from ternops.decoder import Config
from ternops.decoder.adapter import Adapter, LowRank
from ternops.decoder.architectures import ARCHITECTURES

CONFIG = {"peft_type": "LORA", "r": 3, "lora_alpha": 6, "target_modules": ["q_proj"]}


def random_adapter(
    config: Config, rank: int = 3, names: Sequence[str] | None = None,
    layers: Sequence[int] | None = None, seed: int = 0,
) -> Adapter:  # fmt: skip
    """Of some linear layers (None: all) that changes results by about a third."""
    random = np.random.default_rng((seed, 7))
    found: list[dict[str, LowRank]] = [{} for _ in range(config.layers)]
    for layer in range(config.layers) if layers is None else layers:
        for name, (rows, columns) in config.linear_shapes(layer).items():
            if names is None or name in names:
                a = random.normal(0, columns**-0.5, (rank, columns)).astype(np.float32)
                b = random.normal(0, 0.3, (rows, rank)).astype(np.float32)
                found[layer][name] = LowRank(a, b, 0.75)
    return Adapter(found)


def tensors_of(config: Config, adapter: Adapter) -> dict[str, Any]:
    """By peft's names."""
    form = ARCHITECTURES[config.architecture].hugging_face[0]
    found = {}
    for number, layer in enumerate(adapter.layers):
        for name, each in layer.items():
            module = form.matrix(number, name).removesuffix(".weight")
            found[f"base_model.model.{module}.lora_A.weight"] = each.a
            found[f"base_model.model.{module}.lora_B.weight"] = each.b
    return found


def write(folder: Path, tensors: Mapping[str, Any], settings: Mapping[str, Any] = CONFIG) -> Path:
    """A folder as peft writes it."""
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(dict(settings)), "utf-8")
    safetensors.numpy.save_file(
        dict(tensors), folder / "adapter_model.safetensors", {"format": "pt"}
    )
    return folder
