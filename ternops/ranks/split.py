"""Which part of a model each process has: rows of matrices and heads, as Megatron shares them out
(Shoeybi et al., arXiv 1909.08053), but rows alone, so that no sum is ever cut in two."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ternops.decoder.config import Config

#: Rows of a matrix come in so many: groups of rows of every layout, whole cache lines of results.
UNIT = 64


class Layout(NamedTuple):
    """tp: ranks that share out each matrix. pp: groups of them, stages, that share out layers."""

    tp: int = 1
    pp: int = 1

    @property
    def ranks(self) -> int:
        """All of them."""
        return self.tp * self.pp

    def __str__(self) -> str:
        return ",".join(
            f"{name}={value}" for name, value in zip(self._fields, self, strict=True) if value > 1
        ) or "tp=1"  # fmt: skip


def parse_layout(text: str, ranks: int) -> Layout:
    """Of "tp=4,pp=2"; what is not named is 1. ValueError for what is none, or not of `ranks`."""
    found = re.fullmatch(r"(tp|pp)=(\d{1,6})(?:,(?!\1)(tp|pp)=(\d{1,6}))?", text)
    given = {found[i]: int(found[i + 1]) for i in (1, 3) if found[i]} if found else {}
    layout = Layout(**given)
    if not given or layout.ranks != ranks:
        raise ValueError(f"layout {text!r}: expected tp=N,pp=N with {ranks} ranks in all")
    return layout


class Span(NamedTuple):
    """From the first to before the last of some items."""

    first: int
    last: int

    @property
    def size(self) -> int:
        """How many."""
        return self.last - self.first


@dataclass(frozen=True)
class Split:
    """What one of several processes has.

    stage, stages: its place in the pipeline; the first one has embedding and head, too. layers: of
    that stage. rank: its number among the `ranks` of the stage. queries: heads of queries; keys:
    heads of keys and values that these need, which another process may have as well. hidden, ffn,
    vocabulary: rows of matrices whose results are vectors of that length. embedding: its rows, all
    in the first stage, which looks tokens up. query_rows, key_rows: rows of q, and of k and v,
    which are whole units that hold the heads.
    """

    stage: int
    stages: int
    layers: Span
    rank: int
    ranks: int
    queries: Span
    keys: Span
    hidden: Span
    ffn: Span
    vocabulary: Span
    embedding: Span
    query_rows: Span
    key_rows: Span

    @property
    def leads(self) -> bool:
        """Whether it is the first of all, which has the tokens."""
        return self.stage == 0 and self.rank == 0

    @property
    def is_whole(self) -> bool:
        """Whether it is alone and has all."""
        return self.ranks == 1 and self.stages == 1

    def rows(self, name: str) -> Span:
        """Of a linear layer of attention or of the feed-forward part."""
        return {
            "q": self.query_rows, "k": self.key_rows, "v": self.key_rows, "o": self.hidden,
            "gate": self.ffn, "up": self.ffn, "down": self.hidden,
        }[name]  # fmt: skip


def split_of(config: Config, rank: int = 0, ranks: int = 1, bounds: tuple[int, ...] = ()) -> Split:
    """What a process has; ValueError for more processes than there is work for.

    bounds: the first layer of each stage of a pipeline, which are as many processes each, and the
    number of layers (default: one stage).
    """
    bounds = bounds or (0, config.layers)
    stages = len(bounds) - 1
    ranks //= stages
    stage, rank = divmod(rank, ranks)
    vocabulary = 0 if stage else config.vocabulary
    units = max(-(-each // UNIT) for each in (config.hidden, config.ffn, vocabulary))
    if ranks > units:
        raise ValueError(
            f"ranks: {ranks} of them, expected at most {units}, the {UNIT}s of rows of the "
            "model's largest matrix"
        )
    sizes = config.sizes
    queries = Span(*(config.heads * each // ranks for each in (rank, rank + 1)))
    # None of the keys for none of the queries.
    keys = Span(queries.first // config.group, -(-queries.last // config.group))
    if not queries.size:
        keys = Span(keys.first, keys.first)
    query_width = sizes["queries_and_gates"] // config.heads
    return Split(
        stage, stages, Span(*bounds[stage : stage + 2]), rank, ranks, queries, keys,
        _units(config.hidden, rank, ranks), _units(config.ffn, rank, ranks),
        _units(vocabulary, rank, ranks), Span(0, vocabulary),
        _around(queries, query_width, sizes["queries_and_gates"]),
        _around(keys, config.head_dim, sizes["keys"]),
    )  # fmt: skip


def stage_bounds(config: Config, stages: int, layer_bytes: float, head_bytes: float) -> list[int]:
    """The first layer of each stage, and the number of layers, so that stages read about as many
    bytes, the first one those of the head, too; ValueError for more stages than layers."""
    if not 1 <= stages <= config.layers:
        raise ValueError(f"layout: pp={stages}, expected 1 to the model's {config.layers} layers")
    part = (config.layers * layer_bytes + head_bytes) / stages
    bounds = [0]
    for stage in range(1, stages):
        wanted = round((stage * part - head_bytes) / layer_bytes)
        # Each stage has a layer at least.
        bounds.append(min(max(wanted, bounds[-1] + 1), config.layers - (stages - stage)))
    return [*bounds, config.layers]


def _units(count: int, rank: int, ranks: int) -> Span:
    """This process's part of `count` rows, in whole units."""
    units = -(-count // UNIT)
    return Span(*(min(count, units * each // ranks * UNIT) for each in (rank, rank + 1)))


def _around(heads: Span, width: int, count: int) -> Span:
    """The whole units of rows that hold some heads of `width` rows each."""
    first = heads.first * width // UNIT * UNIT
    if not heads.size:
        return Span(first, first)
    return Span(first, min(count, -(-heads.last * width // UNIT) * UNIT))
