"""Decoding and prefill of a layout with random weights: every engine in turn, beside its limit."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from math import isnan, nan
from pathlib import Path

import numpy as np

from bench.core import energy
from bench.core.command import Advance
from bench.core.envelope import TIER
from bench.core.errors import first_line
from bench.core.measure import Case, interleave
from bench.core.results import FP16, LLAMA, MEASURED, MODELLED, Row, linear_bytes
from bench.engines import llama_cpp, settle
from bench.limits.peaks import PEAKS, Peak, Unit
from bench.limits.probes import bandwidth, probe_cases
from bench.models import random_gguf
from bench.suites.run.plan import Task
from ternops.cost.layouts import SIZES
from ternops.cost.probes import Reader
from ternops.cpu_caches import last_level_bytes
from ternops.decoder import Config, Model
from ternops.decoder.cache import kv_cache_bytes
from ternops.decoder.session import Session
from ternops.decoder.weights import Weights, random_weights
from ternops.isa import HAS_TILES

#: Tokens of a prompt whose prefill is measured.
PROMPT = 512
#: What rows are limited by.
BANDWIDTH, DOTS, FLOATS = "read bandwidth", "dot instruction", "multiply-add instruction"
TILES = "tile product"
#: What products of int8 activations are limited by here.
INTEGERS = TILES if HAS_TILES else DOTS
_HEAD = "f16"  # of llama.cpp's models, as of ours
# A working set so many times the last-level cache is read no faster or slower than a larger one.
_PROBED_CACHES = 8
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
        engines = _Engines(task, stack, advance, found.left_out)
        for threads in task.threads:
            _decode(task, engines, threads, advance, found)
        if task.prompt:
            _prefill(task, engines, task.threads[-1], advance, found)
    return found


class _Engines:
    """Everything of a task that takes memory: weights, buffers of probes, and peers' models."""

    def __init__(self, task: Task, stack: ExitStack, advance: Advance, left_out: list[str]) -> None:
        self.weights: dict[str, Weights] = {}
        for engine, layers in task.layers.items():
            config = SIZES[task.size]
            self.weights[engine] = random_weights(config, engine, distinct=layers)
            advance(f"{engine} weights")
        sizes = [_probed(each.bytes_per_token) for each in self.weights.values()]
        self.readers = {size: Reader(size) for size in dict.fromkeys(sizes)}
        self.peers = _peers(task, stack, left_out)

    def models(self, threads: int) -> dict[str, Model]:
        """Ours, with fp16 heads."""
        return {engine: Model(each, threads) for engine, each in self.weights.items()}


def _decode(task: Task, engines: _Engines, threads: int, advance: Advance, found: Measured) -> None:
    """Rows of generating tokens; of peers at the last thread count, which they were given."""
    probes = {
        size: probe_cases(f"{task.name}, {size} B", reader, threads)
        for size, reader in engines.readers.items()
    }
    cases = {
        engine: _generating(model, task.tokens) for engine, model in engines.models(threads).items()
    }
    peers = engines.peers if threads == task.threads[-1] else {}
    cases |= {engine: _peer_generating(each, task.tokens) for engine, each in peers.items()}
    turns = [*cases.values(), *chain.from_iterable(probes.values())]
    _settle(turns, peers)
    interleave(turns, task.rounds, advance)
    for engine, case in cases.items():
        total = _bytes_per_token(task, engine, engines.weights.get(engine))
        nearest = min(probes, key=lambda size: abs(size - total))
        limit = bandwidth(probes[nearest], case.values)
        joules = _joules(case)
        found.rows.append(Row(
            task.size, engine, f"tg{task.tokens}", threads, task.kind(engine),
            _scaled(task, engine, case), total, limit / total, BANDWIDTH, joules,
            "" if isnan(joules) else MEASURED, _version(engine), task.name,
        ))  # fmt: skip
    found.probes += chain.from_iterable(probes.values())
    for case in turns:
        case.release()


def _prefill(
    task: Task, engines: _Engines, threads: int, advance: Advance, found: Measured
) -> None:
    """Rows of reading a prompt, beside the instruction that adds products up."""
    config = SIZES[task.size]
    cases = {engine: _reading(model, config) for engine, model in engines.models(threads).items()}
    cases |= {
        engine: Case(engine, partial(each.prompt, PROMPT), PROMPT)
        for engine, each in engines.peers.items()
    }
    unit = Unit()
    peaks = {
        peak: Case(peak.how, partial(unit.run, peak, threads, _PEAK_ROUNDS), _PEAK_ROUNDS)
        for peak in PEAKS
    }
    turns = [*cases.values(), *peaks.values()]
    _settle(turns, engines.peers)
    interleave([*cases.values(), *_PEAK_TURNS * [*peaks.values()]], _prompt_rounds(task), advance)
    rates = _rates(peaks, threads)
    for engine, case in cases.items():
        limited = FLOATS if LLAMA.get(engine, engine) in (FP16, "f16") else INTEGERS
        limit = rates[limited] / config.linear_weights
        found.rows.append(Row(
            task.size, engine, f"pp{PROMPT}", threads, task.kind(engine),
            _scaled(task, engine, case), 0, limit, limited, version=_version(engine),
            group=task.name,
        ))  # fmt: skip
    for case in turns:
        case.release()


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
        if not row.is_decode:
            rate = row.limit * SIZES[row.size].linear_weights
            peaks[_peak_of(row)] = max(rate, peaks.get(_peak_of(row), 0.0))
    return [
        row if row.is_decode
        else replace(row, limit=peaks[_peak_of(row)] / SIZES[row.size].linear_weights)
        for row in rows
    ]  # fmt: skip


def _peak_of(row: Row) -> tuple[str, int]:
    return row.limited_by, row.threads


def steps(task: Task) -> int:
    """About how often `measure` calls advance."""
    rounds = task.rounds + 1
    engines = len(task.layers) + len(task.peers)
    probes = 12 * len({_probed(linear_bytes(task.size, engine)) for engine in task.layers})
    prompts = (engines + _PEAK_TURNS * len(PEAKS)) * (_prompt_rounds(task) + 1) * task.prompt
    return len(task.layers) + len(task.threads) * (engines + probes) * rounds + prompts


def modelled_fp16(row: Row) -> Row:
    """fp16 weights where they do not fit in memory, as fast as the bandwidth beside `row` allows.

    No decoder is faster, so that speed-ups over it are the least that there can be.
    """
    config = SIZES[row.size]
    tokens = int(row.test.removeprefix("tg"))
    total = linear_bytes(row.size, FP16) + _rest(config) + _cache(config, tokens)
    limit = row.limit * row.bytes_per_token / total
    return Row(
        row.size, FP16, row.test, row.threads, MODELLED, (1 / limit,) * len(row.seconds), total,
        limit, BANDWIDTH, group=row.group,
    )  # fmt: skip


def _rest(config: Config) -> int:
    """Bytes a token of the head, the embedding's row and the norms."""
    norms = config.layers * sum(config.norm_sizes().values()) + config.hidden
    return 2 * config.vocabulary * config.hidden + 2 * config.hidden + 4 * norms


def _probed(size: int) -> int:
    return min(size, _PROBED_CACHES * last_level_bytes())


def _cache(config: Config, tokens: int) -> int:
    """Bytes of keys and values that a token reads, the mean."""
    return kv_cache_bytes(config, "fp16", tokens // 2 + 1)


def _generating(model: Model, tokens: int) -> Case:
    session = Session(model)

    def run() -> None:
        session.position = 0
        for token in range(tokens):
            session.step(token)

    return Case("tg", run, tokens)


def _peer_generating(decoder: llama_cpp.LlamaDecoder, tokens: int) -> Case:
    return Case("llama.cpp", partial(decoder.generate, tokens), tokens)


def _reading(model: Model, config: Config) -> Case:
    session = Session(model)
    tokens = np.random.default_rng(0).integers(0, config.vocabulary, PROMPT).tolist()

    def run() -> None:
        session.position = 0
        session.read(tokens)

    return Case("pp", run, PROMPT)


def _settle(cases: list[Case], peers: dict[str, llama_cpp.LlamaDecoder]) -> None:
    """Where there are peers, whose threads spin on after their turn, let them go to sleep first."""
    for case in cases if peers else ():
        case.before = partial(settle, _nothing)


def _nothing() -> None:
    pass


def _peers(task: Task, stack: ExitStack, left_out: list[str]) -> dict[str, llama_cpp.LlamaDecoder]:
    """Each peer with a random model of its own, and a line for each that has none."""
    decoders = {}
    for engine in task.peers:
        kind = LLAMA[engine]
        try:
            layout, _ = random_gguf.for_llama_cpp(SIZES[task.size], kind, _HEAD)
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            path = stack.enter_context(random_gguf.random_gguf(folder, layout, kind, _HEAD))
            decoders[engine] = llama_cpp.LlamaDecoder(path, task.threads[-1], PROMPT)
            stack.callback(decoders[engine].close)
        except (ImportError, OSError, RuntimeError, ValueError) as error:
            left_out.append(f"{task.size} {engine}: {first_line(error)}")
    return decoders


def _bytes_per_token(task: Task, engine: str, weights: Weights | None) -> int:
    """Bytes that a token reads, its cache in the mean; a peer's cache is float16 as ours."""
    config = SIZES[task.size]
    if weights:
        read = weights.bytes_per_token
    else:
        read = round(random_gguf.bytes_read(config, LLAMA[engine], _HEAD))
    return read + _cache(config, task.tokens)


def _prompt_rounds(task: Task) -> int:
    return max(1, task.rounds // 3)


def _scaled(task: Task, engine: str, case: Case) -> tuple[float, ...]:
    """Seconds a token; of a peer as if its layout were not padded to its blocks."""
    scale = 1.0
    if engine in LLAMA:
        _, scale = random_gguf.for_llama_cpp(SIZES[task.size], LLAMA[engine], _HEAD)
    return tuple(each / scale for each in case.values)


def _version(engine: str) -> str:
    return llama_cpp.about()[0] if engine in LLAMA else f"ternops, tier {TIER}"


def _joules(case: Case) -> float:
    """Joules a token, NaN where nothing here counts them."""
    meter, _ = energy.find_meter()
    if meter is None:
        return nan
    done, start = 0, meter.read()
    spent = 0.0
    while spent < _JOULE_SECONDS:
        case.run()
        done += case.loops
        spent += case.median * case.loops
    return float(meter.since(start)) / done
