"""What a decoder looks like: a few numbers, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ternops.decoder.architectures import (
    ACTIVATIONS,
    ARCHITECTURES,
    DELTA_LINEAR,
    INNER_NORMS,
    LINEAR,
    NORMS,
    TAPS,
    VECTORS,
    Architecture,
)
from ternops.shown import shown

#: The most of each size. A table of rotations is made for the context and half of head_dim, and
#: one of layers, before a weight is read: a small file may not ask for a large one.
_MOST = {"context": 2**20, "layers": 2**12, "head_dim": 2**16}
#: How the inputs of linear layers are rounded: to int8 by absmax, or as BitNet a4.8 has it.
INT8, A48 = "int8", "a4.8"
_DELTA = ("delta_heads", "delta_key_heads", "delta_key_dim", "delta_value_dim")


@dataclass(frozen=True)
class Config:
    """The numbers of one model. All sizes are counts of elements.

    hidden: the length of a token's vector between layers; ffn: of that within the feed-forward
    part. architecture: a name in ARCHITECTURES, which says what a layer consists of. rope_factors:
    what each of the rotation frequencies is divided by; empty for 1. tied: whether the embedding is
    the output head, too. eos: the tokens that end a text.

    rope_long_factors: the same where the context exceeds rope_original positions. rope_scale:
    of rotated queries and keys. windows: of each layer, the positions that a token attends to, its
    own included (0: all); empty for no windows. rope_local_theta: rope's base in layers with a
    window, whose frequencies nothing divides (0: they are those of all). query_scalar: scores are
    divided by its square root (0: head_dim). embedding_scale, residual_scale, logit_scale: factors
    of an embedding, of what attention and FFN add, and of the logits. inner_norms: whether each
    linear layer norms its own inputs, with inner_epsilon.

    rotary_dim: how many dimensions of a head are rotated, the first ones (0: all). delta_layers: of
    each layer 1 for a gated delta net and 0 for attention; empty for attention in all. Such a net
    has delta_heads, each with a state (delta_key_dim, delta_value_dim), and delta_key_heads for
    queries and keys: head h has number h * delta_key_heads // delta_heads of these or, with
    delta_tiled, h % delta_key_heads.

    activation_quantization: "int8", the inputs of linear layers by absmax, or "a4.8", those of
    BitNet a4.8 (arXiv 2411.04965, section 2.1): inputs of attention and of the feed-forward part
    are int4 by absmean; of o's inputs the larger half of a token is int8 and the rest 0; those of
    down, which ReLU^2 makes sparse, are int8.
    """

    hidden: int
    ffn: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    context: int
    activation: str = "silu"
    architecture: str = "llama"
    tied: bool = True
    rope_theta: float = 10000.0
    epsilon: float = 1e-5
    eos: tuple[int, ...] = ()
    rope_factors: tuple[float, ...] = ()
    rope_long_factors: tuple[float, ...] = ()
    rope_original: int = 0
    rope_scale: float = 1.0
    rope_local_theta: float = 0.0
    windows: tuple[int, ...] = ()
    query_scalar: float = 0.0
    embedding_scale: float = 1.0
    residual_scale: float = 1.0
    logit_scale: float = 1.0
    inner_norms: bool = False
    inner_epsilon: float = 1e-6
    rotary_dim: int = 0
    delta_layers: tuple[int, ...] = ()
    delta_heads: int = 0
    delta_key_heads: int = 0
    delta_key_dim: int = 0
    delta_value_dim: int = 0
    delta_tiled: bool = False
    activation_quantization: str = INT8

    def __post_init__(self) -> None:
        for name in ("hidden", "ffn", "layers", "heads", "kv_heads", "head_dim", "vocabulary",
                     "context"):  # fmt: skip
            check_size(name, getattr(self, name))
        if self.heads % self.kv_heads:
            raise ValueError(
                f"config: {self.heads} heads, expected a multiple of the {self.kv_heads} "
                "key/value heads"
            )
        if self.head_dim % 2:
            raise ValueError(f"config: head_dim is {self.head_dim}, expected an even number")
        if self.rotary_dim % 2 or not 0 <= self.rotary_dim <= self.head_dim:
            raise ValueError(
                f"config: rotary_dim is {self.rotary_dim}, expected an even number up to "
                f"{self.head_dim}"
            )
        if self.architecture not in ARCHITECTURES:
            expected = " or ".join(ARCHITECTURES)
            raise ValueError(f"config: architecture is {self.architecture!r}, expected {expected}")
        if self.activation not in ACTIVATIONS:
            expected = " or ".join(ACTIVATIONS)
            raise ValueError(f"config: hidden_act is {self.activation!r}, expected {expected}")
        for name in ("rope_theta", "epsilon", "rope_scale", "embedding_scale", "residual_scale",
                     "logit_scale", "inner_epsilon"):  # fmt: skip
            check_positive(name, getattr(self, name))
        for name in ("rope_local_theta", "query_scalar"):
            if getattr(self, name) != 0:
                check_positive(name, getattr(self, name))
        for name in ("rope_factors", "rope_long_factors"):
            factors = getattr(self, name)
            if len(factors) not in (0, self.rotated // 2):
                raise ValueError(f"config: {len(factors)} {name}, expected {self.rotated // 2}")
            for factor in factors:
                check_positive(name, factor)
        if len(self.windows) not in (0, self.layers):
            raise ValueError(
                f"config: {len(self.windows)} windows, expected one for each of the "
                f"{self.layers} layers"
            )
        for window in self.windows:
            if not isinstance(window, int) or not 0 <= window < 2**31:
                raise ValueError(f"config: a window is {shown(window)}, expected 0 to {2**31 - 1}")
        if self.delta_layers:
            self._check_delta()
        self._check_activations()

    def _check_activations(self) -> None:
        kind = self.activation_quantization
        if kind not in (INT8, A48):
            raise ValueError(
                f"config: activation_quantization is {shown(kind)}, expected {INT8!r} or {A48!r}"
            )
        if kind == INT8:
            return
        if self.activation != "relu2":
            raise ValueError(
                f"config: activation_quantization is {shown(kind)} and hidden_act is "
                f"{self.activation!r}, expected relu2"
            )
        for name in ("inner_norms", "delta_layers"):
            if getattr(self, name):
                raise ValueError(
                    f"config: activation_quantization is {shown(kind)} in a model with {name}, "
                    f"expected {INT8!r}"
                )

    def _check_delta(self) -> None:
        if len(self.delta_layers) != self.layers:
            raise ValueError(
                f"config: {len(self.delta_layers)} delta_layers, expected one for each of the "
                f"{self.layers} layers"
            )
        if not set(self.delta_layers) <= {0, 1}:
            raise ValueError(f"config: delta_layers is {self.delta_layers}, expected 0 or 1 each")
        if not self.trunk.delta_norms:
            raise ValueError(f"config: delta_layers in a {self.architecture}, expected none")
        for name in _DELTA:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 2**16:
                raise ValueError(f"config: {name} is {shown(value)}, expected 1 to {2**16 - 1}")
        if self.delta_heads % self.delta_key_heads:
            raise ValueError(
                f"config: {self.delta_heads} delta_heads, expected a multiple of the "
                f"{self.delta_key_heads} delta_key_heads"
            )
        if self.inner_norms:
            raise ValueError("config: inner_norms and delta_layers, expected one of them")

    @property
    def group(self) -> int:
        """Query heads that share a key/value head."""
        return self.heads // self.kv_heads

    @property
    def rotated(self) -> int:
        """The dimensions of a head that are rotated."""
        return self.rotary_dim or self.head_dim

    @property
    def trunk(self) -> Architecture:
        """What a layer consists of, and what it is called in files."""
        return ARCHITECTURES[self.architecture]

    @property
    def sizes(self) -> dict[str, int]:
        """The numbers that shapes are made of, by the names that NORMS and LINEAR have for them."""
        queries = self.heads * self.head_dim
        keys, values = (
            self.delta_key_heads * self.delta_key_dim, self.delta_heads * self.delta_value_dim
        )  # fmt: skip
        return {
            "one": 1, "hidden": self.hidden, "ffn": self.ffn, "head_dim": self.head_dim,
            "heads": self.heads, "kv_heads": self.kv_heads,
            "queries": queries, "keys": self.kv_heads * self.head_dim,
            "queries_and_gates": 2 * queries if self.trunk.gated else queries,
            "taps": TAPS, "delta_heads": self.delta_heads, "delta_value_dim": self.delta_value_dim,
            "delta_mixed": 2 * keys + values, "delta_values": values,
        }  # fmt: skip

    def is_delta(self, layer: int) -> bool:
        """Whether a layer has a delta net in place of attention."""
        return bool(self.delta_layers) and self.delta_layers[layer] == 1

    @property
    def attention_layers(self) -> int:
        """How many layers have attention."""
        return self.layers - sum(self.delta_layers)

    def place(self, layer: int) -> int:
        """The number of a layer among those of its kind."""
        deltas = sum(self.delta_layers[:layer])
        return deltas if self.is_delta(layer) else layer - deltas

    def linear_shapes(self, layer: int = 0) -> dict[str, tuple[int, int]]:
        """(outputs, inputs) of each linear layer of a block, by its name."""
        sizes, names = self.sizes, DELTA_LINEAR if self.is_delta(layer) else LINEAR
        return {name: (sizes[rows], sizes[columns]) for name, (rows, columns) in names.items()}

    @property
    def linear_weights(self) -> int:
        """The weights of all linear layers together."""
        return sum(
            rows * columns
            for layer in range(self.layers)
            for rows, columns in self.linear_shapes(layer).values()
        )

    def norms(self, layer: int = 0) -> tuple[str, ...]:
        """The norms of a block, names in NORMS."""
        if self.is_delta(layer):
            return self.trunk.delta_norms
        return self.trunk.norms + (tuple(INNER_NORMS) if self.inner_norms else ())

    def norm_sizes(self, layer: int = 0) -> dict[str, int]:
        """The size of the weight of each norm of a block, by its name."""
        sizes = self.sizes
        return {name: sizes[NORMS[name].size] for name in self.norms(layer)}

    def bias_sizes(self, layer: int = 0) -> dict[str, int]:
        """The size of each bias of a block, by the name of its linear layer."""
        sizes, names = self.sizes, () if self.is_delta(layer) else self.trunk.biases
        return {name: sizes[LINEAR[name][0]] for name in names}

    def vector_shapes(self, layer: int = 0) -> dict[str, tuple[int, int]]:
        """The shape of what a delta net has besides, by a name in VECTORS."""
        sizes, names = self.sizes, VECTORS if self.is_delta(layer) else {}
        return {name: (sizes[rows], sizes[columns]) for name, (rows, columns) in names.items()}

    def float_sizes(self, layer: int = 0) -> list[int]:
        """The sizes of all of a block that is no matrix of a linear layer."""
        vectors = [rows * columns for rows, columns in self.vector_shapes(layer).values()]
        return [*self.norm_sizes(layer).values(), *self.bias_sizes(layer).values(), *vectors]

    @property
    def normed_elements(self) -> int:
        """Elements of a token that the norms of all blocks compute."""
        sizes = self.sizes
        return sum(
            sizes[NORMS[name].size] * sizes[NORMS[name].heads]
            for layer in range(self.layers)
            for name in self.norms(layer)
        )

    def window(self, layer: int) -> int:
        """The positions that a token attends to in a layer; 0 for all."""
        return self.windows[layer] if self.windows else 0

    def seen(self, positions: int) -> int:
        """How many positions a token attends to in all layers together, the last of so many."""
        if not self.windows:
            return self.attention_layers * positions
        return sum(min(window or positions, positions) for window in self.windows)

    def rope_angles(self, local: bool = False) -> npt.NDArray[np.float64]:
        """(context, rotated/2) radians: how far each position rotates each pair of a head.

        local: in layers with a window.
        """
        return np.outer(np.arange(self.context), self.rope_turns(local))

    def rope_turns(self, local: bool = False) -> npt.NDArray[np.float64]:
        """(rotated/2,) radians: how far one position rotates each pair, as `rope_angles` has it."""
        if local and self.rope_local_theta:
            turns = frequencies(self.rope_local_theta, self.rotated)
        else:
            turns = frequencies(self.rope_theta, self.rotated)
            # As MiniCPM's own program and llama.cpp do, and transformers for a sequence that is
            # longer: by the context, so that all tokens of a sequence are rotated alike.
            is_long = self.rope_long_factors and self.context > self.rope_original
            if factors := self.rope_long_factors if is_long else self.rope_factors:
                turns = turns / np.asarray(factors)
        return turns


def check_size(name: str, value: Any) -> None:
    """Raises ValueError, naming the setting, for what is no number of layers, elements, ..."""
    most = _MOST.get(name, 2**24 - 1)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= most:
        raise ValueError(f"config: {name} is {shown(value)}, expected 1 to {most}")


def check_positive(name: str, value: Any) -> None:
    """Raises ValueError, naming the setting, for what is no number above 0."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 < value < 1e30:
        raise ValueError(f"config: {name} is {shown(value)}, expected a positive number")


def frequencies(theta: float, head_dim: int) -> npt.NDArray[np.float64]:
    """Radians a position, of each pair of a head (arXiv 2104.09864, section 3.4.1)."""
    exponents = -np.arange(0, head_dim, 2, dtype=np.float64) / head_dim
    result: npt.NDArray[np.float64] = np.float64(theta) ** exponents
    return result
