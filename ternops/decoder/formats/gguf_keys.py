"""The numbers of a Config as the metadata of a GGUF file, the opposite of `gguf_config`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ternops.decoder.architectures import Gguf
from ternops.decoder.config import INT8, Config
from ternops.decoder.formats.gguf_delta import delta_keys
from ternops.decoder.formats.gguf_rope import FACTORS, LONG_FACTORS, SHORT_FACTORS
from ternops.decoder.formats.hugging_face_rope import read_rope
from ternops.shown import shown


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
        "attention.layer_norm_rms_epsilon": float(config.epsilon),
        "rope.dimension_count": config.rotated,
        "rope.freq_base": float(config.rope_theta),  # some config.json have an integer
        "vocab_size": config.vocabulary,
        **_rope_keys(config, form),
        **_scales(config, form),
        **_windows(config, form),
        **delta_keys(config, form),
    }
    if not form.activation:
        keys["hidden_activation"] = config.activation
    elif config.activation != form.activation:
        raise _cannot(config, form, "activation")
    if config.query_scalar not in (0, config.head_dim):
        raise _cannot(config, form, "query_scalar")
    if config.inner_norms:
        raise _cannot(config, form, "inner_norms")
    if config.activation_quantization != INT8:
        raise _cannot(config, form, "activation_quantization")
    return {f"{form.name}.{key}": value for key, value in keys.items()}


def _cannot(config: Config, form: Gguf, name: str) -> ValueError:
    return ValueError(
        f"config: {name} is {shown(getattr(config, name))}, which llama.cpp's {form.name} "
        "has no setting for"
    )


def _rope_keys(config: Config, form: Gguf) -> dict[str, Any]:
    """Scaling, where a tensor does not say it."""
    keys: dict[str, Any] = {}
    if config.rope_long_factors:
        if not form.reads_long_factors:
            raise _cannot(config, form, "rope_long_factors")
        keys = {
            "rope.scaling.type": "longrope",
            "rope.scaling.original_context_length": config.rope_original,
        }
    elif config.rope_factors and not form.reads_factors:
        return _yarn_or_linear(config, form)
    if config.rope_scale != 1:
        keys["rope.scaling.attn_factor"] = float(config.rope_scale)
    return keys


def _yarn_or_linear(config: Config, form: Gguf) -> dict[str, Any]:
    """The settings that give these factors."""
    factor = max(config.rope_factors)
    if set(config.rope_factors) == {factor} and config.rope_scale == 1:
        return {"rope.scaling.type": "linear", "rope.scaling.factor": factor}
    original = round(config.context / factor)
    settings = {"rope_type": "yarn", "factor": factor}
    rope = read_rope(settings, config.rope_theta, config.rotated, config.context, original)
    if not np.allclose(rope.factors, config.rope_factors) or rope.scale != config.rope_scale:
        raise _cannot(config, form, "rope_factors")
    return {
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": factor,
        "rope.scaling.original_context_length": original,
    }


def _scales(config: Config, form: Gguf) -> dict[str, float]:
    if form.mup:
        return {
            "embedding_scale": config.embedding_scale,
            "residual_scale": config.residual_scale,
            "logit_scale": 1 / config.logit_scale,
        }
    own = config.hidden**0.5 if form.scales_embedding else 1.0
    for name, expected in (("embedding_scale", own), ("residual_scale", 1), ("logit_scale", 1)):
        if getattr(config, name) != expected:
            raise _cannot(config, form, name)
    return {}


def _windows(config: Config, form: Gguf) -> dict[str, Any]:
    """Those that follow from a period, as llama.cpp has them."""
    window = max(config.windows, default=0)
    if not window:
        return {}
    period = (*config.windows, 0).index(0) + 1
    found = tuple(window if at % period < period - 1 else 0 for at in range(config.layers))
    if not form.period or found != config.windows:
        raise _cannot(config, form, "windows")
    return {
        "attention.sliding_window": window,
        "attention.sliding_window_pattern": period,
        "rope.freq_base_swa": float(config.rope_local_theta or config.rope_theta),
    }


def rope_tensors(config: Config, form: Gguf) -> dict[str, npt.NDArray[np.float32]]:
    """What the frequencies are divided by, where the architecture has a tensor for it."""
    factors = {
        FACTORS: config.rope_factors if form.reads_factors else (),
        SHORT_FACTORS: config.rope_factors if config.rope_long_factors else (),
        LONG_FACTORS: config.rope_long_factors,
    }
    return {name: np.array(each, np.float32) for name, each in factors.items() if each}


def add_values(writer: Any, keys: dict[str, Any]) -> None:
    """Give them to a GGUFWriter: bool, int as uint32, float as float32, str, lists of one kind."""
    kinds = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32,
             str: writer.add_string, list: writer.add_array}  # fmt: skip
    for key, value in keys.items():
        if type(value) not in kinds:
            raise ValueError(f"{key} is {shown(value)}, expected a number, text or a list")
        kinds[type(value)](key, value)
