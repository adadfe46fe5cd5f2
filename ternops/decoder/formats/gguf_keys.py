"""The numbers of a Config as the metadata of a GGUF file, the opposite of `gguf_config`."""

from __future__ import annotations

import reprlib
from typing import Any

import numpy as np
import numpy.typing as npt

from ternops.decoder.architectures import Gguf
from ternops.decoder.config import Config
from ternops.decoder.formats.gguf_config import ROPE_FACTORS


def form_of(config: Config) -> Gguf:
    """What llama.cpp, or a program made from it, calls this architecture.

    Of several names, the first whose programs have this activation without being told.
    """
    forms = config.trunk.gguf
    if not forms:
        raise ValueError(f"config: architecture is {config.architecture!r}, which no GGUF file has")
    silent = [form for form in forms if form.activation == config.activation]
    return silent[0] if silent and config.activation != "silu" else forms[0]


def config_keys(config: Config, form: Gguf) -> dict[str, Any]:
    """The metadata; ints, floats and strings."""
    keys: dict[str, Any] = {
        "block_count": config.layers,
        "context_length": config.context,
        "embedding_length": config.hidden,
        "feed_forward_length": config.ffn,
        "attention.head_count": config.heads,
        "attention.head_count_kv": config.kv_heads,
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "attention.layer_norm_rms_epsilon": config.epsilon,
        "rope.dimension_count": config.head_dim,
        "rope.freq_base": config.rope_theta,
        "vocab_size": config.vocabulary,
    }
    if not form.activation:
        keys["hidden_activation"] = config.activation
    return {f"{form.name}.{key}": value for key, value in keys.items()}


def rope_tensors(config: Config) -> dict[str, npt.NDArray[np.float32]]:
    """What the frequencies are divided by, where it is not 1."""
    if not config.rope_factors:
        return {}
    return {ROPE_FACTORS: np.array(config.rope_factors, np.float32)}


def add_values(writer: Any, keys: dict[str, Any]) -> None:
    """Give them to a GGUFWriter: bool, int as uint32, float as float32, str, lists of one kind."""
    kinds = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32,
             str: writer.add_string, list: writer.add_array}  # fmt: skip
    for key, value in keys.items():
        if type(value) not in kinds:
            raise ValueError(f"{key} is {reprlib.repr(value)}, expected a number, text or a list")
        kinds[type(value)](key, value)
