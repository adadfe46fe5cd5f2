"""Gated delta nets in GGUF files, as llama.cpp reads and writes them.

There the value heads that share a key head lie `delta_key_heads` apart, and rates are negative.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ternops.decoder.architectures import PERIOD, TAPS, Gguf, delta_layers
from ternops.decoder.config import Config
from ternops.decoder.formats.checkpoint import Checkpoint
from ternops.decoder.formats.gguf_metadata import Keys

_SECTIONS = "rope.dimension_sections"
_LAYERS = "attention.recurrent_layers"


def read_delta(keys: Keys, form: Gguf, layers: int) -> dict[str, Any]:
    """The fields of `Config` for layers with a delta net."""
    if not form.hybrid:
        return {}
    if (taps := keys.integer("ssm.conv_kernel")) != TAPS:
        raise ValueError(f"config: {form.name}.ssm.conv_kernel is {taps}, expected {TAPS}")
    heads, size = keys.integer("ssm.time_step_rank"), keys.integer("ssm.state_size")
    if (inner := keys.integer("ssm.inner_size")) != heads * size:
        raise ValueError(
            f"config: {form.name}.ssm.inner_size is {inner}, expected {heads} heads of {size}"
        )
    if _LAYERS in keys:
        found = tuple(map(int, keys.numbers(_LAYERS)))[:layers]
    else:
        period = keys.integer("full_attention_interval", PERIOD)
        if period < 1:
            raise ValueError(
                f"config: {form.name}.full_attention_interval is {period}, expected 1 or more"
            )
        found = delta_layers(layers, period)
    if not any(found):
        return {}
    return {
        "delta_layers": found, "delta_heads": heads, "delta_value_dim": size,
        "delta_key_heads": keys.integer("ssm.group_count"), "delta_key_dim": size,
        "delta_tiled": True,
    }  # fmt: skip


def check_sections(keys: Keys, form: Gguf, rotated: int) -> None:
    """All three of a text's positions are alike, and the fourth is 0: no pair may have that."""
    sections = [int(each) for each in keys.numbers(_SECTIONS)]
    if sections[:3] != _sections(rotated)[:3]:
        raise ValueError(
            f"config: {form.name}.{_SECTIONS} is {sections}, expected {_sections(rotated)} for "
            f"{rotated} rotated dimensions"
        )


def _sections(rotated: int) -> list[int]:
    """How many pairs turn with each of four positions, taken in turn."""
    pairs = rotated // 2
    return [-(-(pairs - at) // 3) for at in range(3)] + [0]


def delta_keys(config: Config, form: Gguf) -> dict[str, Any]:
    """The opposite of `read_delta`; ValueError for what llama.cpp has no setting for."""
    if not form.hybrid:
        if config.rotated != config.head_dim:
            raise ValueError(f"config: rotary_dim is {config.rotary_dim}, expected all of a head")
        return {}
    c = config
    heads, size, key_heads = c.delta_heads, c.delta_value_dim, c.delta_key_heads
    if not any(c.delta_layers):  # sizes of none
        heads, size, key_heads = 1, 1, 1
    elif size != c.delta_key_dim:
        raise ValueError(
            f"config: delta_key_dim is {c.delta_key_dim} and delta_value_dim {size}, which "
            f"llama.cpp's {form.name} has one setting for"
        )
    layers = list(c.delta_layers) or [0] * c.layers
    period = [*layers, 0].index(0) + 1
    keys: dict[str, Any] = {
        "ssm.conv_kernel": TAPS, "ssm.inner_size": heads * size, "ssm.state_size": size,
        "ssm.time_step_rank": heads, "ssm.group_count": key_heads,
        "full_attention_interval": period, _SECTIONS: _sections(c.rotated),
    }  # fmt: skip
    if layers != list(delta_layers(c.layers, period)):
        keys[_LAYERS] = layers
    return keys


def tiled_heads(config: Config) -> npt.NDArray[np.intp]:
    """The number of each value head of a GGUF file among those that lie beside one another."""
    ratio = config.delta_heads // config.delta_key_heads
    return np.arange(config.delta_heads).reshape(-1, ratio).T.reshape(-1)


def moved(config: Config, name: str, array: npt.NDArray[Any], axis: int = 0) -> npt.NDArray[Any]:
    """What has the value heads along an axis, with them as GGUF files have them."""
    if config.delta_tiled or config.delta_heads == config.delta_key_heads:
        return array
    heads, order = config.delta_heads, tiled_heads(config)
    first = 2 * config.delta_key_heads * config.delta_key_dim if name in ("qkv", "taps") else 0
    array = np.moveaxis(array, axis, 0)
    values = array[first:]
    if len(values) % heads:
        raise ValueError(
            f"checkpoint: {name} has scales of {len(values)} groups, expected whole groups in each "
            f"of the {heads} heads, which are in another order in GGUF files"
        )
    values = values.reshape(heads, -1, *array.shape[1:])[order].reshape(values.shape)
    return np.ascontiguousarray(np.moveaxis(np.concatenate([array[:first], values]), 0, axis))


def moved_trits(
    checkpoint: Checkpoint, layer: int, name: str
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Trits and scale of a matrix as GGUF files have them."""
    trits, scale = checkpoint.trits(layer, name)
    config = checkpoint.config
    if name in ("qkv", "z"):
        return moved(config, name, trits), moved(config, name, scale) if scale.ndim else scale
    if name == "out":
        grouped = scale.ndim == 2
        return moved(config, name, trits, 1), moved(config, name, scale, 1) if grouped else scale
    return trits, scale


def file_vector(checkpoint: Checkpoint, layer: int, name: str) -> npt.NDArray[np.float32]:
    """A name in VECTORS as GGUF files have it."""
    config, vector = checkpoint.config, checkpoint.vector(layer, name)
    if name == "taps":
        return moved(config, name, np.ascontiguousarray(vector.T))
    if name in ("forget", "write"):
        return moved(config, name, vector)
    vector = moved(config, name, vector[0])
    return -vector if name == "forget_rate" else vector
