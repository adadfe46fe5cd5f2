"""Small Hugging Face folders: a valid one to begin with, and what a test changes in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

CONFIG: dict[str, Any] = {
    "architectures": ["BitNetForCausalLM"],
    "hidden_act": "relu2",
    "hidden_size": 24,
    "intermediate_size": 70,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "head_dim": 10,
    "vocab_size": 33,
    "max_position_embeddings": 40,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "eos_token_id": 1,
    "quantization_config": {
        "quant_method": "bitnet",
        "linear_class": "autobitlinear",
        "quantization_mode": "online",
    },
}
FIRST = "model.layers.0.self_attn.q_proj.weight"


def tensors(dtype: Any = np.float32) -> dict[str, Any]:
    """The random tensors that CONFIG asks for, each value exact in float16."""
    random = np.random.default_rng(0)
    hidden, ffn, queries, keys = 24, 70, 30, 10
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (33, hidden),
        "lm_head.weight": (33, hidden),
        "model.norm.weight": (hidden,),
    }
    for layer in range(2):
        prefix = f"model.layers.{layer}."
        for name, shape in {
            "self_attn.q_proj": (queries, hidden),
            "self_attn.k_proj": (keys, hidden),
            "self_attn.v_proj": (keys, hidden),
            "self_attn.o_proj": (hidden, queries),
            "mlp.gate_proj": (ffn, hidden),
            "mlp.up_proj": (ffn, hidden),
            "mlp.down_proj": (hidden, ffn),
            "input_layernorm": (hidden,),
            "post_attention_layernorm": (hidden,),
            "self_attn.attn_sub_norm": (queries,),
            "mlp.ffn_sub_norm": (ffn,),
        }.items():
            shapes[f"{prefix}{name}.weight"] = shape
    return {
        name: random.standard_normal(shape).astype(np.float16).astype(dtype)
        for name, shape in shapes.items()
    }


def write(folder: Path, config: Any = None, values: Any = None) -> Path:
    """A folder with a config.json and a model.safetensors; gives the folder."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG if config is None else config))
    data = safetensors.numpy.save(tensors() if values is None else values)
    (folder / "model.safetensors").write_bytes(data)
    return folder


def write_shards(folder: Path, values: dict[str, Any], count: int) -> Path:
    """The same with the tensors spread over `count` files and an index; gives the folder."""
    write(folder)
    (folder / "model.safetensors").unlink()
    where = {name: f"model-{i % count}.safetensors" for i, name in enumerate(values)}
    for file in set(where.values()):
        part = {name: values[name] for name in values if where[name] == file}
        (folder / file).write_bytes(safetensors.numpy.save(part))
    index = {"metadata": {}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder
