"""Small Hugging Face folders: a valid one to begin with, and what a test changes in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from ternops.decoder import Model

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


def quantized(random: Any, scale: float, packed: bool = True) -> tuple[dict[str, Any], ...]:
    """Tensors with random trits and weight_scale in their linear layers, and the trits.

    packed: as bytes of four, else as floats.
    """
    values, trits = tensors(), {}
    for name in [name for name in values if "_proj" in name]:
        trits[name] = random.integers(-1, 2, values[name].shape, np.int8)
        values[name] = pack(trits[name]) if packed else trits[name].astype(np.float16)
        values[f"{name}_scale"] = np.full(1, scale, np.float32)
    return values, trits


def pack(trits: Any) -> Any:
    """Trit by trit: row r of n goes to byte row r % ceil(n/4), 2 * (r // ceil(n/4)) bits up."""
    step = -(-len(trits) // 4)
    packed = np.zeros((step, trits.shape[1]), np.uint8)
    for row, codes in enumerate(trits + 1):
        packed[row % step] |= (codes << 2 * (row // step)).astype(np.uint8)
    return packed


def quantization(kind: str) -> dict[str, Any]:
    """CONFIG of an AutoBitLinear that is "online" or "offline", or of a "bitlinear"."""
    settings = {"quant_method": "bitnet"}
    if kind != "bitlinear":
        settings |= {"linear_class": "autobitlinear", "quantization_mode": kind}
    return {**CONFIG, "quantization_config": settings}


def write_bf16(path: Path, values: dict[str, Any]) -> None:
    """A safetensors file whose float tensors are cut off to bfloat16, which NumPy has not."""
    header, data = {}, b""
    for name, each in values.items():
        kind, raw = "U8", each
        if each.dtype != np.uint8:
            kind, raw = "BF16", (each.astype(np.float32).view(np.uint32) >> 16).astype("<u2")
        ends = [len(data), len(data) + raw.nbytes]
        header[name] = {"dtype": kind, "shape": each.shape, "data_offsets": ends}
        data += raw.tobytes()
    write_raw(path, header, data)


def write_raw(path: Path, header: Any, data: bytes = b"") -> None:
    """A safetensors file with any header (text or an object) and any data."""
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def refused(folder: Path, words: str, error: type[Exception] = ValueError) -> None:
    """Loading raises in one line that holds all the words."""
    with pytest.raises(error) as caught:
        Model.from_pretrained(folder, threads=1)
    message = str(caught.value)
    assert "\n" not in message
    for word in words.split():
        assert word in message
