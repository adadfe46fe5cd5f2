"""What a run measures of a size: which engines together, with how many layers and tokens.

Nothing is allocated here: sizes are counted from the layout, and compared with the memory that is
free, so that a size which does not fit is known before anything is tried.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from bench.core.results import (
    CYCLED,
    ENGINES,
    FP16,
    LLAMA,
    MEASURED,
    head_bytes,
    linear_bytes,
)
from bench.models.random_gguf import bytes_read
from ternops.cost.layouts import GROUPED, LAYOUTS, SIZES, WITH_GROUPS
from ternops.cpu_caches import last_level_bytes
from ternops.encodings import PANELS

# How often llama.cpp holds the model, with a tenth for what else it allocates.
_HELD, _REPACKED = 1.1, 2.1
#: Sizes at which llama.cpp is measured too.
WITH_PEERS = ("700M", "2B4T", "3B", *GROUPED)
#: And as what, where a layout has scales of groups. Its ternary type takes seconds a token there:
#: `bench.decode --only grouped` times a few.
_GROUPED_PEERS = ("q4_0",)
#: Of the free memory so much is used at the most.
MEMORY_SHARE = 0.9
#: Cycled layers fill the last-level cache at least this many times: it never holds the next one.
_MIN_CACHES = 4
_MIN_TOKENS = 2


@dataclass(frozen=True)
class Effort:
    """How much is done: the most tokens of a round, rounds of a process, and processes.

    most_read: bytes that the engines of a round may read in all, which bounds its tokens. prompt:
    the largest size whose prefill is measured, in parameters. settled: whether a turn follows one
    that is not timed, after which threads are awake and caches hold of the weights what they can.
    """

    sizes: tuple[str, ...]
    tokens: int
    rounds: int
    most_read: float
    processes: int
    prompt: float
    settled: bool = False


QUICK = Effort(("125M", "350M", "700M"), 16, 5, 50e9, 1, 0.5e9)
DEFAULT = Effort(tuple(SIZES), 32, 4, 50e9, 2, 1.2e9)
FULL = Effort(tuple(SIZES), 128, 5, 1e12, 3, math.inf)


@dataclass(frozen=True)
class Task:
    """What one process measures: engines of a size that are in memory together, taking turns.

    layers: our engine -> how many distinct layers it has. peers: engines of LLAMA.
    """

    size: str
    number: int
    layers: dict[str, int]
    peers: tuple[str, ...]
    threads: tuple[int, ...]
    tokens: int
    rounds: int
    prompt: bool
    settled: bool = False

    @property
    def name(self) -> str:
        """Rows with the same one were timed in turn."""
        return f"{self.size}/{self.number}"

    def kind(self, engine: str) -> str:
        """Of an engine's rows."""
        layers = LAYOUTS[self.size].layers
        return MEASURED if self.layers.get(engine, layers) == layers else CYCLED

    def without_peers(self) -> Task:
        """The same with our engines alone."""
        return replace(self, peers=())


def tasks_of(
    size: str, engines: Iterable[str], threads: list[int], effort: Effort, free: int
) -> tuple[list[Task], list[str]]:
    """The tasks of a size, and a line for each engine that does not fit.

    Engines without a layout's kind of scale are no part of it. free: bytes of memory. fp16 weights
    that do not fit are modelled later, others have fewer distinct layers.
    """
    config = LAYOUTS[size]
    # But for probes, caches and activations.
    spare = (3 << 28) + 512 * 4 * (4 * config.hidden + 2 * config.ffn + config.vocabulary)
    room = rest = int(free * MEMORY_SHARE) - spare
    groups: list[dict[str, int]] = []
    peers: list[str] = []
    left_out = []
    # The pair that every speed-up is of, then the peers beside it, then the other encodings.
    able = [each for each in engines if _has_scales(size, each)]
    ours = [each for each in able if each in ENGINES]
    known = [each for each in able if each in LLAMA and size in WITH_PEERS]
    for engine in [*ours[:2], *known, *ours[2:]]:
        if engine in LLAMA:
            needed, layers = _peer_bytes(size, engine), 1
            fits, limit = len(groups) == 1 and needed <= rest, rest
        else:
            layers = _distinct(size, engine, room)
            needed = needed_bytes(size, engine, layers or None)
            fits, limit = layers > 0, free
        if not fits:
            left_out.append(
                f"{size} {engine}: needs {needed / 1e9:.1f} GB, {limit / 1e9:.1f} GB are free"
            )
            continue
        if engine in LLAMA:
            peers.append(engine)
        else:
            if not groups or needed > rest:
                groups.append({})
                rest = room
            groups[-1][engine] = layers
        rest -= needed
    tokens = min((_tokens(size, each, effort) for each in groups), default=0)
    prompt = config.linear_weights + config.vocabulary * config.hidden <= effort.prompt
    # Peers are those that were found to fit beside the first group.
    return [
        Task(
            size, number, layers, () if number else tuple(peers), tuple(threads), tokens,
            effort.rounds, prompt, effort.settled,
        )
        for number, layers in enumerate(groups)
    ], left_out  # fmt: skip


def needed_bytes(size: str, engine: str, layers: int | None = None) -> int:
    """Bytes of an engine's weights with this many distinct layers (None: all)."""
    config, whole = LAYOUTS[size], linear_bytes(size, engine)
    part = whole if layers is None else whole * layers // config.layers
    return part + (1 if config.tied else 2) * head_bytes(size, engine)


def peer_head(size: str, engine: str) -> str:
    """llama.cpp's type of the embedding and the head: as of ours, or that of its linear layers."""
    return LLAMA[engine] if size in WITH_GROUPS else "f16"


def _has_scales(size: str, engine: str) -> bool:
    if size not in WITH_GROUPS:
        return True
    return LLAMA[engine] in _GROUPED_PEERS if engine in LLAMA else engine in (FP16, *PANELS)


def _distinct(size: str, engine: str, room: int) -> int:
    """How many distinct layers fit: all, or for packed weights fewer, or none."""
    layers = LAYOUTS[size].layers
    if needed_bytes(size, engine) <= room:
        return layers
    if engine == FP16:
        return 0
    one = linear_bytes(size, engine) // layers
    fitting = (room - needed_bytes(size, engine, 0)) // one
    return fitting if fitting * one >= _MIN_CACHES * last_level_bytes() else 0


def _peer_bytes(size: str, engine: str) -> int:
    """Bytes that llama.cpp takes: the file's, which for Q4_0 it repacks into another copy."""
    copies = _REPACKED if LLAMA[engine] == "q4_0" else _HELD
    return int(bytes_read(LAYOUTS[size], LLAMA[engine], peer_head(size, engine)) * copies)


def _tokens(size: str, layers: dict[str, int], effort: Effort) -> int:
    """Tokens of a round: a power of two, and the same on every machine with as much memory."""
    once = sum(linear_bytes(size, engine) + head_bytes(size, engine) for engine in layers)
    most = min(effort.tokens, max(_MIN_TOKENS, int(effort.most_read / once)))
    return 1 << most.bit_length() - 1
