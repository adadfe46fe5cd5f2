"""What a config.json says of gated delta nets, and of rope for a part of each head."""

from __future__ import annotations

from typing import Any

from ternops.decoder.architectures import PERIOD, TAPS, HuggingFace, delta_layers
from ternops.decoder.formats.hugging_face_rope import first_given
from ternops.shown import shown

#: What rope's settings say of the rotated part. Sections are of positions in images: those of a
#: text are alike in all of them.
ROTARY = ("partial_rotary_factor", "mrope_section", "mrope_interleaved")
_KINDS = {"full_attention": 0, "linear_attention": 1}
#: Fields of `Config`, the keys, and what transformers takes without.
_SIZES = {
    "delta_heads": ("linear_num_value_heads", 32),
    "delta_key_heads": ("linear_num_key_heads", 16),
    "delta_key_dim": ("linear_key_head_dim", 128),
    "delta_value_dim": ("linear_value_head_dim", 128),
}


def rotary_dim_of(raw: dict[str, Any], form: HuggingFace, head_dim: Any) -> int:
    """The dimensions of a head that are rotated, 0 for all."""
    if form.partial == 1 or not isinstance(head_dim, int):
        return 0
    parameters = raw.get("rope_parameters") or raw.get("rope_scaling")
    inner = parameters.get("partial_rotary_factor") if isinstance(parameters, dict) else None
    part = first_given(inner, raw.get("partial_rotary_factor"), form.partial)
    if not isinstance(part, int | float) or isinstance(part, bool) or not 0 < part <= 1:
        raise ValueError(
            f"config: partial_rotary_factor is {shown(part)}, expected above 0 and up to 1"
        )
    rotated = int(head_dim * part)
    if rotated < 2 or rotated % 2:
        raise ValueError(
            f"config: partial_rotary_factor is {shown(part)}, expected an even number of the "
            f"{head_dim} dimensions of a head"
        )
    return 0 if rotated == head_dim else rotated


def delta_fields(raw: dict[str, Any], layers: Any) -> dict[str, Any]:
    """The fields of `Config` for layers with a delta net."""
    taps = first_given(raw.get("linear_conv_kernel_dim"), TAPS)
    if taps != TAPS:
        raise ValueError(f"config: linear_conv_kernel_dim is {shown(taps)}, expected {TAPS}")
    kinds = raw.get("layer_types")
    if kinds is None:
        period = first_given(raw.get("full_attention_interval"), PERIOD)
        if not isinstance(period, int) or isinstance(period, bool) or period < 1:
            raise ValueError(
                f"config: full_attention_interval is {shown(period)}, expected a number from 1 on"
            )
        found = delta_layers(layers, period)
    else:
        if not isinstance(kinds, list) or len(kinds) != layers:
            raise ValueError(
                f"config: layer_types is {shown(kinds)}, expected one for each of the "
                f"{layers} layers"
            )
        for kind in kinds:
            if kind not in _KINDS:
                raise ValueError(
                    f"config: layer_types has {shown(kind)}, expected "
                    f"{' or '.join(map(repr, _KINDS))}"
                )
        found = tuple(_KINDS[kind] for kind in kinds)
    if not any(found):
        return {}
    # The convolution's, too, which is silu here.
    activation = raw.get("hidden_act", "silu")
    if activation not in ("silu", "swish"):
        raise ValueError(
            f"config: hidden_act is {shown(activation)}, expected silu of a model with "
            "linear_attention"
        )
    sizes = {name: first_given(raw.get(key), usual) for name, (key, usual) in _SIZES.items()}
    return {"delta_layers": found, **sizes}
