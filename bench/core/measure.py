"""Timing in interleaved rounds, and pyperf suites of what was timed.

A round runs every case once, so that a machine that drifts drifts for all of them, and value i of
two cases makes a fair pair.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyperf

from bench.core.envelope import ENVELOPE, envelope, from_metadata, to_metadata
from bench.core.errors import ResultsError
from ternops.files import replaced

#: Of pyperf suites; others are not read. Those without an envelope are of this one, too.
FORMAT = 1
#: Of what this library says in a benchmark's metadata.
PREFIX = "ternops_"
_TYPES: dict[str, Any] = {"str": str, "int": int, "float": (int, float)}
#: A share of the limit above this means that the probe missed the limit.
MOST_SHARE = 1.02


def _nothing() -> None:
    pass


@dataclass
class Case:
    """Something to time: `run` does `loops` units of work; `values` are seconds a unit.

    before: what is done before each run and not timed. close: what is done once `run` is no longer
    needed.
    """

    name: str
    run: Callable[[], object]
    loops: int = 1
    metadata: dict[str, Any] = field(default_factory=dict)
    values: list[float] = field(default_factory=list)
    before: Callable[[], object] = _nothing
    close: Callable[[], object] = _nothing

    def release(self) -> None:
        """Let go of what `run` works on, which may be gigabytes; the values stay."""
        self.close()
        self.run = self.before = self.close = _nothing

    @property
    def median(self) -> float:
        """Seconds a unit."""
        return float(np.median(self.values))

    @property
    def spread(self) -> float:
        """Half the interquartile range over the median."""
        low, high = np.percentile(self.values, (25, 75))
        return float(high - low) / 2 / self.median

    def benchmark(self) -> pyperf.Benchmark:
        """This case as a pyperf benchmark."""
        metadata = {"name": self.name, "unit": "second", "loops": self.loops, **self.metadata}
        run = pyperf.Run(self.values, metadata=metadata, collect_metadata=False)
        return pyperf.Benchmark([run])


def loops_for(seconds: float, run: Callable[[], object]) -> int:
    """How often to run something so that it takes about that long; it is run twice to find out."""
    run()
    start = time.perf_counter()
    run()
    once = time.perf_counter() - start
    return max(1, math.ceil(seconds / max(once, 1e-9)))


def interleave(
    cases: Sequence[Case], rounds: int, advance: Callable[[str], None] = lambda name: None
) -> None:
    """Run every case once in each of `rounds` rounds, after one that does not count."""
    for number in range(rounds + 1):
        for case in cases:
            case.before()
            start = time.perf_counter()
            case.run()
            seconds = (time.perf_counter() - start) / case.loops
            if number:
                case.values.append(seconds)
            advance(case.name)


def save_suite(path: Path, cases: Sequence[Case]) -> None:
    """Write what was timed as a pyperf suite."""
    save_benchmarks(path, [case.benchmark() for case in cases])


def save_benchmarks(
    path: Path, benchmarks: Sequence[pyperf.Benchmark], about: Mapping[str, Any] | None = None
) -> None:
    """Write a pyperf suite with this machine's metadata, whole or not at all.

    about: has the envelope, by default that of what is written here and now.
    """
    head = to_metadata({**(envelope(FORMAT) if about is None else about), "format": FORMAT})
    common = pyperf.Run([1.0], collect_metadata=True).get_metadata()
    # What names this machine or this moment's user says nothing about the figures.
    left_out = {
        "hostname", "command", "python_executable", "python_config_args", "python_cflags", "date",
        "boot_time", "uptime", "unit", "name",
    }  # fmt: skip
    suite = pyperf.BenchmarkSuite(benchmarks)
    for benchmark in suite:
        known = {k: v for k, v in common.items() if k not in left_out}
        benchmark.update_metadata({**known, **benchmark.get_metadata(), **head})
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced(path) as temporary:
        suite.dump(str(temporary), replace=True)


def load_suite(path: Path) -> pyperf.BenchmarkSuite:
    """A pyperf suite; ResultsError for one that is none, or of another format, OSError else."""
    try:
        suite = pyperf.BenchmarkSuite.load(str(path))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ResultsError("not a complete pyperf file") from error
    found = envelope_of(suite).get("format", FORMAT)
    if found != FORMAT:
        raise ResultsError(f"format {found!r}, expected {FORMAT}: measure it again")
    return suite


def envelope_of(suite: pyperf.BenchmarkSuite) -> dict[str, Any]:
    """What a suite says of itself, as far as it does."""
    metadata = suite.get_metadata()
    found = from_metadata(metadata)
    if "cpu_model_name" in metadata:  # older ones say so alone
        found.setdefault("cpu", metadata["cpu_model_name"])
    return {key: found[key] for key in ENVELOPE if key in found}


def fields_of(kind: Any, metadata: Mapping[str, Any], name: str, *others: str) -> dict[str, Any]:
    """The fields of a dataclass but `others`, as a benchmark's metadata has them or by default.

    Raises ResultsError for one that is missing or of another type.
    """
    found = {}
    for each in fields(kind):
        if each.name not in others:
            value = metadata.get(PREFIX + each.name, each.default)
            if isinstance(value, bool) or not isinstance(value, _TYPES[str(each.type)]):
                raise ResultsError(
                    f"benchmark {name!r} has no valid '{PREFIX}{each.name}' metadata"
                )
            found[each.name] = value
    return found
