"""Settings that change what a decoder computes, and the values that leave it as it is here.

Nobody can list what a config may hold: these are the settings of models close to LLaMA, which a
converter or a merge carries over. One that is missing, or null, is neutral.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ternops.decoder.architectures import Gguf
from ternops.decoder.config import Config
from ternops.decoder.formats.pooling import GGUF_MODES
from ternops.shown import shown

#: Any value of these is another model.
_NEVER: tuple[Any, ...] = ()
_OFF, _ZERO, _ONE = (False,), (0,), (1,)


def check_hugging_face(
    raw: dict[str, Any], config: Config, settings: Mapping[str, tuple[Any, ...]], read: set[str]
) -> None:
    """Raises ValueError, naming the key, for a config.json of another computation.

    settings: the keys that this architecture alone reads, and their neutral values. So a
    sliding_window is ignored where transformers, too, does not read it. read: keys that are
    in the config already.
    """
    neutral = {**_hugging_face(config), **settings}
    _check(raw, "", {key: values for key, values in neutral.items() if key not in read})


def check_gguf(metadata: dict[str, Any], form: Gguf, config: Config) -> None:
    """The same for the metadata of an architecture."""
    read = ["logit_scale", "embedding_scale", "residual_scale"] if form.mup else []
    read += ["nextn_predict_layers"] if form.hybrid else []
    neutral = {key: values for key, values in _gguf(config).items() if key not in read}
    _check(metadata, f"{form.name}.", neutral)
    if not form.period:
        _check_window(metadata, f"{form.name}.attention.sliding_window", config)


def _hugging_face(config: Config) -> dict[str, tuple[Any, ...]]:
    scaled = ("embedding_multiplier", "residual_multiplier", "logits_scaling", "logit_scale",
              "scale_emb", "lm_head_multiplier", "key_multiplier", "attention_in_multiplier",
              "attention_out_multiplier", "mlp_multipliers", "rope_ratio",
              "rotary_pct")  # fmt: skip
    off = ("attention_bias", "mlp_bias", "bias", "use_bias", "qkv_bias", "use_qk_norm", "qk_norm",
           "qk_layernorm", "alibi", "parallel_attn", "use_parallel_residual", "add_cross_attention",
           "apply_residual_connection_post_layernorm", "use_bidirectional_attention",
           "is_encoder_decoder", "rope_interleave", "rope_interleaved", "use_mup",
           "mup_enabled")  # fmt: skip
    zero = ("attn_logit_softcapping", "final_logit_softcapping", "clip_qkv", "swiglu_limit",
            "attention_chunk_size", "num_nextn_predict_layers")  # fmt: skip
    experts = ("num_experts", "num_local_experts", "n_routed_experts")
    return {
        **dict.fromkeys(off, _OFF),
        **dict.fromkeys(scaled, _ONE),
        **dict.fromkeys(zero, _ZERO),
        **dict.fromkeys(experts, (0, 1)),
        "attention_multiplier": (config.head_dim**-0.5,),
        "query_pre_attn_scalar": (config.head_dim,),
        "rotary_dim": (config.head_dim,),
        "v_head_dim": (config.head_dim,),
        "dim_model_base": (config.hidden,),
        "scale_depth": (math.sqrt(config.layers),),
        "is_causal": (True,),
        "layer_types": ("full_attention",),
        "no_rope_layers": _ONE,  # 1 where there IS rope
        "position_embedding_type": ("rope", "rotary"),
        "compression_config": _NEVER,
    }


def _gguf(config: Config) -> dict[str, tuple[Any, ...]]:
    scaled = ("logit_scale", "embedding_scale", "residual_scale", "attention.output_scale",
              "attention.value_scale", "rope.scaling.alpha")  # fmt: skip
    zero = ("expert_count", "expert_used_count", "attn_logit_softcapping",
            "final_logit_softcapping", "attention.clamp_kqv", "attention.max_alibi_bias",
            "attention.temperature_scale", "attention.shared_kv_layers", "nextn_predict_layers",
            "rescale_every_n_layers", "swiglu_clamp_exp")  # fmt: skip
    return {
        # llama.cpp takes 0 for a factor that is not given.
        **dict.fromkeys(scaled, (1, 0)),
        **dict.fromkeys(zero, _ZERO),
        "attention.scale": ((config.query_scalar or config.head_dim) ** -0.5, 0),
        "attention.causal": (True,),
        "pooling_type": (0, *GGUF_MODES),
        "use_parallel_residual": _OFF,
        "swin_norm": _OFF,
    }


def _check(raw: dict[str, Any], prefix: str, neutral: dict[str, tuple[Any, ...]]) -> None:
    for name, values in neutral.items():
        value = raw.get(prefix + name)
        if value is None or any(_is(value, each) for each in values):
            continue
        expected = " or ".join(map(repr, values)) or "no such setting"
        raise ValueError(f"config: {prefix}{name} is {shown(value)}, expected {expected}")


def _check_window(raw: dict[str, Any], key: str, config: Config) -> None:
    """A window of attention that holds the whole context changes nothing."""
    window = raw.get(key)
    if window is None or _is(window, 0):
        return
    if not isinstance(window, int) or window < config.context:
        raise ValueError(
            f"config: {key} is {shown(window)}, expected at least the context of {config.context}"
        )


def _is(value: Any, neutral: Any) -> bool:
    """Whether a value, or each of a list of them, is a neutral one; floats but for rounding."""
    if isinstance(value, list | np.ndarray):
        return all(_is(each, neutral) for each in value)
    if isinstance(neutral, float) and isinstance(value, int | float):
        return math.isclose(value, neutral, rel_tol=1e-6)
    return bool(value == neutral)
