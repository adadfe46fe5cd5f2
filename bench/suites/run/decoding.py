"""Decoding and prefill of a layout with random weights: every engine in turn, beside its limit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import Any

import numpy as np

from bench.core import energy
from bench.core.command import Advance
from bench.core.envelope import TIER
from bench.core.errors import first_line
from bench.core.measure import Case, interleave, nothing
from bench.core.results import (
    FP16,
    LLAMA,
    MEASURED,
    MODELLED,
    Row,
    group_of,
    head_bytes,
    linear_bytes,
)
from bench.engines import llama_cpp
from bench.limits.levels import bandwidth, probe_cases
from bench.limits.peaks import PEAKS, Peak, Unit
from bench.models import random_gguf
from bench.suites.decoders import PROMPT, llama, llama_case, release, settled
from bench.suites.run.found import held_cases
from bench.suites.run.plan import Task, peer_head
from ternops.cost.layouts import LAYOUTS
from ternops.cost.probes import MAX_PROBED, PROBES, Reader
from ternops.cpu_caches import last_level_bytes
from ternops.decoder import Config, Model
from ternops.decoder.cache import kv_cache_bytes
from ternops.decoder.session import Session
from ternops.decoder.weights import random_weights
from ternops.isa import HAS_TILES

#: What rows are limited by.
BANDWIDTH, DOTS, FLOATS = "read bandwidth", "dot instruction", "multiply-add instruction"
TILES = "tile product"
#: What products of int8 activations are limited by here.
INTEGERS = TILES if HAS_TILES else DOTS
# A working set of this many last-level caches is read no faster or slower than a larger one.
_PROBED_CACHES = 8
#: Probes that take turns with what they limit: the fastest of all of them, as two rounds show.
CONTENDERS = 4
_TRIAL_ROUNDS = 1
_PEAK_ROUNDS = 20_000
# A peak takes milliseconds, as long as a time slice that is lost to others: in several turns one at
# least is whole.
_PEAK_TURNS = 5
_JOULE_SECONDS = 0.5


@dataclass
class Measured:
    """What a task has measured: rows, the probes beside them, and a line for what failed."""

    rows: list[Row] = field(default_factory=list)
    probes: list[Case] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def measure(task: Task, advance: Advance = lambda what: None) -> Measured:
    """Time every engine of a task at every thread count, in interleaved rounds."""
    found = Measured()
    with ExitStack() as stack:
        engines = _Engines(task, stack, advance, found)
        for threads in task.threads:
            engines.decode(threads)
        if task.prompt:
            engines.prefill(task.threads[-1])
    return found


class _Engines:
    """Everything of a task that takes memory: weights, buffers of probes, and peers' models."""

    def __init__(self, task: Task, stack: ExitStack, advance: Advance, found: Measured) -> None:
        self._task, self._advance, self._found = task, advance, found
        self._config = LAYOUTS[task.size]
        self._weights = {}
        for engine, layers in task.layers.items():
            self._weights[engine] = random_weights(
                self._config, engine, distinct=layers, group=group_of(task.size, engine)
            )
            advance(f"{engine} weights")
        sizes = _sizes(each.bytes_per_token for each in self._weights.values())
        self._readers = {size: Reader(size) for size in sizes}
        self._peers = {}
        for engine in task.peers:
            try:
                head = peer_head(task.size, engine)
                self._peers[engine] = llama(
                    self._config, LLAMA[engine], head, task.threads[-1], stack
                )
            except (ImportError, OSError, RuntimeError, ValueError) as error:
                found.left_out.append(f"{task.size} {engine}: {first_line(error)}")

    def decode(self, threads: int) -> None:
        """Rows of generating tokens; of peers at the last thread count, which they were given."""
        task = self._task
        probes = {
            size: self._contenders(probe_cases(f"{task.name}, {size} B", reader, threads))
            for size, reader in self._readers.items()
        }
        beside = [*chain.from_iterable(probes.values())]
        tokens = range(task.tokens)
        cases = self._cases(threads, tokens, generate, reads=False)
        held = {}
        if task.settled:
            held = held_cases(self._weights, self._readers[max(self._readers)], threads)
        # What is left of an engine's weights is read right behind its turn.
        behind = [[case, *held.pop(engine, ())] for engine, case in cases.items()]
        self._time([*chain(*behind, *held.values()), *beside], task.rounds)
        for engine, case in self._measured(cases, f"tg{task.tokens}").items():
            if engine in LLAMA:
                head = peer_head(task.size, engine)
                read = round(random_gguf.bytes_read(self._config, LLAMA[engine], head))
            else:
                read = self._weights[engine].bytes_per_token
            total = read + _cache(self._config, task.tokens)
            nearest = min(probes, key=lambda size: abs(size - total))
            limit = bandwidth(probes[nearest], case.values) / total
            joules = _joules(case)
            self._add(
                engine, f"tg{task.tokens}", threads, case, limit, BANDWIDTH, bytes_per_token=total,
                joules=joules, energy="" if math.isnan(joules) else MEASURED,
            )  # fmt: skip
        beside = [*chain(*(more for _, *more in behind), *held.values()), *beside]
        self._found.probes += beside
        release([*cases.values(), *beside])

    def _contenders(self, probes: list[Case]) -> list[Case]:
        """Those of some ways to read the same that may be the fastest."""
        interleave(probes, _TRIAL_ROUNDS, self._advance)
        probes = sorted(probes, key=lambda case: case.median)[:CONTENDERS]
        for case in probes:
            case.values.clear()
        return probes

    def prefill(self, threads: int) -> None:
        """Rows of reading a prompt, beside the instruction that adds products up."""
        random = np.random.default_rng(0)
        prompt = random.integers(0, self._config.vocabulary, PROMPT).tolist()
        cases = self._cases(threads, prompt, Session.read, reads=True)
        unit = Unit()
        peaks = {
            peak: Case(peak.how, partial(unit.run, peak, threads, _PEAK_ROUNDS), _PEAK_ROUNDS)
            for peak in PEAKS
        }
        self._time(
            [*cases.values(), *_PEAK_TURNS * [*peaks.values()]], prompt_rounds(self._task.rounds)
        )
        rates = _rates(peaks, threads)
        for engine, case in self._measured(cases, f"pp{PROMPT}").items():
            limited = FLOATS if LLAMA.get(engine, engine) in (FP16, "f16") else INTEGERS
            limit = rates[limited] / self._config.linear_weights
            self._add(engine, f"pp{PROMPT}", threads, case, limit, limited)
        release([*cases.values(), *peaks.values()])

    def _cases(
        self, threads: int, tokens: Sequence[int],
        ours: Callable[[Session, Sequence[int]], object], reads: bool,
    ) -> dict[str, Case]:  # fmt: skip
        cases, count = {}, len(tokens)
        for engine, weights in self._weights.items():
            # All is read: random gates tell nothing of how many of a model's are 0.
            session = Session(Model(weights, threads, sparse="never"))
            run = partial(from_empty, session, ours, tokens)
            # A larger model is found in no cache, however often it is read.
            first = tokens if weights.bytes_per_token < last_level_bytes() else tokens[:1]
            before = partial(from_empty, session, ours, first) if self._task.settled else nothing
            cases[engine] = Case(engine, run, count, before=before)
        if threads == self._task.threads[-1]:
            for engine, (decoder, _) in self._peers.items():
                cases[engine] = llama_case(engine, decoder, reads, count)
        return cases

    def _time(self, turns: list[Case], rounds: int) -> None:
        """Where there are peers, whose threads spin on after their turn, let them sleep first."""
        for case in turns if self._peers else ():
            if not case.has_clock:  # a peer's, which is settled
                settled(case, warm=False)
        interleave(turns, rounds, self._advance)

    def _measured(self, cases: dict[str, Case], test: str) -> dict[str, Case]:
        """Without those that failed, which cost a line each."""
        self._found.left_out += [
            f"{self._task.size} {test} {engine}: {case.failure}"
            for engine, case in cases.items()
            if case.failure
        ]
        return {engine: case for engine, case in cases.items() if not case.failure}

    def _add(
        self, engine: str, test: str, threads: int, case: Case, limit: float, limited_by: str,
        **more: Any,
    ) -> None:  # fmt: skip
        """A row; a peer's is as if its layout were not padded to its blocks."""
        version, scale = f"ternops, tier {TIER}", 1.0
        if engine in LLAMA:
            decoder, scale = self._peers[engine]
            version = "; ".join(filter(None, (llama_cpp.about()[0], decoder.remark)))
        self._found.rows.append(Row(
            self._task.size, engine, test, threads, self._task.kind(engine),
            tuple(each / scale for each in case.values), limit=limit, limited_by=limited_by,
            version=version, group=self._task.name, **more,
        ))  # fmt: skip


def from_empty(
    session: Session, run: Callable[[Session, Sequence[int]], object], tokens: Sequence[int]
) -> None:
    """Do it with nothing in the cache."""
    session.position = 0
    run(session, tokens)


def generate(session: Session, tokens: Sequence[int]) -> None:
    """One token after another."""
    for token in tokens:
        session.step(token)


def _rates(peaks: Mapping[Peak, Case], threads: int) -> dict[str, float]:
    """Limit -> multiply-accumulates a second: the most that was seen of the instruction that it is.

    Not of another one in its place: dots are eight times slower than tiles.
    """
    limits = {"multiply-add": FLOATS, "tile": TILES, "dot": DOTS}
    rates = dict.fromkeys(limits.values(), 0.0)
    for peak, case in peaks.items():
        limit = limits[peak.what]
        rates[limit] = max(rates[limit], peak.macs * threads / min(case.values))
    return rates


def with_one_peak(rows: Iterable[Row]) -> list[Row]:
    """The rows of a run, in which an instruction is as fast for every size.

    It is so on one machine; each size has measured it again, and the most that any has seen counts.
    """
    rows = list(rows)
    peaks: dict[tuple[str, int], float] = {}
    for row in rows:
        kind = row.limited_by, row.threads
        peaks[kind] = max(row.limit * LAYOUTS[row.size].linear_weights, peaks.get(kind, 0.0))
    return [
        row if row.is_decode
        else replace(
            row, limit=peaks[row.limited_by, row.threads] / LAYOUTS[row.size].linear_weights
        )
        for row in rows
    ]  # fmt: skip


def steps(task: Task) -> int:
    """About how often `measure` calls advance."""
    engines = len(task.layers) + len(task.peers)
    prompts = (engines + _PEAK_TURNS * len(PEAKS)) * (prompt_rounds(task.rounds) + 1) * task.prompt
    sizes = len(_sizes(linear_bytes(task.size, engine) for engine in task.layers))
    held = len(task.layers) + 2 if task.settled else 0
    turns = (engines + held + CONTENDERS * sizes) * (task.rounds + 1)
    decoded = len(task.threads) * (turns + len(PROBES) * sizes * (_TRIAL_ROUNDS + 1))
    return len(task.layers) + decoded + prompts


def modelled_fp16(row: Row) -> Row:
    """fp16 weights where they do not fit in memory, as fast as the bandwidth beside `row` allows.

    No decoder is faster, so that speed-ups over it are the least that there can be.
    """
    config = LAYOUTS[row.size]
    tokens = int(row.test.removeprefix("tg"))
    layers = range(config.layers)
    norms = sum(sum(config.float_sizes(layer)) for layer in layers) + config.hidden
    rest = head_bytes(row.size) + 2 * config.hidden + 4 * norms
    total = linear_bytes(row.size, FP16) + rest + _cache(config, tokens)
    limit = row.limit * row.bytes_per_token / total
    return Row(
        row.size, FP16, row.test, row.threads, MODELLED, (1 / limit,) * len(row.seconds), total,
        limit, BANDWIDTH, group=row.group,
    )  # fmt: skip


def _sizes(sizes: Iterable[int]) -> list[int]:
    """The working sets of the read probes beside models of some sizes: the nearest powers of two.

    Models that read about as much have one in common.
    """
    most = min(_PROBED_CACHES * last_level_bytes(), MAX_PROBED)
    return list(dict.fromkeys(min(1 << round(math.log2(size)), most) for size in sizes))


def _cache(config: Config, tokens: int) -> int:
    """Bytes of keys and values that a token reads, the mean; a peer's are fp16 as ours."""
    return kv_cache_bytes(config, "fp16", tokens // 2 + 1)


def prompt_rounds(rounds: int) -> int:
    """Of so many that tokens are decoded in: a prompt takes as long as many of them."""
    return max(1, rounds // 3)


def _joules(case: Case) -> float:
    """Joules a token, NaN where nothing here counts them."""
    meter, _ = energy.find_meter()
    if meter is None:
        return math.nan
    done, start = 0, meter.read()
    spent = 0.0
    while spent < _JOULE_SECONDS:
        case.run()
        done += case.loops
        spent += case.median * case.loops
    return float(meter.since(start)) / done
