"""What a decoder looks like: the numbers of a Hugging Face config.json, checked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Architecture name -> whether it has norms before o_proj and down_proj.
_ARCHITECTURES = {"BitNetForCausalLM": True, "LlamaForCausalLM": False}
_ACTIVATIONS = ("relu2", "silu")


@dataclass(frozen=True)
class Config:
    """The shape of a decoder. All sizes are counts of elements."""

    hidden: int
    ffn: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    context: int
    activation: str = "silu"
    sub_norms: bool = False
    tied: bool = True
    rope_theta: float = 10000.0
    epsilon: float = 1e-5
    eos: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("hidden", "ffn", "layers", "heads", "kv_heads", "head_dim", "vocabulary",
                     "context"):  # fmt: skip
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 2**24:
                raise ValueError(f"config: {name} is {value!r}, expected 1 to {2**24 - 1}")
        if self.heads % self.kv_heads:
            raise ValueError(
                f"config: {self.heads} heads, expected a multiple of the {self.kv_heads} "
                "key/value heads"
            )
        if self.head_dim % 2:
            raise ValueError(f"config: head_dim is {self.head_dim}, expected an even number")
        if self.activation not in _ACTIVATIONS:
            expected = " or ".join(_ACTIVATIONS)
            raise ValueError(f"config: hidden_act is {self.activation!r}, expected {expected}")
        for name in ("rope_theta", "epsilon"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 < value < 1e30:
                raise ValueError(f"config: {name} is {value!r}, expected a positive number")

    @property
    def group(self) -> int:
        """Query heads that share a key/value head."""
        return self.heads // self.kv_heads

    def linear_shapes(self) -> dict[str, tuple[int, int]]:
        """(outputs, inputs) of each linear layer of a block, by its name."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "q": (queries, self.hidden),
            "k": (keys, self.hidden),
            "v": (keys, self.hidden),
            "o": (self.hidden, queries),
            "gate": (self.ffn, self.hidden),
            "up": (self.ffn, self.hidden),
            "down": (self.hidden, self.ffn),
        }

    @property
    def linear_weights(self) -> int:
        """The weights of all linear layers together."""
        return self.layers * sum(rows * columns for rows, columns in self.linear_shapes().values())

    def norm_sizes(self) -> dict[str, int]:
        """The size of each norm of a block, by its name."""
        sizes = {"input": self.hidden, "post": self.hidden}
        if self.sub_norms:
            sizes |= {"attention": self.heads * self.head_dim, "ffn": self.ffn}
        return sizes


def read_config(folder: Path) -> Config:
    """The Config of a Hugging Face folder.

    Raises FileNotFoundError without a config.json, ValueError for one that is damaged or describes
    something that this decoder is not.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"model: {str(folder)!r} has no config.json")
    try:
        raw = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"model: {str(path)!r} is not JSON: {error}") from None
    if not isinstance(raw, dict):
        raise ValueError(f"model: {str(path)!r} holds no object, expected a config")
    return _parse(raw)


def _parse(raw: dict[str, Any]) -> Config:
    names = raw.get("architectures")
    name = names[0] if isinstance(names, list) and names else None
    if not isinstance(name, str) or name not in _ARCHITECTURES:
        expected = " or ".join(_ARCHITECTURES)
        raise ValueError(f"config: architectures is {names!r}, expected {expected}")
    if raw.get("attention_bias") or raw.get("mlp_bias"):
        raise ValueError("config: attention_bias or mlp_bias is set, expected no biases")
    _check_quantization(_object(raw, "quantization_config"))
    rope = _object(raw, "rope_parameters") or _object(raw, "rope_scaling")
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise ValueError(f"config: rope type {kind!r}, expected 'default'")
    eos = raw.get("eos_token_id")
    ends = eos if isinstance(eos, list) else [] if eos is None else [eos]
    if not all(isinstance(each, int) for each in ends):
        raise ValueError(f"config: eos_token_id is {eos!r}, expected an integer or a list of them")
    heads = _required(raw, "num_attention_heads")
    hidden = _required(raw, "hidden_size")
    head_dim = raw.get("head_dim")
    if head_dim is None:
        if not isinstance(heads, int) or not isinstance(hidden, int) or heads < 1 or hidden % heads:
            raise ValueError(f"config: hidden_size {hidden!r} over {heads!r} heads, no head_dim")
        head_dim = hidden // heads
    return Config(
        hidden=hidden,
        ffn=_required(raw, "intermediate_size"),
        layers=_required(raw, "num_hidden_layers"),
        heads=heads,
        kv_heads=_first(raw.get("num_key_value_heads"), heads),
        head_dim=head_dim,
        vocabulary=_required(raw, "vocab_size"),
        context=_required(raw, "max_position_embeddings"),
        activation=_required(raw, "hidden_act"),
        sub_norms=_ARCHITECTURES[name],
        tied=bool(raw.get("tie_word_embeddings", False)),
        rope_theta=_first(raw.get("rope_theta"), rope.get("rope_theta"), 10000.0),
        epsilon=raw.get("rms_norm_eps", 1e-6),
        eos=tuple(ends),
    )


def _first(*values: Any) -> Any:
    """The first that is given: 0 counts, so that it is refused and not replaced."""
    return next(value for value in values if value is not None)


def _object(raw: dict[str, Any], key: str) -> dict[str, Any]:
    value = raw.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"config: {key} is {value!r}, expected an object")
    return value


def _check_quantization(quantization: dict[str, Any]) -> None:
    if not quantization:
        return
    method = quantization.get("quant_method")
    mode = quantization.get("quantization_mode", "offline")
    if method != "bitnet" or mode != "online":
        raise ValueError(
            f"config: quant_method {method!r}, quantization_mode {mode!r}; expected 'bitnet' with "
            "'online' (float master weights)"
        )


def _required(raw: dict[str, Any], key: str) -> Any:
    if key not in raw:
        raise ValueError(f"config: {key} is missing")
    return raw[key]
