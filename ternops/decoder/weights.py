"""The weights of a decoder in memory, from a checkpoint or random, as kernels read them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ternops.decoder.config import Config
from ternops.encodings import layout_of
from ternops.encodings.common import SLACK
from ternops.encodings.panels import Panels
from ternops.half import LINE
from ternops.half import HalfMatrix as HalfMatrix
from ternops.kernels.call import Operand
from ternops.matrix import TernaryMatrix
from ternops.memory import Arena, aligned_empty
from ternops.packed import Packed
from ternops.ranks.split import split_of


def operand_of(matrix: TernaryMatrix | HalfMatrix) -> Operand:
    """A matrix of either kind for kernels."""
    return matrix.operand if isinstance(matrix, HalfMatrix) else matrix._packed.operand


@dataclass(frozen=True)
class Layer:
    """One block. linear: a matrix for each name in `Config.linear_shapes`; norms, biases: float32
    vectors for the names in `Config.norm_sizes` and `Config.bias_sizes`; vectors: float32 for those
    in `Config.vector_shapes`."""

    linear: dict[str, TernaryMatrix | HalfMatrix]
    norms: dict[str, npt.NDArray[np.float32]]
    biases: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    vectors: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)

    @property
    def floats(self) -> Iterator[npt.NDArray[np.float32]]:
        """All that is no matrix of a linear layer."""
        return itertools.chain(*(each.values() for each in (self.norms, self.biases, self.vectors)))


@dataclass(frozen=True)
class Weights:
    """All weights of a decoder; `head` is `embedding` itself where they are tied.

    digest: of the model whose part they are, where they come from a file of one; "" if not.
    """

    config: Config
    layers: list[Layer]
    norm: npt.NDArray[np.float32]
    embedding: HalfMatrix | TernaryMatrix
    head: HalfMatrix | TernaryMatrix
    digest: str = ""

    @property
    def linear_bytes(self) -> int:
        """Bytes of the linear layers."""
        return sum(each.nbytes for layer in self.layers for each in layer.linear.values())

    @property
    def bytes_per_token(self) -> int:
        """Bytes of weights that one decoded token reads: all but the embedding's other rows."""
        vectors = sum(each.nbytes for layer in self.layers for each in layer.floats)
        row = self.embedding.nbytes // max(1, self.embedding.shape[0])
        return self.linear_bytes + vectors + self.norm.nbytes + self.head.nbytes + row


def random_weights(
    config: Config, kind: str, seed: int = 0, distinct: int | None = None, group: int = 0,
    part: tuple[int, int] = (0, 1),
) -> Weights:  # fmt: skip
    """Random weights of a layout, for benchmarks: kind is "fp16" or an encoding.

    group: columns that share a scale, 0 for all of a matrix; then embedding and head are as well.
    part: of which rank, of how many that share out every layer; values are not those of the whole.

    Every matrix has separate memory, or with `distinct` those of the first `distinct` layers, which
    the other layers of their kind reuse cyclically. The values repeat, which no kernel notices, so
    that even gigabytes are written at the speed of memory.
    """
    random, arena = np.random.default_rng(seed), Arena()
    split = split_of(config, *part)
    layers: list[Layer] = []
    made: dict[bool, list[Layer]] = {False: [], True: []}
    for number in range(config.layers):
        alike = made[config.is_delta(number)]
        if distinct is not None and number >= distinct and alike:
            layers.append(alike[number % len(alike)])
            continue
        linear: dict[str, TernaryMatrix | HalfMatrix] = {}
        for name, (rows, columns) in config.linear_shapes(number).items():
            own = rows if split.is_whole else split.rows(name).size
            if kind == "fp16":
                linear[name] = random_half(own, columns, random, arena)
            else:
                linear[name] = random_ternary(own, columns, kind, random, arena, group)
        norms, biases = (
            {name: np.full(size, value, np.float32) for name, size in sizes.items()}
            for sizes, value in ((config.norm_sizes(number), 1), (config.bias_sizes(number), 0))
        )
        layers.append(Layer(linear, norms, biases, _random_vectors(config, number, random)))
        alike.append(layers[-1])

    def table(rows: int) -> HalfMatrix | TernaryMatrix:
        if group:
            return random_ternary(rows, config.hidden, kind, random, group=group)
        return random_half(rows, config.hidden, random)

    embedding = table(config.vocabulary)
    is_tied = config.tied and split.is_whole
    head = embedding if is_tied else table(split.vocabulary.size)
    return Weights(config, layers, np.ones(config.hidden, np.float32), embedding, head)


def _random_vectors(
    config: Config, layer: int, random: np.random.Generator
) -> dict[str, npt.NDArray[np.float32]]:
    """Rates are positive, and sums have a deviation of 1."""
    found = {}
    for name, shape in config.vector_shapes(layer).items():
        values = random.standard_normal(shape, np.float32) / np.float32(np.sqrt(max(1, shape[1])))
        if name == "taps":
            values = random.standard_normal(shape, np.float32)
        found[name] = np.abs(values) if name == "forget_rate" else values
    return found


_REPEATED = 1 << 16  # random float16 before they repeat
_ROWS = 64  # and rows of random values


def random_half(
    rows: int, columns: int, random: np.random.Generator, arena: Arena | None = None
) -> HalfMatrix:
    """Gaussian float16 weights of deviation 1/sqrt(columns)."""
    padded = -(-columns // LINE) * LINE
    bits = (arena.empty if arena else aligned_empty)((rows, padded), np.uint16)
    sample = (random.standard_normal(_REPEATED) / np.sqrt(columns)).astype(np.float16)
    _repeat(sample.view(np.uint16), bits.reshape(-1))
    bits[:, columns:] = 0
    return HalfMatrix(bits, columns, is_bf16=False)


def random_ternary(
    rows: int,
    columns: int,
    encoding: str,
    random: np.random.Generator,
    arena: Arena | None = None,
    group: int = 0,
    levels: tuple[int, ...] = (),
) -> TernaryMatrix:
    """Evenly drawn levels, by default the encoding's values, with the scale 1/sqrt(columns), or
    about as much for each group of columns."""
    layout = layout_of(encoding, group, levels)
    values = np.array(levels or layout.values, np.int8)
    kind = np.int8 if len(values) < 128 else np.int16

    def packed_of(weights: npt.NDArray[np.int8]) -> npt.NDArray[np.uint8]:
        return layout.pack(weights, levels) if isinstance(layout, Panels) else layout.pack(weights)

    def draw(count: int) -> npt.NDArray[np.int8]:
        drawn = random.integers(0, len(values), (count, columns), kind)
        return values[drawn]

    size = layout.nbytes(rows, columns) + SLACK
    packed = (arena.empty if arena else aligned_empty)(size, np.uint8)
    sample = packed_of(draw(_ROWS))
    _repeat(sample[: layout.nbytes(_ROWS, columns)], packed)
    if rest := rows % _ROWS:
        # An incomplete last group of rows of a look-up encoding has another layout.
        last = packed_of(draw(rest))
        packed[layout.nbytes(rows - rest, columns) :] = last
    scale: npt.NDArray[Any] = np.asarray(np.float32(1 / np.sqrt(columns)))
    if group:
        varied = random.uniform(0.5, 1.5, (rows, columns // group))
        scale = (scale * varied.astype(np.float32)).astype(np.float16)
    return TernaryMatrix(Packed(packed, rows, columns, scale, encoding, levels))


def _repeat(sample: npt.NDArray[Any], target: npt.NDArray[Any]) -> None:
    for start in range(0, len(target), len(sample)):
        target[start : start + len(sample)] = sample[: len(target) - start]
