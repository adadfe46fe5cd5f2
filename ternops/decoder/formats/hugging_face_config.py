"""A Hugging Face config.json, and what else says what a decoder looks like."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ternops.decoder.architectures import Architecture, HuggingFace, find_hugging_face
from ternops.decoder.config import Config, check_positive, frequencies
from ternops.decoder.formats.json_files import read_object, read_optional
from ternops.decoder.formats.neutral import check_hugging_face
from ternops.decoder.formats.tokenizer_config import end_token


def read_config(folder: Path) -> Config:
    """The Config of a Hugging Face folder.

    Tokens that end a text are those of config.json, of generation_config.json and the eos_token of
    the tokenizer: a chat often ends with another one than a document.
    Raises FileNotFoundError without a config.json, ValueError for one that is damaged or describes
    something that this decoder is not.
    """
    raw = read_object(folder / "config.json")
    architecture, form = find_hugging_face(raw)
    if form.strict:
        _check_program(raw, architecture, form)
    heads = _required(raw, "num_attention_heads")
    head_dim = _head_dim(raw, heads, form.head_dim)
    theta, factors = _rope(raw, form.rope_theta, head_dim)
    activation = _required(raw, "hidden_act")
    config = Config(
        hidden=_required(raw, "hidden_size"),
        ffn=_required(raw, "intermediate_size"),
        layers=_required(raw, "num_hidden_layers"),
        heads=heads,
        kv_heads=_first(raw.get("num_key_value_heads"), heads),
        head_dim=head_dim,
        vocabulary=_required(raw, "vocab_size"),
        context=_required(raw, "max_position_embeddings"),
        activation="silu" if activation == "swish" else activation,  # transformers has both
        architecture=architecture.name,
        tied=_tied(raw),
        rope_theta=theta,
        epsilon=raw.get("rms_norm_eps", form.epsilon),
        eos=_ends(folder, raw),
        rope_factors=factors,
    )
    check_hugging_face(raw, config, form.settings)
    return config


def _check_program(raw: dict[str, Any], architecture: Architecture, form: HuggingFace) -> None:
    """transformers chooses the program by model_type and, if the user allows it, by auto_map;
    BitNet's published folders have either of any kind."""
    kind = raw.get("model_type", form.model_type)
    if kind != form.model_type:
        raise ValueError(
            f"config: model_type is {kind!r}, expected {form.model_type!r} of a {form.program}"
        )
    program = object_of(raw, "auto_map").get("AutoModelForCausalLM")
    if program is not None:
        warnings.warn(
            f"config: auto_map names a program, {program!r}, which is not run: the model is "
            f"computed as a plain {architecture.title}",
            stacklevel=2,
        )


def _head_dim(raw: dict[str, Any], heads: Any, default: int | None) -> Any:
    given, hidden = raw.get("head_dim", default), _required(raw, "hidden_size")
    if given is not None:
        return given
    if not isinstance(heads, int) or not isinstance(hidden, int) or heads < 1 or hidden % heads:
        raise ValueError(f"config: hidden_size {hidden!r} over {heads!r} heads, no head_dim")
    return hidden // heads


def _tied(raw: dict[str, Any]) -> bool:
    tied = _first(raw.get("tie_word_embeddings"), False)
    if not isinstance(tied, bool):
        raise ValueError(f"config: tie_word_embeddings is {tied!r}, expected true or false")
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
        raise ValueError(f"{file}: eos_token_id is {eos!r}, expected an integer or a list of them")
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


def _rope(raw: dict[str, Any], theta: float, head_dim: Any) -> tuple[Any, tuple[float, ...]]:
    """rope_theta and rope_factors, from the key of transformers 5 or from those before it."""
    rope = object_of(raw, "rope_scaling") or object_of(raw, "rope_parameters")
    for name, part in rope.items():
        if isinstance(part, dict):
            raise ValueError(f"config: rope of {name!r} alone, expected one for all layers")
    theta = _first(rope.get("rope_theta"), raw.get("rope_theta"), theta)
    partial = _first(rope.get("partial_rotary_factor"), raw.get("partial_rotary_factor"), 1.0)
    if partial != 1:
        raise ValueError(f"config: partial_rotary_factor is {partial!r}, expected 1")
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return theta, ()
    if kind not in ("linear", "llama3"):
        raise ValueError(f"config: rope type {kind!r}, expected 'default', 'linear' or 'llama3'")
    check_positive("rope_theta", theta)
    if not isinstance(head_dim, int) or not 0 < head_dim < 2**24:
        raise ValueError(f"config: head_dim is {head_dim!r}, expected 1 to {2**24 - 1}")
    factor = _positive(rope, "factor")
    if kind == "linear":
        return theta, (float(factor),) * (head_dim // 2)
    low, high = _positive(rope, "low_freq_factor"), _positive(rope, "high_freq_factor")
    if not low < high:
        raise ValueError(f"config: low_freq_factor {low}, expected less than {high}, the high one")
    key = "original_max_position_embeddings"
    original = _first(raw.get(key), rope.get(key), _required(raw, "max_position_embeddings"), 0)
    check_positive(key, original)
    return theta, _llama3_factors(frequencies(theta, head_dim), factor, low, high, original)


def _llama3_factors(
    rates: npt.NDArray[np.float64], factor: float, low: float, high: float, original: float
) -> tuple[float, ...]:
    """As Llama 3.1 reaches a longer context: waves that turn less than `low` times in the
    `original` one are stretched by `factor`, those that turn more than `high` times are not."""
    turns = original * rates / (2 * math.pi)
    kept = np.clip((turns - low) / (high - low), 0, 1)
    return tuple((1 / ((1 - kept) / factor + kept)).tolist())


def _positive(raw: dict[str, Any], key: str) -> Any:
    check_positive(key, raw.get(key))
    return raw[key]


def _first(*values: Any) -> Any:
    """The first that is given: 0 counts, so that it is refused and not replaced."""
    return next(value for value in values if value is not None)


def object_of(raw: dict[str, Any], key: str) -> dict[str, Any]:
    """The object at a key of config.json, {} without one."""
    value = raw.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"config: {key} is {value!r}, expected an object")
    return value


def _required(raw: dict[str, Any], key: str) -> Any:
    if key not in raw:
        raise ValueError(f"config: {key} is missing")
    return raw[key]
