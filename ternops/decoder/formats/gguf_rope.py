"""Rope as a GGUF file has it, read as llama.cpp reads it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ternops.decoder.architectures import Gguf
from ternops.decoder.config import Config
from ternops.decoder.formats.gguf_file import GgufFile
from ternops.decoder.formats.gguf_metadata import Keys
from ternops.decoder.formats.hugging_face_rope import Rope, read_rope

FACTORS = "rope_freqs.weight"
SHORT_FACTORS, LONG_FACTORS = "rope_factors_short.weight", "rope_factors_long.weight"

_KINDS = {"none": "none", "linear": "linear", "yarn": "yarn", "longrope": "longrope"}
#: What YaRN may say, and the values that change nothing here.
_YARN = {"yarn_ext_factor": (1.0, -1.0), "yarn_attn_factor": (1.0,), "yarn_log_multiplier": (0.0,)}


def rope_tensors(form: Gguf) -> set[str]:
    """The tensors that a program of this architecture reads."""
    return {FACTORS} | ({SHORT_FACTORS, LONG_FACTORS} if form.reads_long_factors else set())


def read_gguf_rope(file: GgufFile, keys: Keys, form: Gguf, config: Config) -> Rope:
    """What the rotation frequencies are divided by: linear scaling, YaRN, LLaMA 3.1's factors,
    those for short and long contexts."""
    # A factor counts without a type, too, but not with the type "none"; 0 stands for 1, and an old
    # key for the new one where that is missing.
    head_dim, context, theta = config.rotated, config.context, config.rope_theta
    kind = keys.choice("rope.scaling.type", _KINDS, "linear")
    factor = keys.decimal("rope.scaling.factor", keys.decimal("rope.scale_linear", 1.0)) or 1.0
    factor = 1.0 if kind == "none" else factor
    original = keys.integer("rope.scaling.original_context_length", context)
    attention = keys.decimal("rope.scaling.attn_factor", 1.0)
    if form.period and attention != 1:
        raise ValueError(
            f"config: {keys.prefix}.rope.scaling.attn_factor is {attention}, expected 1 beside "
            "layers with windows"
        )
    if kind == "yarn":
        rope = _yarn(keys, theta, head_dim, context, original, factor, attention)
    else:
        plain = () if factor == 1 else (factor,) * (head_dim // 2)
        rope = Rope(theta, plain, scale=attention)
    if FACTORS in file.tensors:
        tensor = _factors(file, FACTORS, head_dim)
        whole = np.multiply(rope.factors or 1.0, tensor)
        rope = rope._replace(factors=() if (whole == 1).all() else tuple(whole.tolist()))
    if form.reads_long_factors and LONG_FACTORS in file.tensors:
        short, long = (tuple(_factors(file, name, head_dim).tolist())
                       for name in (SHORT_FACTORS, LONG_FACTORS))  # fmt: skip
        rope = rope._replace(factors=short, long_factors=long, original=original)
    return rope


def _yarn(
    keys: Keys, theta: float, head_dim: int, context: int, original: int, factor: float,
    attention: float,
) -> Rope:  # fmt: skip
    for name, neutral in _YARN.items():
        value = keys.decimal(f"rope.scaling.{name}", neutral[0])
        if value not in neutral:
            raise ValueError(
                f"config: {keys.prefix}.rope.scaling.{name} is {value}, expected {neutral[0]}"
            )
    settings: dict[str, Any] = {
        "rope_type": "yarn",
        "factor": factor,
        "beta_fast": keys.decimal("rope.scaling.yarn_beta_fast", 32.0),
        "beta_slow": keys.decimal("rope.scaling.yarn_beta_slow", 1.0),
        "attention_factor": attention * (1 + 0.1 * math.log(factor) if factor > 1 else 1.0),
    }
    return read_rope(settings, theta, head_dim, context, original)


def _factors(file: GgufFile, name: str, head_dim: int) -> Any:
    file.tensor(name, (head_dim // 2,), ("F32",))
    return file.floats(name)[0].astype(np.float64)
