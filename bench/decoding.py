"""Decoding the paper's layouts with random weights: fp16 against ternary, beside the limit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import psutil

from bench.measure import MOST_SHARE, Case, bandwidth, interleave, probe_cases
from bench.probes import MOST_PROBED, PROBES, Reader
from bench.shapes import SIZES, host_arch
from ternops.decoder import Model
from ternops.decoder.cache import cache_bytes
from ternops.decoder.model import Session
from ternops.decoder.records import PARTS
from ternops.decoder.weights import random_weights
from ternops.encodings import ENCODINGS
from ternops.simd import targets

ENGINES = {"fp16": "float16", "two_bit": "two_bit", "base3": "base3"}


@dataclass
class Row:
    """One engine at one size and thread count, with the limit measured beside it.

    bytes_per_token: weights and the mean of the cache read; limit: bytes a second;
    breakdown: seconds a token by part.
    """

    size: str
    engine: str
    threads: int
    bytes_per_token: int
    case: Case
    limit: float = 0.0
    probes: list[Case] = field(default_factory=list)
    breakdown: dict[str, float] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """Of the read bandwidth."""
        return self.bytes_per_token / self.case.median / self.limit


def memory_needed(size: str) -> int:
    """Bytes that measuring a size takes at its highest."""
    config = SIZES[size]
    linear = config.linear_weights
    packed = sum(
        ENCODINGS[kind].nbytes(1, linear) for kind in ENGINES.values() if kind in ENCODINGS
    )
    head = len(ENGINES) * 2 * config.vocabulary * config.hidden
    probed = len(ENGINES) * 2 * min(MOST_PROBED, linear * 2)
    return linear * 2 + packed + head + probed + (1 << 28)


def steps(size: str, threads: list[int], rounds: int) -> int:
    """How often `measure` calls advance."""
    return len(threads) * len(ENGINES) * (1 + len(PROBES)) * (rounds + 1)


def measure(
    size: str, threads: list[int], tokens: int, rounds: int, advance: Callable[[str], None]
) -> list[Row]:
    """Decode `tokens` tokens from an empty context in each round; rows by thread count.

    Raises MemoryError, saying what is missing, before anything is allocated.
    """
    needed, free = memory_needed(size), psutil.virtual_memory().available
    if needed > free:
        raise MemoryError(f"{size}: needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free")
    config = SIZES[size]
    weights = {name: random_weights(config, kind) for name, kind in ENGINES.items()}
    readers = {
        name: Reader(min(MOST_PROBED, each.bytes_per_token)) for name, each in weights.items()
    }
    rows = []
    for count in threads:
        group = []
        for name, each in weights.items():
            session = Session(Model(each, count))
            row = _row(size, name, count, each.bytes_per_token, session, tokens)
            row.probes = probe_cases(f"{size} {name}", readers[name], count)
            group.append((row, session))
        # Each engine beside its own probes, and the engines in turn: pairs of neighbours.
        cases = [case for row, _ in group for case in (row.case, *row.probes)]
        interleave(cases, rounds, advance)
        for row, session in group:
            row.limit = bandwidth(row.probes)
            row.breakdown = _breakdown(session, tokens)
            row.case.metadata["ternops_read_bandwidth"] = row.limit
            rows.append(row)
        for case in cases:
            case.release()
    return rows


def _row(
    size: str, engine: str, threads: int, weight_bytes: int, session: Session, tokens: int
) -> Row:
    def run() -> None:
        session.position = 0
        for token in range(tokens):
            session.step(token)

    total = weight_bytes + cache_bytes(SIZES[size], "fp16", tokens // 2 + 1)
    metadata = {
        "ternops_size": size,
        "ternops_engine": engine,
        "ternops_threads": threads,
        "ternops_bytes_per_token": total,
        "ternops_tier": targets.TIER.name,
        "ternops_kind": "measured",
        "ternops_arch": host_arch(),
    }
    name = f"decode {size} {engine}, {threads} thread(s)"
    return Row(size, engine, threads, total, Case(name, run, tokens, metadata))


def _breakdown(session: Session, tokens: int) -> dict[str, float]:
    laps = session.measure()
    session.position = 0
    for token in range(tokens):
        session.step(token)
    return {part: float(lap) / 1e9 / tokens for part, lap in zip(PARTS, laps, strict=True)}


def check_limits(rows: list[Row]) -> list[str]:
    """A sentence for each row whose probe was slower than the kernel: the run is then invalid."""
    return [
        f"{row.case.name}: {row.share:.1%} of the read bandwidth; the probe missed the limit"
        for row in rows
        if row.share > MOST_SHARE
    ]
