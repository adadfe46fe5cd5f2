"""What a pass through a decoder does: operations and bytes by part, in exact integers.

Counted from the layout as the kernels do it, padding included: tests compare the counts with what
the kernels are handed. Attention in float32 on float16 keys and values; the head in float16.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from ternops.decoder.cache import kv_cache_bytes
from ternops.decoder.config import Config
from ternops.decoder.workspace import MAX_TOKENS
from ternops.encodings import ENCODINGS

FP16 = "fp16"
#: What the linear layers may be held in.
KINDS = (FP16, *ENCODINGS)
#: What older profiles and scripts call them.
FORMER_NAMES = {"float16": FP16}
PHASES = ("decode", "prefill")
ATTENTION, ELEMENTWISE = "attention", "elementwise"
_FFN = ("gate", "up", "down")
_LINE = 64  # bytes that rows of float16 are padded to
_HALF = 2
# What adds up where parts do.
_COUNTED = ("macs", "bytes", "prepared", "barriers", "rows", "passes", "layers", "heads")


@dataclass(frozen=True)
class Part:
    """One part of a pass, or of several passes.

    kernel: an encoding, "fp16", ATTENTION or ELEMENTWISE. macs: multiply-accumulates. bytes:
    read from where the model lies. prepared: activations that a product's tokens are made of.
    barriers: meetings of all threads. tokens: that share what is read, in the largest pass. rows:
    of a product's matrices. passes, layers, heads: whose fixed costs it has.
    """

    name: str
    kernel: str
    macs: int
    bytes: int
    prepared: int = 0
    barriers: int = 0
    tokens: int = 1
    rows: int = 0
    passes: int = 0
    layers: int = 0
    heads: int = 0


@dataclass(frozen=True)
class Workload:
    """All parts. tokens: that go in. passes: how often the weights are read."""

    parts: tuple[Part, ...]
    tokens: int
    passes: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all parts."""
        return sum(part.macs for part in self.parts)

    @property
    def bytes(self) -> int:
        """Bytes that all parts read."""
        return sum(part.bytes for part in self.parts)


def linear_bytes(kind: str, rows: int, columns: int) -> int:
    """Bytes of one matrix as kernels read it."""
    if kind == FP16:
        return rows * (-(-columns * _HALF // _LINE) * _LINE)
    return ENCODINGS[kind].nbytes(rows, columns)


def weight_bytes(config: Config, kind: str) -> int:
    """Bytes that a machine must hold: linear layers, head and embedding, norms."""
    linear = sum(
        linear_bytes(kind, *shape)
        for layer in range(config.layers)
        for shape in config.linear_shapes(layer).values()
    )
    tables = 1 if config.tied else 2
    head = linear_bytes(FP16, config.vocabulary, config.hidden)
    return linear + tables * head + _float_bytes(config)


def workload(config: Config, kind: str, phase: str, context: int, batch: int = 1) -> Workload:
    """What a pass of `phase` does.

    decode: one token of each of `batch` sequences, that has `context` positions before it.
    prefill: `batch` prompts of `context` tokens, read in chunks, and the logits of the last one.
    """
    if phase == "decode":
        return _pass(config, kind, [[context]] * batch, outputs=batch)
    starts = range(0, context, MAX_TOKENS)
    chunks = [range(start, min(start + MAX_TOKENS, context)) for start in starts]
    passes = [_pass(config, kind, [chunk], outputs=int(chunk is chunks[-1])) for chunk in chunks]
    return _sum(passes, batch)


def _pass(config: Config, kind: str, sequences: Iterable[Iterable[int]], outputs: int) -> Workload:
    """Tokens at the given positions of some sequences, together."""
    positions = [list(each) for each in sequences]
    tokens = sum(map(len, positions))
    parts = [
        _elementwise(config, tokens, outputs),
        _linear("projections", config, kind, False, tokens, 2),
        _attention(config, positions),
        _linear("FFN", config, kind, True, tokens, 2),
        *_head(config, outputs),
    ]
    return Workload(tuple(parts), tokens, 1)


def _linear(name: str, config: Config, kind: str, of_ffn: bool, tokens: int, products: int) -> Part:
    """Some matrices of every layer.

    products: how many of them need activations of their own; the others share these. A barrier
    follows each, and where there are several tokens one comes before.
    """
    macs = read = inputs = barriers = count = 0
    for layer in range(config.layers):
        named = config.linear_shapes(layer).items()
        shapes = [shape for name, shape in named if (name in _FFN) == of_ffn]
        macs += sum(rows * columns for rows, columns in shapes) * tokens
        read += sum(linear_bytes(kind, rows, columns) for rows, columns in shapes)
        inputs += _inputs(config, shapes) * tokens
        barriers += products * (1 if tokens == 1 else 2)
        if config.inner_norms and tokens > 1:
            barriers += 2 * (len(shapes) - products)
        count += sum(rows for rows, _ in shapes)
    return Part(name, kind, macs, read, inputs, barriers, tokens, count)


def _inputs(config: Config, shapes: list[tuple[int, int]]) -> int:
    """Activations of the first matrix, which those after it share, and of the last; with norms of
    their own, of all."""
    if config.inner_norms:
        return sum(columns for _, columns in shapes)
    return shapes[0][1] + shapes[-1][1]


def _attention(config: Config, positions: list[list[int]]) -> Part:
    """Scores of every position seen, and the sum of their values; each key is read once a pass.
    Delta nets look their state up twice for each token and change it once."""
    seen = sum(config.seen(position + 1) for each in positions for position in each)
    macs = 2 * config.heads * config.head_dim * seen
    longest = sum(each[-1] + 1 for each in positions)
    tokens = sum(map(len, positions))
    states, deltas = config.delta_heads * config.delta_key_dim, sum(config.delta_layers)
    macs += 3 * states * config.delta_value_dim * deltas * tokens
    return Part(
        ATTENTION, ATTENTION, macs, kv_cache_bytes(config, FP16, longest),
        barriers=config.layers + (deltas if tokens == 1 else config.layers), tokens=tokens,
        heads=config.layers * config.heads * len(positions),
    )  # fmt: skip


def _head(config: Config, outputs: int) -> list[Part]:
    if not outputs:
        return []
    rows, columns = config.vocabulary, config.hidden
    read = linear_bytes(FP16, rows, columns)
    barriers = 1 if outputs == 1 else 2
    macs, inputs = rows * columns * outputs, columns * outputs
    return [Part("head", FP16, macs, read, inputs, barriers, outputs, rows)]


def _elementwise(config: Config, tokens: int, outputs: int) -> Part:
    """Norms, residuals, gate and rotations, by elements; the embedding's row and the norms."""
    c = config
    in_layers = c.normed_elements + c.layers * (2 * c.hidden + c.ffn)
    rotated = c.attention_layers * (c.heads + c.kv_heads) * c.rotated
    elements = (in_layers + rotated) * tokens + c.hidden * (tokens + outputs)
    row = linear_bytes(FP16, 1, c.hidden)
    return Part(
        "norms", ELEMENTWISE, 0, _float_bytes(c) + row * tokens, elements, 1, tokens, passes=1,
        layers=c.layers,
    )  # fmt: skip


def _float_bytes(config: Config) -> int:
    """Norms, biases and what delta nets have besides."""
    layers = range(config.layers)
    return 4 * (sum(sum(config.float_sizes(layer)) for layer in layers) + config.hidden)


def _sum(works: list[Workload], times: int) -> Workload:
    """Part by part, all of them `times` times."""
    merged: dict[str, Part] = {}
    for part in (part for work in works for part in work.parts):
        old = merged.get(part.name, Part(part.name, part.kernel, 0, 0))
        sums = {name: getattr(old, name) + times * getattr(part, name) for name in _COUNTED}
        merged[part.name] = replace(part, tokens=max(old.tokens, part.tokens), **sums)
    return Workload(
        tuple(merged.values()), times * sum(work.tokens for work in works),
        times * sum(work.passes for work in works),
    )  # fmt: skip
