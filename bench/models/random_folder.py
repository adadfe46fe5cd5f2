"""Random models of any layout as Hugging Face folders: sizes are real, values repeat.

Linear layers are packed trits, as published models of the architecture have them: those of
microsoft/bitnet-b1.58-2B-4T with outputs times weight_scale, those of HF1BitLLM's Llama 3 divided
by it. All other tensors are bfloat16.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.models import byte_tokenizer
from ternops.decoder import Config

#: The names of the files, that of the tensors last.
FILES = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
    "model.safetensors",
)  # fmt: skip
#: What `write_pooling` adds.
POOLING = ("modules.json", "1_Pooling")

#: Random rows before they repeat.
_ROWS = 64
_TRITS_A_BYTE = 4
#: The linear_class whose outputs are multiplied by weight_scale; the other one divides them.
_MULTIPLIES = "autobitlinear"
#: What transformers calls activations that have another name here.
_ACTIVATIONS = {"gelu_tanh": "gelu_pytorch_tanh"}
_BIAS = 0.125


@dataclass(frozen=True)
class _Tensor:
    """value: what it is filled with; None for random rows."""

    dtype: str
    shape: tuple[int, ...]
    value: float | None = None

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * {"U8": 1, "BF16": 2}[self.dtype]


def write_folder(folder: Path, config: Config, advance: Callable[[int], object]) -> None:
    """Write all FILES of a random model into an empty folder.

    advance: called with the bytes written, tensor by tensor. Memory: 64 rows of a tensor.
    """
    texts: dict[str, Any] = {
        "config.json": _config(config),
        "generation_config.json": _ends(),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            "model_max_length": config.context,
            **byte_tokenizer.SPECIAL,
        },
    }
    for file, content in texts.items():
        (folder / file).write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    (folder / "tokenizer.json").write_text(byte_tokenizer.tokenizer().to_str(), "utf-8")
    _write_tensors(folder / "model.safetensors", _tensors(config), advance)


def write_pooling(folder: Path, config: Config) -> None:
    """What makes an embedding model of a folder, as sentence-transformers writes it: the last
    token's hidden state, of length 1."""
    modules = [
        {"idx": at, "name": str(at), "path": f"{at}_{kind}" if at else "",
         "type": f"sentence_transformers.models.{kind}"}
        for at, kind in enumerate(("Transformer", "Pooling", "Normalize"))
    ]  # fmt: skip
    (folder / "modules.json").write_text(json.dumps(modules, indent=2) + "\n", "utf-8")
    (folder / "1_Pooling").mkdir()
    settings = {"word_embedding_dimension": config.hidden, "pooling_mode_lasttoken": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(settings, indent=2), "utf-8")


def tensor_bytes(config: Config) -> int:
    """Of the tensors that `write_folder` writes."""
    return sum(each.nbytes for each in _tensors(config).values())


def _ends() -> dict[str, int]:
    return {"bos_token_id": byte_tokenizer.BEGIN, "eos_token_id": byte_tokenizer.END}


def _config(config: Config) -> dict[str, Any]:
    """config.json, as transformers writes it."""
    quantization: dict[str, Any] = {"quant_method": "bitnet", "modules_to_not_convert": None}
    form = config.trunk.hugging_face[0]
    if form.linear_class == _MULTIPLIES:
        quantization |= {"linear_class": _MULTIPLIES, "quantization_mode": "offline"}
    if config.inner_norms:
        quantization |= {"use_rms_norm": True, "rms_norm_eps": config.inner_epsilon}
    return {
        "architectures": [form.program],
        "model_type": form.model_type,
        form.activation_key: _ACTIVATIONS.get(config.activation, config.activation),
        "hidden_size": config.hidden,
        "intermediate_size": config.ffn,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "vocab_size": config.vocabulary,
        "max_position_embeddings": config.context,
        "rms_norm_eps": config.epsilon,
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": config.tied,
        "attention_bias": False,
        "mlp_bias": False,
        "torch_dtype": "bfloat16",
        **_ends(),
        **_trunk(config),
        "quantization_config": quantization,
    }


def _trunk(config: Config) -> dict[str, Any]:
    """What the trunk's program alone reads: its windows and scales."""
    form = config.trunk.hugging_face[0]
    found: dict[str, Any] = {}
    if any(config.windows):
        kinds = {False: "full_attention", True: "sliding_attention"}
        found["sliding_window"] = max(config.windows)
        found["use_sliding_window"] = True
        found["layer_types"] = [kinds[window > 0] for window in config.windows]
    elif form.windows:
        found["layer_types"] = ["full_attention"] * config.layers
    if form.local_theta is not None:
        found["rope_local_base_freq"] = config.rope_local_theta
    if form.query_scalar is not None:
        found["query_pre_attn_scalar"] = config.query_scalar
    if form.mup:
        found["scale_emb"] = config.embedding_scale
        found["scale_depth"] = config.residual_scale * math.sqrt(config.layers)
        found["dim_model_base"] = round(config.logit_scale * config.hidden)
    return found


def _tensors(config: Config) -> dict[str, _Tensor]:
    """All tensors by name, in the order of the file: bfloat16 first, so that all are aligned."""
    form = config.trunk.hugging_face[0]
    table = _Tensor("BF16", (config.vocabulary, config.hidden))
    floats = {form.embedding: table}
    if not config.tied:
        floats[form.head] = table
    packed = {}
    for layer in range(config.layers):
        for name, size in config.norm_sizes(layer).items():
            one = 1 if name in form.unmoved else 1 - form.norm_offset
            floats[form.norm(layer, name)[0]] = _Tensor("BF16", (size,), one)
        for name, size in config.bias_sizes(layer).items():
            floats[form.bias(layer, name)] = _Tensor("BF16", (size,), _BIAS)
        for name, (rows, columns) in config.linear_shapes(layer).items():
            weight = form.matrix(layer, name)
            packed[weight] = _Tensor("U8", (-(-rows // _TRITS_A_BYTE), columns))
            # Weights of a deviation near 1/sqrt(columns), which keeps activations in range.
            scale = columns ** (-0.5 if form.linear_class == _MULTIPLIES else 0.5)
            floats[f"{weight}_scale"] = _Tensor("BF16", (1,), scale)
    floats[form.final_norm] = _Tensor("BF16", (config.hidden,), 1 - form.norm_offset)
    return floats | packed


def _write_tensors(
    path: Path, tensors: dict[str, _Tensor], advance: Callable[[int], object]
) -> None:
    """A safetensors file, row by row: the package writes only what is in memory all at once."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.nbytes
        header[name] = {
            "dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [start, end],
        }  # fmt: skip
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    rows: dict[tuple[str, int], npt.NDArray[Any]] = {}
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            if tensor.value is not None:
                file.write(_bf16(np.full(tensor.shape, tensor.value)).data)
            else:
                key = tensor.dtype, tensor.shape[1]
                if key not in rows:
                    rows[key] = _random_rows(*key)
                groups, rest = divmod(tensor.shape[0], _ROWS)
                for _ in range(groups):
                    file.write(rows[key].data)
                file.write(rows[key][:rest].data)
            advance(tensor.nbytes)
        file.flush()
        os.fsync(file.fileno())


def _random_rows(dtype: str, columns: int) -> npt.NDArray[Any]:
    random = np.random.default_rng(0)
    if dtype == "BF16":
        return _bf16(random.standard_normal((_ROWS, columns)) / math.sqrt(columns))
    # Of four codes, 0 to 2, at bits 0, 2, 4 and 6.
    codes = random.integers(0, 3, (_ROWS, columns, _TRITS_A_BYTE), np.uint8)
    return np.bitwise_or.reduce(codes << np.array([0, 2, 4, 6], np.uint8), axis=2)


def _bf16(values: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
    """The bits of bfloat16, cut off."""
    return (values.astype("<f4").view("<u4") >> 16).astype("<u2")
