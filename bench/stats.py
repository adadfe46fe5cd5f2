"""Reading decoding results, and the statistics of interleaved measurements."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import pyperf

FP16 = "fp16"
"""The name of the engine that every encoding is compared with."""

T = TypeVar("T", int, str)


class Spread(NamedTuple):
    """A median with the quartiles around it, all in the unit of the sample."""

    median: float
    low: float
    high: float


def speedup(fp16_values: Sequence[float], ternary_values: Sequence[float]) -> Spread:
    """Return how many times faster ternary is, from two interleaved series of seconds a token.

    Value i of both series was measured in the same round, so slow drifts of the machine (clock,
    neighbours) cancel in each ratio: the result is the median of the pairwise ratios and their
    quartiles, without a unit. Raises ValueError for series that cannot be paired.
    """
    if len(fp16_values) != len(ternary_values) or len(fp16_values) == 0:
        raise ValueError(
            f"{len(fp16_values)} fp16 and {len(ternary_values)} ternary values cannot be paired"
        )
    ratios = np.asarray(fp16_values) / np.asarray(ternary_values)
    low, median, high = np.percentile(ratios, [25, 50, 75])
    return Spread(float(median), float(low), float(high))


class ResultsError(ValueError):
    """The results cannot be used; the message says why in one line."""


@dataclass(frozen=True)
class Row:
    """One measured benchmark: bytes moved and seconds taken, both for one token."""

    bytes_per_token: int
    seconds: tuple[float, ...]


@dataclass(frozen=True)
class Results:
    """The rows of one run on one machine, by size, engine and number of threads."""

    cpu: str
    tier: str
    arch: str
    rows: dict[tuple[str, str, int], Row]

    @property
    def sizes(self) -> list[str]:
        """Sizes from small to large."""
        return sorted({size for size, _, _ in self.rows}, key=lambda s: (_parameters(s), s))

    @property
    def encodings(self) -> list[str]:
        """The engines with ternary weights, in order of the file."""
        return [e for e in dict.fromkeys(engine for _, engine, _ in self.rows) if e != FP16]

    @property
    def threads(self) -> list[int]:
        """The numbers of threads to show: the fewest and the most."""
        counts = {threads for _, _, threads in self.rows}
        return sorted({min(counts), max(counts)})

    def pair(self, size: str, encoding: str, threads: int) -> tuple[Row, Row] | None:
        """Return the fp16 row and the encoding's row, None unless both were measured."""
        fp16 = self.rows.get((size, FP16, threads))
        ternary = self.rows.get((size, encoding, threads))
        return (fp16, ternary) if fp16 and ternary else None


def _parameters(size: str) -> float:
    """Return the number of parameters in a name such as "350M" or "2B4T", infinity without one."""
    match = re.match(r"(\d+(?:\.\d+)?)([MB])", size)
    return float(match[1]) * {"M": 1e6, "B": 1e9}[match[2]] if match else float("inf")


def _field(benchmark: pyperf.Benchmark, key: str, kind: type[T]) -> T:
    value = benchmark.get_metadata().get(key)
    if not isinstance(value, kind):
        raise ResultsError(f"benchmark {benchmark.get_name()!r} has no valid {key!r} metadata")
    return value


def load(path: Path) -> Results:
    """Read the measured decoding rows of a pyperf suite; other benchmarks in it are passed over.

    Raises ResultsError for a file that is not such a suite, OSError for one that cannot be read.
    """
    try:
        suite = pyperf.BenchmarkSuite.load(str(path))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ResultsError("not a complete pyperf file") from error
    rows: dict[tuple[str, str, int], Row] = {}
    machines = set()
    for benchmark in suite:
        if "ternops_size" not in benchmark.get_metadata():
            continue  # a probe of the memory's bandwidth, not of decoding
        if _field(benchmark, "ternops_kind", str) != "measured":
            continue
        size = _field(benchmark, "ternops_size", str)
        engine = _field(benchmark, "ternops_engine", str)
        threads = _field(benchmark, "ternops_threads", int)
        tier = _field(benchmark, "ternops_tier", str)
        arch = _field(benchmark, "ternops_arch", str)
        row = Row(_field(benchmark, "ternops_bytes_per_token", int), benchmark.get_values())
        if not row.seconds or not np.isfinite(row.seconds).all() or row.bytes_per_token < 1:
            raise ResultsError(f"benchmark {benchmark.get_name()!r} has no usable values or bytes")
        if (size, engine, threads) in rows:
            raise ResultsError(f"{size}, {engine}, {threads} threads is there twice")
        rows[size, engine, threads] = row
        cpu = benchmark.get_metadata().get("cpu_model_name", f"an unnamed {arch} CPU")
        machines.add((" ".join(str(cpu).split()), tier, arch))
    if not rows:
        raise ResultsError("no measured decoding rows (metadata 'ternops_size' and 'ternops_kind')")
    if len(machines) > 1:
        raise ResultsError(f"rows of {len(machines)} different machines or tiers")
    return Results(*machines.pop(), rows)
