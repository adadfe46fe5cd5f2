"""Files of what was timed, which are pyperf suites."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pyperf

from bench.core.envelope import ENVELOPE, envelope, from_metadata, to_metadata
from bench.core.errors import ResultsError
from bench.core.measure import Case
from ternops.files import replaced

#: Of pyperf suites; others are not read. Those without an envelope are of this one, too.
FORMAT = 1
#: Of what this library says in a benchmark's metadata.
PREFIX = "ternops_"
_TYPES: dict[str, Any] = {"str": str, "int": int, "float": (int, float)}


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
    """A pyperf suite; ResultsError for another file or format, else OSError."""
    try:
        suite = pyperf.BenchmarkSuite.load(str(path))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ResultsError(f"{path}: not a complete pyperf file") from error
    found = envelope_of(suite).get("format", FORMAT)
    if found != FORMAT:
        raise ResultsError(f"{path}: format {found!r}, expected {FORMAT}: measure it again")
    return suite


def envelope_of(suite: pyperf.BenchmarkSuite) -> dict[str, Any]:
    """What a suite says of itself, as far as it does."""
    metadata = suite.get_metadata()
    found = from_metadata(metadata)
    if "cpu_model_name" in metadata:  # older ones say so alone
        found.setdefault("cpu", metadata["cpu_model_name"])
    return {key: found[key] for key in ENVELOPE if key in found}


def metadata_of(record: Any, *others: str) -> dict[str, Any]:
    """The fields of a dataclass but `others` as pyperf keeps them: no empty text and no NaN."""
    found = {each.name: getattr(record, each.name) for each in fields(record)}
    return {
        PREFIX + name: value
        for name, value in found.items()
        if name not in others and value != "" and value == value
    }


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
