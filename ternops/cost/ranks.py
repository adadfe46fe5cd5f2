"""How fast several ranks decode a model together, and which layout of them is the fastest.

A pass takes what its largest rank computes, and the messages between: with tensor parallelism a
gathered vector four times a layer, with pipelining one from each stage to the next. The sequences
are decoded in as many groups as there are stages: a group's next token needs all stages one after
another, and the slowest stage serves every group; the longer one of both is the time of a token.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import NamedTuple

from ternops.cost.energy import IDLE, energy_terms
from ternops.cost.hardware import Hardware
from ternops.cost.latency import Timed, timed
from ternops.cost.link import Link
from ternops.cost.shares import Stage, check_layout, shared_machine, stages
from ternops.decoder.config import Config
from ternops.ranks.split import Layout

_FLOAT = 4
_COMMAND = 1024  # bytes that tell all ranks what the next pass is
#: What the time of a token consists of.
SHARED, OWN, LATENCY, BANDWIDTH = "shared work", "own work", "link latency", "link bandwidth"
#: Twice as many ranks that give less than this are not worth having.
WORTHWHILE = 1.25


@dataclass(frozen=True)
class RanksPrediction:
    """Of all ranks together. seconds: by where they go, of a token of every sequence. joules: a
    token, NaN if the profile has no power. memory: bytes of the rank that holds the most.
    unknown: kernels without a rate, so that the speed is the most that the memory allows."""

    layout: Layout
    sequences: int
    groups: int
    seconds: Mapping[str, float]
    joules_per_token: float
    memory: int
    unknown: tuple[str, ...]

    @property
    def tokens_per_second(self) -> float:
        """Of all sequences together."""
        return self.sequences / math.fsum(self.seconds.values())

    @property
    def bound(self) -> str:
        """What most of the time goes to."""
        return max(self.seconds, key=lambda name: self.seconds[name])

    @property
    def link_share(self) -> float:
        """The part of the time that is messages."""
        seconds = self.seconds[LATENCY] + self.seconds[BANDWIDTH]
        return seconds / math.fsum(self.seconds.values())


class Plan(NamedTuple):
    """The layout to take, what is predicted of it, and why it is that one, in one line."""

    layout: Layout
    prediction: RanksPrediction
    reason: str


def predict_ranks(
    config: Config, hardware: Hardware, link: Link, layout: Layout, encoding: str = "base3",
    threads: int | None = None, context: int = 128, sequences: int = 1,
) -> RanksPrediction:  # fmt: skip
    """Generating a token of each of some sequences, that have `context` positions before it.

    hardware: of each rank, or of all of them together where the link is local. threads: of a rank,
    by default all cores of its machine, or its part of them.

    Raises ValueError with one line for a layout that the model has no rows or layers for, for more
    threads than cores, and for a rank that its machine has no memory for.
    """
    check_layout(config, layout)
    ranks = layout.ranks
    most = hardware.threads // ranks if link.is_local else hardware.threads
    if not 0 < (most if threads is None else threads) <= most:
        shown = (
            f"{ranks} ranks" if threads is None else f"{threads} threads of each of {ranks} ranks"
        )
        raise ValueError(f"{shown} over {link.name}: {hardware.name} has {hardware.threads} cores")
    threads = most if threads is None else threads
    groups = min(layout.pp, sequences)
    if link.is_local:
        hardware = shared_machine(hardware, ranks, threads, layout.tp * groups)
    tokens = -(-sequences // groups)
    found = stages(config, encoding, layout, context, tokens, sequences)
    memory = max(each.weights + each.cache for each in found)
    if memory > hardware.memory:
        raise ValueError(
            f"{hardware.file or hardware.name}: memory: a rank of {layout} needs "
            f"{memory / 1e9:.1f} GB, has {hardware.memory / 1e9:.1f}"
        )

    @cache
    def parts_of(layers: int, is_last: bool) -> list[Timed]:
        """Stages alike take as long."""
        same = next(each for each in found if (each.layers, each.is_last) == (layers, is_last))
        return timed(same.work, hardware, threads)

    passes = [parts_of(each.layers, each.is_last) for each in found]
    times = [
        _stage_seconds(config, each, parts, link, layout, tokens)
        for each, parts in zip(found, passes, strict=True)
    ]
    seconds = _longer(
        [*times, _between(config, link, layout, tokens)],
        [{name: groups * value for name, value in each.items()} for each in times],
    )
    period = math.fsum(seconds.values())
    joules = _joules(passes, period, hardware, threads, groups, layout.tp, link.is_local)
    unknown = dict.fromkeys(
        each.part.kernel for parts in passes for each in parts if not each.known
    )
    return RanksPrediction(
        layout, sequences, groups, seconds, joules / sequences, memory, tuple(unknown)
    )


def best_layout(
    config: Config, hardware: Hardware, link: Link, ranks: int, encoding: str = "base3",
    threads: int | None = None, context: int = 128, sequences: int = 1,
) -> Plan:  # fmt: skip
    """The fastest layout of so many ranks; ValueError, of the first, if none can be."""
    found, errors = [], []
    for pp in (each for each in range(1, ranks + 1) if ranks % each == 0):
        layout = Layout(ranks // pp, pp)
        try:
            found.append(
                predict_ranks(config, hardware, link, layout, encoding, threads, context, sequences)
            )
        except ValueError as error:
            errors.append(error)
    if not found:
        raise errors[0]
    best = max(found, key=lambda each: each.tokens_per_second)
    return Plan(best.layout, best, _reason(best, found, link))


def _reason(best: RanksPrediction, found: Sequence[RanksPrediction], link: Link) -> str:
    words = f"{best.layout}: {best.tokens_per_second:.3g} tokens/s predicted over {link.name}"
    others = [each for each in found if each is not best]
    if not others:
        return f"{words}, the only layout that fits"
    second = max(others, key=lambda each: each.tokens_per_second)
    return f"{words}; {second.layout} would give {second.tokens_per_second:.3g}, as {why(second)}"


def why(each: RanksPrediction) -> str:
    """What holds a layout up, in words."""
    messages = each.seconds[LATENCY] + each.seconds[BANDWIDTH]
    parts = {SHARED: each.seconds[SHARED], OWN: each.seconds[OWN], LATENCY: messages}
    return _words(each, max(parts, key=lambda name: parts[name]))


def _words(each: RanksPrediction, what: str) -> str:
    layout = each.layout
    if what in (LATENCY, BANDWIDTH):
        mostly = max(LATENCY, BANDWIDTH, key=lambda name: each.seconds[name])
        return f"messages take {each.link_share:.0%} of its time, mostly the {mostly}"
    if what == OWN:
        share = each.seconds[OWN] / math.fsum(each.seconds.values())
        return f"norms, activations and barriers that every rank has take {share:.0%} of its time"
    if layout.pp > 1 and each.groups < layout.pp:
        return f"{each.groups} sequence(s) keep no more than {each.groups} of its stages busy"
    if layout.pp > 1:
        return f"each of its stages reads its weights for {each.groups} groups of sequences"
    return "weights take most of its time, in whole units of rows and whole heads"


def saturation(curve: Sequence[RanksPrediction]) -> str:
    """From where on twice as many ranks are not worth it, and what then takes more than half of
    what it took, in one line.

    curve: of rising numbers of ranks, each twice the one before.
    """
    for each, twice in pairwise(curve):
        gain = twice.tokens_per_second / each.tokens_per_second
        if gain < WORTHWHILE:
            more = {
                name: seconds - each.seconds[name] / 2 for name, seconds in twice.seconds.items()
            }
            words = _words(twice, max(more, key=lambda name: more[name]))
            return (
                f"from {each.layout.ranks} rank(s) on ({twice.layout.ranks} give {gain:.2f} times "
                f"as many tokens/s): with {twice.layout} {words}"
            )
    return f"not up to {curve[-1].layout.ranks} ranks"


def _stage_seconds(
    config: Config, stage: Stage, parts: Sequence[Timed], link: Link, layout: Layout, tokens: int
) -> dict[str, float]:
    """Of a pass through one stage, by where they go."""
    shared = math.fsum(each.product for each in parts)
    own = math.fsum(each.seconds for each in parts) - shared
    vectors = [config.heads * config.head_dim, config.hidden, config.ffn, config.hidden]
    gathered = [(each, stage.layers) for each in vectors]
    if stage.is_last:
        gathered.append((config.vocabulary, 1))
    latency = moved = 0.0
    if layout.tp > 1:
        for elements, times in gathered:
            size = _FLOAT * elements * tokens
            seconds = times * link.allgather_s(size, layout.tp)
            bare = times * size * (layout.tp - 1) / layout.tp / link.bytes_per_s
            moved += min(seconds, bare)
            latency += max(0.0, seconds - bare)
    return {SHARED: shared, OWN: own, LATENCY: latency, BANDWIDTH: moved}


def _between(config: Config, link: Link, layout: Layout, tokens: int) -> dict[str, float]:
    """Of what goes from stage to stage, back to the first rank, and to all before a pass."""
    latency = moved = 0.0
    if layout.ranks > 1:
        latency += link.broadcast_s(_COMMAND, layout.ranks)
    if layout.pp > 1:
        latency += layout.pp * link.latency_s
        sent = (layout.pp - 1) * config.hidden + config.vocabulary
        moved += _FLOAT * tokens * sent / link.bytes_per_s
    return {SHARED: 0.0, OWN: 0.0, LATENCY: latency, BANDWIDTH: moved}


def _longer(
    one_after_another: Sequence[Mapping[str, float]], each_for_all: Sequence[Mapping[str, float]]
) -> dict[str, float]:
    """The sum of the first, or the longest of the second."""
    total: Mapping[str, float] = {
        name: math.fsum(each[name] for each in one_after_another)
        for name in (SHARED, OWN, LATENCY, BANDWIDTH)
    }
    longest = max([total, *each_for_all], key=lambda each: math.fsum(each.values()))
    return dict(longest)


def _joules(
    passes: Sequence[Sequence[Timed]], period: float, hardware: Hardware, threads: int, groups: int,
    tp: int, is_local: bool,
) -> float:  # fmt: skip
    """Of all ranks, which wait for messages as busily as they work; a local link's ranks are on one
    machine. Of the link itself nothing is known."""
    joules = 0.0
    for parts in passes:
        terms = energy_terms([*parts] * groups, period, hardware, threads)
        if not terms:
            return math.nan
        joules += tp * math.fsum(
            value for name, value in terms.items() if not (is_local and name == IDLE)
        )
    return joules + (hardware.idle * period if is_local else 0.0)
