"""A Hugging Face config.json, and what else says what a decoder looks like."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from ternops.decoder.architectures import Architecture, HuggingFace, find_hugging_face
from ternops.decoder.config import INT8, Config, check_positive, check_size
from ternops.decoder.formats.hugging_face_delta import ROTARY, delta_fields, rotary_dim_of
from ternops.decoder.formats.hugging_face_rope import Rope, first_given, read_rope
from ternops.decoder.formats.json_files import read_object, read_optional
from ternops.decoder.formats.neutral import check_hugging_face
from ternops.decoder.formats.tokenizer_config import end_token
from ternops.shown import shown

#: What transformers calls activations; "gelu" alone is another function.
_ACTIVATIONS = {
    "silu": "silu", "swish": "silu", "relu2": "relu2", "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
}  # fmt: skip
_FULL, _SLIDING = "full_attention", "sliding_attention"
#: The defaults of transformers: a window, the first layer that has one, each layer without one.
_WINDOW, _FIRST_WINDOW, _PATTERN = 4096, 28, 6
#: Keys that count where a form says so; neutral elsewhere.
_MUP = ("scale_emb", "scale_depth", "dim_model_base")


def read_config(folder: Path) -> Config:
    """The Config of a Hugging Face folder.

    Tokens that end a text are those of config.json, of generation_config.json and the eos_token of
    the tokenizer: a chat often ends with another one than a document.
    Raises FileNotFoundError without a config.json, ValueError for one that is damaged or describes
    something that this decoder is not.
    """
    raw = read_raw(folder)
    return replace(config_of(raw), eos=_ends(folder, raw))


def config_of(raw: dict[str, Any]) -> Config:
    """The same of a config.json alone, as `read_raw` gives it, without tokens that end a text."""
    architecture, form = find_hugging_face(raw)
    if form.strict:
        _check_program(raw, architecture, form)
    heads = _required(raw, "num_attention_heads")
    head_dim = _head_dim(raw, heads, form.head_dim)
    context = _required(raw, "max_position_embeddings", form.context)
    check_size("head_dim", head_dim)
    rotary_dim = rotary_dim_of(raw, form, head_dim)
    rope, local_theta = _ropes(raw, form, rotary_dim or head_dim, context)
    hidden, layers = _required(raw, "hidden_size"), _required(raw, "num_hidden_layers")
    check_size("layers", layers)
    quantization = object_of(raw, "quantization_config")
    epsilon = raw.get("rms_norm_eps", form.epsilon)
    config = Config(
        hidden=hidden,
        ffn=_required(raw, "intermediate_size"),
        layers=layers,
        heads=heads,
        kv_heads=first_given(raw.get("num_key_value_heads"), heads),
        head_dim=head_dim,
        vocabulary=_required(raw, "vocab_size"),
        context=context,
        activation=_activation(raw, form),
        architecture=architecture.name,
        tied=_tied(raw, form),
        rope_theta=rope.theta,
        epsilon=epsilon,
        rope_factors=rope.factors,
        rope_long_factors=rope.long_factors,
        rope_original=rope.original,
        rope_scale=rope.scale,
        rope_local_theta=local_theta,
        inner_norms=bool(quantization.get("use_rms_norm")),
        inner_epsilon=first_given(quantization.get("rms_norm_eps"), 1e-6),
        activation_quantization=first_given(quantization.get("activation_quantization"), INT8),
        query_scalar=_query_scalar(raw, form),
        rotary_dim=rotary_dim,
        **(delta_fields(raw, layers) if form.hybrid else {}),
    )
    config = replace(_with_scales(raw, form, config), windows=_windows(raw, form, layers))
    check_hugging_face(raw, config, form.settings, _read(form))
    return config


def read_raw(folder: Path) -> dict[str, Any]:
    """config.json; of a program that also sees, with what it says of text in place of the rest."""
    raw = read_object(folder / "config.json")
    _, form = find_hugging_face(raw)
    if not form.nested:
        return raw
    kept: dict[str, Any] = {
        key: raw[key] for key in ("architectures", "tie_word_embeddings") if key in raw
    }
    return {**raw, **object_of(raw, form.nested), **kept}


def _activation(raw: dict[str, Any], form: HuggingFace) -> str:
    name = _required(raw, form.activation_key, form.activation)
    if not isinstance(name, str) or name not in _ACTIVATIONS:
        expected = " or ".join(_ACTIVATIONS)
        raise ValueError(f"config: {form.activation_key} is {name!r}, expected {expected}")
    return _ACTIVATIONS[name]


def _read(form: HuggingFace) -> set[str]:
    """Keys that would be refused, and that this form reads."""
    keys = set(_MUP) if form.mup else set()
    if form.windows or form.hybrid:
        keys.add("layer_types")
    if form.query_scalar is not None:
        keys.add("query_pre_attn_scalar")
    return keys


def _query_scalar(raw: dict[str, Any], form: HuggingFace) -> Any:
    if form.query_scalar is None:
        return 0.0
    value = first_given(raw.get("query_pre_attn_scalar"), form.query_scalar)
    check_positive("query_pre_attn_scalar", value)
    return float(value)


def _with_scales(raw: dict[str, Any], form: HuggingFace, config: Config) -> Config:
    if form.scales_embedding:
        return replace(config, embedding_scale=config.hidden**0.5)
    if not form.mup:
        return config
    embedding, depth, base = (first_given(raw.get(key), 1) for key in _MUP)
    for key, value in zip(_MUP, (embedding, depth, base), strict=True):
        check_positive(key, value)
    return replace(
        config,
        embedding_scale=float(embedding),
        residual_scale=depth / math.sqrt(config.layers),
        logit_scale=base / config.hidden,
    )


def _windows(raw: dict[str, Any], form: HuggingFace, layers: int) -> tuple[int, ...]:
    """Of each layer; empty for none."""
    if not form.windows:
        return ()
    window = raw.get("sliding_window", _WINDOW)
    if form.windows == "upper" and not raw.get("use_sliding_window"):
        window = None
    kinds = raw.get("layer_types")
    if kinds is None:
        kinds = _layer_types(raw, form, layers, window)
    if not isinstance(kinds, list) or len(kinds) != layers:
        raise ValueError(
            f"config: layer_types is {shown(kinds)}, expected one for each of the {layers} layers"
        )
    for kind in kinds:
        if kind not in (_FULL, _SLIDING):
            raise ValueError(
                f"config: layer_types has {shown(kind)}, expected {_FULL!r} or {_SLIDING!r}"
            )
    if _SLIDING not in kinds:
        return ()
    if not isinstance(window, int) or isinstance(window, bool) or window < 1:
        raise ValueError(f"config: sliding_window is {shown(window)}, expected a number from 1 on")
    return tuple(window if kind == _SLIDING else 0 for kind in kinds)


def _layer_types(raw: dict[str, Any], form: HuggingFace, layers: int, window: Any) -> list[str]:
    """What the form takes where config.json does not list them."""
    if form.windows == "upper":
        first = first_given(raw.get("max_window_layers"), _FIRST_WINDOW)
        if not isinstance(first, int):
            raise ValueError(f"config: max_window_layers is {shown(first)}, expected an integer")
        first = layers if window is None else first
        return [_SLIDING if layer >= first else _FULL for layer in range(layers)]
    each = first_given(raw.get("sliding_window_pattern"), _PATTERN)
    if not isinstance(each, int) or isinstance(each, bool) or each < 1:
        raise ValueError(
            f"config: sliding_window_pattern is {shown(each)}, expected a number from 1 on"
        )
    return [_SLIDING if (layer + 1) % each else _FULL for layer in range(layers)]


def _check_program(raw: dict[str, Any], architecture: Architecture, form: HuggingFace) -> None:
    """transformers chooses the program by model_type and, if the user allows it, by auto_map;
    BitNet's published folders have either of any kind."""
    kind = raw.get("model_type", form.model_type)
    if kind != form.model_type:
        raise ValueError(
            f"config: model_type is {shown(kind)}, expected {form.model_type!r} of a {form.program}"
        )
    program = object_of(raw, "auto_map").get("AutoModelForCausalLM")
    # Of another repository on the hub: its name, and two hyphens.
    if program is not None and str(program).split("--")[-1] != form.code:
        warnings.warn(
            f"config: auto_map names a program, {shown(program)}, which is not run: the model is "
            f"computed as a plain {architecture.title}",
            stacklevel=2,
        )


def _head_dim(raw: dict[str, Any], heads: Any, default: int | None) -> Any:
    given, hidden = raw.get("head_dim", default), _required(raw, "hidden_size")
    if given is not None:
        return given
    if not isinstance(heads, int) or not isinstance(hidden, int) or heads < 1 or hidden % heads:
        raise ValueError(
            f"config: hidden_size {shown(hidden)} over {shown(heads)} heads, no head_dim"
        )
    return hidden // heads


def _tied(raw: dict[str, Any], form: HuggingFace) -> bool:
    """A program without a head has no other than its embedding."""
    has_head = form.program in raw["architectures"]
    tied = first_given(raw.get("tie_word_embeddings"), form.tied) if has_head else True
    if not isinstance(tied, bool):
        raise ValueError(f"config: tie_word_embeddings is {shown(tied)}, expected true or false")
    return tied


def _ends(folder: Path, raw: dict[str, Any]) -> tuple[int, ...]:
    """Without repetitions, those of config.json first."""
    vocabulary = raw["vocab_size"]
    ends = _end_ids("config", raw, vocabulary)
    generation = read_optional(folder / "generation_config.json")
    ends += _end_ids("generation_config", generation, vocabulary)
    end = end_token(folder)
    if end is not None:
        ends.append(end)
    return tuple(dict.fromkeys(ends))


def _end_ids(file: str, raw: dict[str, Any], vocabulary: Any) -> list[int]:
    """Those of a file; with a warning, without a number that no token has."""
    eos = raw.get("eos_token_id")
    ends = eos if isinstance(eos, list) else [] if eos is None else [eos]
    if not all(isinstance(each, int) and not isinstance(each, bool) for each in ends):
        raise ValueError(
            f"{file}: eos_token_id is {shown(eos)}, expected an integer or a list of them"
        )
    if isinstance(vocabulary, int):
        for each in ends:
            if not 0 <= each < vocabulary:
                warnings.warn(
                    f"{file}: eos_token_id is {each}, expected 0 to {vocabulary - 1}: there is no "
                    "such token",
                    stacklevel=2,
                )
        ends = [each for each in ends if 0 <= each < vocabulary]
    return list(ends)


def _ropes(raw: dict[str, Any], form: HuggingFace, head_dim: Any, context: Any) -> tuple[Rope, Any]:
    """That of layers without a window, and the base of those with one (0: no other), from the key
    of transformers 5 or from those before it."""
    theta = first_given(raw.get("rope_theta"), form.rope_theta)
    scaling, parameters = object_of(raw, "rope_scaling"), object_of(raw, "rope_parameters")
    if form.local_theta is None:
        flat = scaling or parameters
        for name, part in flat.items():
            if isinstance(part, dict):
                raise ValueError(f"config: rope of {name!r} alone, expected one for all layers")
        flat = {"partial_rotary_factor": raw.get("partial_rotary_factor"), **flat}
        if form.partial != 1:
            flat = {key: value for key, value in flat.items() if key not in ROTARY}
        original = raw.get("original_max_position_embeddings")
        return read_rope(flat, theta, head_dim, context, original), 0.0
    for name in parameters:
        if name not in (_FULL, _SLIDING):
            raise ValueError(
                f"config: rope_parameters has {name!r}, expected one object for {_FULL!r} and one "
                f"for {_SLIDING!r}"
            )
    rope = read_rope({**object_of(parameters, _FULL), **scaling}, theta, head_dim, context, None)
    local_theta = first_given(raw.get("rope_local_base_freq"), form.local_theta)
    local = read_rope(object_of(parameters, _SLIDING), local_theta, head_dim, context, None)
    if local != Rope(local.theta):
        raise ValueError(f"config: rope of {_SLIDING!r} is scaled, expected the type 'default'")
    check_positive("rope_theta", local.theta)
    return rope, float(local.theta)


def object_of(raw: dict[str, Any], key: str) -> dict[str, Any]:
    """The object at a key of config.json, {} without one."""
    value = raw.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"config: {key} is {shown(value)}, expected an object")
    return value


def _required(raw: dict[str, Any], key: str, default: Any = None) -> Any:
    if key not in raw and default is None:
        raise ValueError(f"config: {key} is missing")
    return raw.get(key, default)
