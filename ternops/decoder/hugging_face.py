"""Reading a Hugging Face folder: config.json and safetensors with float master weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import safetensors

from ternops.decoder.checkpoint import Checkpoint
from ternops.decoder.config import read_config
from ternops.decoder.text import load_tokenizer
from ternops.decoder.weights import HalfMatrix
from ternops.quantize import absmean

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_LINEAR = {
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
_NORMS = {
    "input": "input_layernorm",
    "attention": "self_attn.attn_sub_norm",
    "post": "post_attention_layernorm",
    "ffn": "mlp.ffn_sub_norm",
}
_DTYPES = {"BF16": np.uint16, "F16": np.float16, "F32": np.float32}


class Tensors:
    """The tensors of a folder's safetensors files, mapped into memory and read by name."""

    def __init__(self, folder: Path) -> None:
        self._where: dict[str, tuple[str, tuple[int, ...], npt.NDArray[Any]]] = {}
        for path in _files(folder):
            for name, dtype, shape, array in _map(path):
                self._where[name] = (dtype, shape, array)

    def __contains__(self, name: str) -> bool:
        return name in self._where

    def raw(self, name: str, shape: tuple[int, ...]) -> tuple[str, npt.NDArray[Any]]:
        """The tensor's safetensors dtype and its values as stored (bfloat16 as uint16)."""
        if name not in self._where:
            raise ValueError(f"checkpoint: tensor {name} is missing")
        dtype, found, array = self._where[name]
        if found != shape:
            raise ValueError(f"checkpoint: {name} has shape {found}, expected {shape}")
        if dtype not in _DTYPES:
            expected = ", ".join(_DTYPES)
            raise ValueError(f"checkpoint: {name} has dtype {dtype}, expected one of {expected}")
        return dtype, array

    def floats(self, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """The tensor as float32 (exact for each dtype that is accepted), all finite."""
        dtype, array = self.raw(name, shape)
        if dtype == "BF16":
            values = (array.astype(np.uint32) << 16).view(np.float32)
        else:
            values = array.astype(np.float32)
        if not np.isfinite(values).all():
            raise ValueError(f"checkpoint: {name} holds NaN or infinity, expected finite numbers")
        return values

    def half(self, name: str, shape: tuple[int, ...]) -> HalfMatrix:
        """The tensor in two bytes a weight: bfloat16 and float16 as they are, float32 rounded."""
        dtype, array = self.raw(name, shape)
        values = self.floats(name, shape)
        if dtype == "BF16":
            return HalfMatrix.from_bits(array, is_bf16=True)
        return HalfMatrix.from_floats(values)


class HuggingFace(Checkpoint):
    """A folder with a config.json and safetensors."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.config = read_config(folder)
        self._tensors = Tensors(folder)

    def trits(self, layer: int, name: str) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
        shape = self.config.linear_shapes()[name]
        weight = self._tensors.floats(f"model.layers.{layer}.{_LINEAR[name]}.weight", shape)
        trits, scale = absmean(weight)
        return trits, np.asarray(scale)

    def norm(self, layer: int, name: str) -> npt.NDArray[np.float32]:
        size = self.config.norm_sizes()[name]
        return self._tensors.floats(f"model.layers.{layer}.{_NORMS[name]}.weight", (size,))

    def final_norm(self) -> npt.NDArray[np.float32]:
        return self._tensors.floats("model.norm.weight", (self.config.hidden,))

    def embedding(self) -> HalfMatrix:
        shape = (self.config.vocabulary, self.config.hidden)
        return self._tensors.half("model.embed_tokens.weight", shape)

    def head(self) -> HalfMatrix:
        return self._tensors.half("lm_head.weight", (self.config.vocabulary, self.config.hidden))

    def tokenizer(self) -> Tokenizer:
        return load_tokenizer(self._folder)

    def chat_template(self) -> str | None:
        return None

    def special_tokens(self) -> dict[str, str]:
        settings = _read_object(self._folder / "tokenizer_config.json")
        tokens = {}
        for name in ("bos_token", "eos_token"):
            value = settings.get(name)
            content = value.get("content") if isinstance(value, dict) else value
            if isinstance(content, str):
                tokens[name] = content
            elif value is not None:
                raise ValueError(f"tokenizer_config.json: {name} is {value!r}, expected a string")
        return tokens


def _read_object(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds; an empty one if there is no such file."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"model: {str(path)!r} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"model: {str(path)!r} holds no object")
    return value


def _files(folder: Path) -> list[Path]:
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if not index.is_file():
        raise FileNotFoundError(f"model: {str(folder)!r} has no model.safetensors")
    try:
        names = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"model: {str(index)!r} is no shard index: {error!r}") from None
    paths = []
    for name in names:
        # A shard lies beside its index: a path in its name could point anywhere.
        if not isinstance(name, str) or Path(name).name != name:
            raise ValueError(f"model: shard {name!r}, expected a plain file name")
        if not (folder / name).is_file():
            raise FileNotFoundError(f"model: shard {name!r} is missing from {str(folder)!r}")
        paths.append(folder / name)
    return paths


def _map(path: Path) -> Iterator[tuple[str, str, tuple[int, ...], npt.NDArray[Any]]]:
    """(name, dtype, shape, values) of each tensor of a file; nothing is read yet."""
    try:
        # safetensors checks header, offsets and length; NumPy has no bfloat16 for it to give.
        with safetensors.safe_open(path, framework="numpy") as file:
            slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
            kinds = {key: (each.get_dtype(), each.get_shape()) for key, each in slices.items()}
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(f"model: {str(path)!r} is no intact safetensors file: {error}") from None
    data = np.memmap(path, np.uint8, "r")
    size = int.from_bytes(data[:8].tobytes(), "little")
    header = json.loads(data[8 : 8 + size].tobytes())
    for name, (dtype, shape) in kinds.items():
        first, last = header[name]["data_offsets"]
        raw = data[8 + size + first : 8 + size + last]
        kind = _DTYPES.get(dtype, np.uint8)
        values = np.frombuffer(raw, kind) if len(raw) else np.empty(0, kind)
        yield name, dtype, tuple(shape), values.reshape(shape) if dtype in _DTYPES else values
