"""Two runs side by side: which rows are faster or slower, and by more than they scatter.

A difference counts as one if the middle halves of the two samples (from quartile to quartile) do
not overlap. That looks at the samples themselves: between two processes, or two hours of a shared
machine, a median may move further than the rounds of either one tell.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyperf
from rich.markup import escape
from rich.table import Table

from bench.core import results
from bench.core.errors import ResultsError
from bench.core.measure import envelope_of
from bench.core.results import ABOUT, MEASURED, MODELLED, ROWS, Results, Row
from bench.pages.terminal import number

#: Fewer values have no quartiles to speak of.
_LEAST_VALUES = 3
#: Of run.json: what should be the same in both.
_SAME = ("cpu", "arch", "tier")

_Key = tuple[str, str, str, int]


def parse_percent(text: str) -> float:
    """ "5%" -> 0.05; ValueError for anything but a percentage from 0 to below 100."""
    match = re.fullmatch(r"\s*(\d{1,2}(?:\.\d{1,9})?)\s*%\s*", text, re.ASCII)
    if not match:
        raise ValueError(f"{text!r}: expected a percentage from 0% to below 100%, such as 5%")
    return float(match[1]) / 100


def read(path: Path) -> Results:
    """The results in a folder or, by its decode.json, beside it; or any pyperf suite of seconds.

    What has no size in such a suite becomes a row whose engine is its name; ways to read memory are
    left out, as they are limits and no results.
    Raises ResultsError for what is neither, OSError for what cannot be read.
    """
    if path.is_dir():
        return results.load(path)
    if path.name == ROWS and (path.parent / ABOUT).exists():
        return results.load(path.parent)
    try:
        suite = pyperf.BenchmarkSuite.load(str(path))
        rows = [_row(each) for each in suite if "ternops_probe" not in each.get_metadata()]
    except ResultsError as error:
        raise ResultsError(f"{path}: {error}") from None
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ResultsError(f"{path}: no complete pyperf file") from error
    metadata = suite.get_metadata()
    about = {"tier": metadata.get("ternops_tier"), **envelope_of(suite)}
    return Results(about, rows)


def compare(old: Results, new: Results, most_slower: float | None) -> tuple[Table, list[str]]:
    """A table of all rows of both, and a line for each that became too slow.

    most_slower: the share of its speed that a measured row may lose, None for any. It fails only if
    the difference is more than scatter, too; that no row was measured in both runs is a failure.
    """
    before, after = _by_key(old), _by_key(new)
    both = [key for key in before if key in after]
    plain = all(not row.size for row in (*old.rows, *new.rows))
    table = Table(
        title=f"{'Runs' if plain else 'Tokens'} a second, old and new", title_justify="left",
        caption="\n".join(_warnings(old, new)) or None, caption_justify="left",
    )  # fmt: skip
    for column in ("size", "test", "engine"):
        table.add_column(column)
    for column in ("threads", "old", "spread", "new", "spread", "ratio"):
        table.add_column(column, justify="right")
    table.add_column("kind")
    table.add_column("")
    failures = []
    compared = 0
    for key in both:
        verdict = _verdict(before[key], after[key])
        _add_row(table, before[key], after[key], verdict)
        if before[key].kind == after[key].kind == MEASURED:
            compared += 1
            failures += _failures(before[key], after[key], verdict, most_slower)
    for key, row in before.items():
        if key not in after:
            _add_row(table, row, None, "only in old")
    for key, row in after.items():
        if key not in before:
            _add_row(table, None, row, "only in new")
    if most_slower is not None and not compared:
        failures.append("no row was measured in both runs")
    return table, failures


def _row(benchmark: pyperf.Benchmark) -> Row:
    """A benchmark of any suite."""
    metadata, name, values = benchmark.get_metadata(), benchmark.get_name(), benchmark.get_values()
    if benchmark.get_unit() != "second":
        raise ResultsError(f"benchmark {name!r} is in {benchmark.get_unit()}, expected seconds")
    if "ternops_size" in metadata:
        return results.row_of(metadata, values, name)
    threads = metadata.get("ternops_threads", 0)
    fields = {
        "ternops_size": "", "ternops_engine": name, "ternops_test": "", "ternops_kind": MEASURED,
        "ternops_threads": threads,
    }  # fmt: skip
    return results.row_of(fields, values, name)


def _by_key(run: Results) -> dict[_Key, Row]:
    return {(row.size, row.engine, row.test, row.threads): row for row in run.rows}


def _warnings(old: Results, new: Results) -> list[str]:
    """What makes a comparison doubtful, as far as both tell; a line each."""
    pairs = [(what, old.about.get(what), new.about.get(what)) for what in _SAME]
    found = [
        f"{what}: {before} and {after}"
        for what, before, after in pairs
        if before != after and None not in (before, after)
    ]
    if old.threads != new.threads:
        counts = (", ".join(map(str, run.threads)) for run in (old, new))
        found.append(f"threads: {' and '.join(counts)}")
    return [f"[yellow]warning[/yellow]: the runs differ in {escape(each)}" for each in found]


def _verdict(old: Row, new: Row) -> str:
    """ "faster", "slower", or why it is neither."""
    if old.kind != new.kind:
        return "not of one kind"
    if old.kind == MODELLED:
        return "not timed"
    if min(len(old.seconds), len(new.seconds)) < _LEAST_VALUES:
        return "too few values"
    old_low, old_high = np.percentile(old.seconds, (25, 75))
    new_low, new_high = np.percentile(new.seconds, (25, 75))
    if new_low > old_high:
        return "slower"
    return "faster" if new_high < old_low else "within scatter"


def _failures(old: Row, new: Row, verdict: str, most_slower: float | None) -> list[str]:
    lost = 1 - new.speed / old.speed
    if most_slower is None or verdict != "slower" or lost <= most_slower:
        return []
    name = old.name if old.size else old.engine
    return [
        f"{name}: {number(new.speed)} a second after {number(old.speed)}, {lost:.1%} slower, "
        f"expected at most {most_slower:.2%}"
    ]


def _add_row(table: Table, old: Row | None, new: Row | None, verdict: str) -> None:
    one = old or new
    assert one is not None
    kinds = dict.fromkeys(row.kind for row in (old, new) if row)
    table.add_row(
        one.size, one.test, escape(one.engine), str(one.threads or ""), *_words(old), *_words(new),
        f"{new.speed / old.speed:.3f}x" if old and new else "-", "/".join(kinds),
        {"slower": "[red]slower[/red]", "faster": "[green]faster[/green]"}.get(verdict, verdict),
    )  # fmt: skip


def _words(row: Row | None) -> tuple[str, str]:
    """Speed and spread."""
    return (number(row.speed), f"{row.spread:.1%}") if row else ("-", "-")
