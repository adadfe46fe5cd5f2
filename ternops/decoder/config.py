"""What a decoder looks like: a few numbers, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ternops.decoder.architectures import ACTIVATIONS, ARCHITECTURES, LINEAR, NORMS, Architecture

# A table of rotations is made for it, some 100 bytes a position, before a weight is read.
_MAX_CONTEXT = 2**20


@dataclass(frozen=True)
class Config:
    """The numbers of one model. All sizes are counts of elements.

    hidden: the length of a token's vector between layers; ffn: of that within the feed-forward
    part. architecture: a name in ARCHITECTURES, which says what a layer consists of. rope_factors:
    what each of the head_dim/2 rotation frequencies is divided by; empty for 1. tied: whether the
    embedding is the output head, too. eos: the tokens that end a text.
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

    def __post_init__(self) -> None:
        for name in ("hidden", "ffn", "layers", "heads", "kv_heads", "head_dim", "vocabulary",
                     "context"):  # fmt: skip
            value = getattr(self, name)
            most = _MAX_CONTEXT if name == "context" else 2**24 - 1
            if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= most:
                raise ValueError(f"config: {name} is {value!r}, expected 1 to {most}")
        if self.heads % self.kv_heads:
            raise ValueError(
                f"config: {self.heads} heads, expected a multiple of the {self.kv_heads} "
                "key/value heads"
            )
        if self.head_dim % 2:
            raise ValueError(f"config: head_dim is {self.head_dim}, expected an even number")
        if self.architecture not in ARCHITECTURES:
            expected = " or ".join(ARCHITECTURES)
            raise ValueError(f"config: architecture is {self.architecture!r}, expected {expected}")
        if self.activation not in ACTIVATIONS:
            expected = " or ".join(ACTIVATIONS)
            raise ValueError(f"config: hidden_act is {self.activation!r}, expected {expected}")
        check_positive("rope_theta", self.rope_theta)
        check_positive("epsilon", self.epsilon)
        if len(self.rope_factors) not in (0, self.head_dim // 2):
            raise ValueError(
                f"config: {len(self.rope_factors)} rope_factors, expected {self.head_dim // 2}"
            )
        for factor in self.rope_factors:
            check_positive("rope_factors", factor)

    @property
    def group(self) -> int:
        """Query heads that share a key/value head."""
        return self.heads // self.kv_heads

    @property
    def trunk(self) -> Architecture:
        """What a layer consists of, and what it is called in files."""
        return ARCHITECTURES[self.architecture]

    @property
    def sizes(self) -> dict[str, int]:
        """The numbers that shapes are made of, by the names that NORMS and LINEAR have for them."""
        return {
            "one": 1, "hidden": self.hidden, "ffn": self.ffn, "head_dim": self.head_dim,
            "heads": self.heads, "kv_heads": self.kv_heads,
            "queries": self.heads * self.head_dim, "keys": self.kv_heads * self.head_dim,
        }  # fmt: skip

    def linear_shapes(self) -> dict[str, tuple[int, int]]:
        """(outputs, inputs) of each linear layer of a block, by its name."""
        sizes = self.sizes
        return {name: (sizes[rows], sizes[columns]) for name, (rows, columns) in LINEAR.items()}

    @property
    def linear_weights(self) -> int:
        """The weights of all linear layers together."""
        return self.layers * sum(rows * columns for rows, columns in self.linear_shapes().values())

    def norm_sizes(self) -> dict[str, int]:
        """The size of the weight of each norm of a block, by its name."""
        sizes = self.sizes
        return {name: sizes[NORMS[name].size] for name in self.trunk.norms}

    @property
    def normed_elements(self) -> int:
        """Elements of a token that the norms of a block compute."""
        sizes = self.sizes
        return sum(sizes[NORMS[name].size] * sizes[NORMS[name].heads] for name in self.trunk.norms)

    def rope_angles(self) -> npt.NDArray[np.float64]:
        """(context, head_dim/2) radians: how far each position rotates each pair of a head."""
        turns = frequencies(self.rope_theta, self.head_dim)
        if self.rope_factors:
            turns = turns / np.asarray(self.rope_factors)
        return np.outer(np.arange(self.context), turns)


def check_positive(name: str, value: Any) -> None:
    """Raises ValueError, naming the setting, for what is no number above 0."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 < value < 1e30:
        raise ValueError(f"config: {name} is {value!r}, expected a positive number")


def frequencies(theta: float, head_dim: int) -> npt.NDArray[np.float64]:
    """Radians a position, of each pair of a head (arXiv 2104.09864, section 3.4.1)."""
    exponents = -np.arange(0, head_dim, 2, dtype=np.float64) / head_dim
    result: npt.NDArray[np.float64] = np.float64(theta) ** exponents
    return result
