"""What a decoder looks like: the numbers of a GGUF file's metadata, checked."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from typing import Any

from ternops.decoder.architectures import Gguf, find_gguf
from ternops.decoder.config import Config, check_size
from ternops.decoder.formats.gguf_delta import check_sections, read_delta
from ternops.decoder.formats.gguf_file import GgufFile
from ternops.decoder.formats.gguf_metadata import Keys
from ternops.decoder.formats.gguf_rope import read_gguf_rope
from ternops.decoder.formats.gguf_tokenizer import end_tokens
from ternops.decoder.formats.neutral import check_gguf
from ternops.shown import shown

_ACTIVATIONS = {"silu": "silu", "swish": "silu", "swiglu": "silu", "relu2": "relu2",
                "gelu_tanh": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}  # fmt: skip


def read_config(file: GgufFile) -> Config:
    """The Config of a file.

    Raises ValueError for metadata that are damaged or describe something that this decoder is not.
    """
    if (content := file.metadata.get("general.type", "model")) != "model":
        raise ValueError(
            f"config: general.type is {shown(content)}, expected 'model': an adapter or "
            "the like is no model by itself"
        )
    architecture, form = find_gguf(file.metadata)
    if rotated := [key for key in file.metadata if key.startswith("prism.hadamard.")]:
        raise ValueError(f"config: {rotated[0]} is set, expected weights that are not rotated")
    keys = Keys(file.metadata, form.name)
    hidden, heads = keys.integer("embedding_length"), keys.integer("attention.head_count")
    head_dim = keys.integer("attention.key_length", hidden // max(heads, 1))
    rotary = keys.integer("rope.dimension_count", head_dim)
    whole = {"attention.value_length": keys.integer("attention.value_length", head_dim)}
    if form.hybrid:
        check_sections(keys, form, rotary)
    else:
        whole["rope.dimension_count"] = rotary
    for name, value in whole.items():
        if value != head_dim:
            raise ValueError(f"config: {form.name}.{name} is {value}, expected {head_dim}, a head")
    # Behind all others there may be layers that guess tokens ahead: they are not computed.
    layers = keys.integer("block_count")
    layers -= keys.integer("nextn_predict_layers", 0) if form.hybrid else 0
    check_size("layers", layers)
    embedding = file.tensors.get(form.embedding)
    rows = embedding.shape[0] if embedding and embedding.shape else None
    vocabulary = keys.integer("vocab_size", rows)
    theta = keys.decimal("rope.freq_base", 10000.0)
    config = Config(
        hidden=hidden,
        ffn=keys.integer("feed_forward_length"),
        layers=layers,
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
        rotary_dim=0 if rotary == head_dim else rotary,
        **read_delta(keys, form, layers),
    )
    if form.norm(0, "q_input") in file.tensors:  # BitNet's embedding models
        config = replace(config, inner_norms=True, inner_epsilon=config.epsilon)
    rope = read_gguf_rope(file, keys, form, config)
    windows = _windows(keys, form, config.layers)
    config = replace(
        config,
        rope_factors=rope.factors,
        rope_long_factors=rope.long_factors,
        rope_original=rope.original,
        rope_scale=rope.scale,
        windows=windows,
        rope_local_theta=keys.decimal("rope.freq_base_swa", form.local_theta) if windows else 0.0,
        query_scalar=hidden / heads if config.layers == form.wide_queries else 0.0,
        **_scales(keys, form, config),
    )
    check_gguf(file.metadata, form, config)
    return config


def _scales(keys: Keys, form: Gguf, config: Config) -> dict[str, Any]:
    """Of embeddings, of what a layer adds, and of logits."""
    if form.scales_embedding:
        return {"embedding_scale": config.hidden**0.5}
    if not form.mup:
        return {}
    # What llama.cpp takes where an old file does not say.
    return {
        "embedding_scale": keys.decimal("embedding_scale", 12.0),
        "residual_scale": keys.decimal("residual_scale", 1.4 / math.sqrt(config.layers)),
        "logit_scale": 1 / (keys.decimal("logit_scale", config.hidden / 256) or 1.0),
    }


def _windows(keys: Keys, form: Gguf, layers: int) -> tuple[int, ...]:
    """Of each layer; empty for none."""
    window = keys.integer("attention.sliding_window", 0) if form.period else 0
    if window < 0:
        raise ValueError(
            f"config: {form.name}.attention.sliding_window is {window}, expected 0 or more"
        )
    if not window:
        return ()
    period = keys.integer("attention.sliding_window_pattern", form.period)
    if period < 1:
        raise ValueError(
            f"config: {form.name}.attention.sliding_window_pattern is {period}, expected 1 or more"
        )
    found = tuple(window if at % period < period - 1 else 0 for at in range(layers))
    return found if any(found) else ()


def _activation(keys: Keys, form: Gguf, vocabulary: int, theta: float) -> str:
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
