"""What a decoder looks like: the numbers of a GGUF file's metadata, checked."""

from __future__ import annotations

import reprlib
import warnings
from dataclasses import replace
from typing import Any

import numpy as np

from ternops.decoder.architectures import Gguf, find_gguf
from ternops.decoder.config import Config
from ternops.decoder.formats.gguf_file import GgufFile
from ternops.decoder.formats.gguf_tokenizer import end_tokens
from ternops.decoder.formats.neutral import check_gguf

ROPE_FACTORS = "rope_freqs.weight"


_ACTIVATIONS = {"silu": "silu", "swish": "silu", "swiglu": "silu", "relu2": "relu2"}


def read_config(file: GgufFile) -> Config:
    """The Config of a file.

    Raises ValueError for metadata that are damaged or describe something that this decoder is not.
    """
    if (content := file.metadata.get("general.type", "model")) != "model":
        raise ValueError(
            f"config: general.type is {reprlib.repr(content)}, expected 'model': an adapter or "
            "the like is no model by itself"
        )
    architecture, form = find_gguf(file.metadata)
    if rotated := [key for key in file.metadata if key.startswith("prism.hadamard.")]:
        raise ValueError(f"config: {rotated[0]} is set, expected weights that are not rotated")
    keys = _Keys(file.metadata, form.name)
    hidden, heads = keys.integer("embedding_length"), keys.integer("attention.head_count")
    head_dim = keys.integer("attention.key_length", hidden // max(heads, 1))
    for name in ("attention.value_length", "rope.dimension_count"):
        value = keys.integer(name, head_dim)
        if value != head_dim:
            raise ValueError(f"config: {form.name}.{name} is {value}, expected {head_dim}, a head")
    embedding = file.tensors.get(form.embedding)
    rows = embedding.shape[0] if embedding and embedding.shape else None
    vocabulary = keys.integer("vocab_size", rows)
    theta = keys.decimal("rope.freq_base", 10000.0)
    config = Config(
        hidden=hidden,
        ffn=keys.integer("feed_forward_length"),
        layers=keys.integer("block_count"),
        heads=heads,
        kv_heads=keys.integer("attention.head_count_kv", heads),
        head_dim=head_dim,
        vocabulary=vocabulary,
        context=keys.integer("context_length"),
        activation=_activation(keys, form, vocabulary, theta),
        architecture=architecture.name,
        tied=form.head not in file.tensors,
        rope_theta=theta,
        epsilon=keys.decimal("attention.layer_norm_rms_epsilon"),
        eos=end_tokens(file.metadata),
    )
    check_gguf(file.metadata, form.name, config)
    return replace(config, rope_factors=_rope_factors(file, keys, head_dim))


def _activation(keys: _Keys, form: Gguf, vocabulary: int, theta: float) -> str:
    if form.activation or "hidden_activation" in keys:
        return keys.choice("hidden_activation", _ACTIVATIONS, form.activation)
    if (vocabulary, theta) not in form.published:
        raise ValueError(
            f"config: {form.name}.hidden_activation is missing, expected 'silu' or 'relu2': no "
            f"published model has {vocabulary} tokens and rope of base {theta}"
        )
    model, activation = form.published[vocabulary, theta]
    warnings.warn(
        f"config: {form.name}.hidden_activation is missing: {activation} is taken, that of {model},"
        f" which has these {vocabulary} tokens and rope of base {theta}",
        stacklevel=2,
    )
    return activation


class _Keys:
    """The metadata of one architecture."""

    def __init__(self, metadata: dict[str, Any], prefix: str) -> None:
        self._metadata, self._prefix = metadata, prefix

    def __contains__(self, name: str) -> bool:
        return f"{self._prefix}.{name}" in self._metadata

    def integer(self, name: str, default: int | None = None) -> int:
        value = self._get(name, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(
                f"config: {self._prefix}.{name} is {reprlib.repr(value)}, expected an integer"
            )
        return value

    def decimal(self, name: str, default: float | None = None) -> float:
        """The shortest decimal of a float32: the number that the model's config.json had."""
        value = self._get(name, default)
        if not isinstance(value, float):
            raise ValueError(
                f"config: {self._prefix}.{name} is {reprlib.repr(value)}, expected a float"
            )
        return float(str(np.float32(value)))

    def choice(self, name: str, choices: dict[str, str], default: str) -> str:
        value = self._get(name, default)
        if not isinstance(value, str) or value not in choices:
            expected = " or ".join(choices)
            raise ValueError(
                f"config: {self._prefix}.{name} is {reprlib.repr(value)}, expected {expected}"
            )
        return choices[value]

    def _get(self, name: str, default: Any) -> Any:
        value = self._metadata.get(f"{self._prefix}.{name}", default)
        if value is None:
            raise ValueError(f"config: {self._prefix}.{name} is missing")
        return value


def _rope_factors(file: GgufFile, keys: _Keys, head_dim: int) -> tuple[float, ...]:
    """What the rotation frequencies are divided by: linear scaling, LLaMA 3.1's factors."""
    # As llama.cpp does: a factor counts without a type, too, 0 stands for 1, and an old key for
    # the new one where that is missing.
    keys.choice("rope.scaling.type", {"none": "none", "linear": "linear"}, "linear")
    factor = keys.decimal("rope.scaling.factor", keys.decimal("rope.scale_linear", 1.0)) or 1.0
    factors = np.full(head_dim // 2, factor)
    if ROPE_FACTORS in file.tensors:
        file.tensor(ROPE_FACTORS, (head_dim // 2,), ("F32",))
        factors *= file.floats(ROPE_FACTORS)[0]
    return () if (factors == 1).all() else tuple(factors.tolist())
