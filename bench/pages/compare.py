"""Two runs side by side: which rows are faster or slower, and by more than they scatter.

A difference counts as one if the middle halves of the two samples (from quartile to quartile) do
not overlap. That looks at the samples themselves: between two processes, or two hours of a shared
machine, a median may move further than the rounds of either one tell.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyperf

from bench.core import results
from bench.core.errors import ResultsError
from bench.core.pyperf_files import PREFIX, envelope_of
from bench.core.results import MEASURED, MODELLED, ROWS_FILE, RUN_FILE, Results, Row
from bench.core.table import Cell, Table, number, speed, table, text

#: Fewer values have no quartiles to speak of.
_MIN_VALUES = 3
#: Of run.json: what should be the same in both.
_SAME = ("cpu", "arch", "tier")

_Key = tuple[str, str, str, int]
_Pair = tuple[Row | None, Row | None, str]  # old, new, verdict


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
    if path.name == ROWS_FILE and (path.parent / RUN_FILE).exists():
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
    rows: list[_Pair] = []
    failures, measured = [], 0
    for key, one in before.items():
        if other := after.get(key):
            rows.append((one, other, verdict := _verdict(one, other)))
            if most_slower is None or not one.kind == other.kind == MEASURED:
                continue
            measured += 1
            lost = 1 - other.speed / one.speed
            if verdict == "slower" and lost > most_slower:
                failures.append(
                    f"{one.name if one.size else one.engine}: {speed(other.speed).text} a second "
                    f"after {speed(one.speed).text}, {lost:.1%} slower, expected at most "
                    f"{most_slower:.2%}"
                )
    rows += [(before[key], None, "only in old") for key in before if key not in after]
    rows += [(None, after[key], "only in new") for key in after if key not in before]
    if most_slower is not None and not measured:
        failures.append("no row was measured in both runs")
    return _table(old, new, rows), failures


def _row(benchmark: pyperf.Benchmark) -> Row:
    """A benchmark of any suite."""
    metadata, name, values = benchmark.get_metadata(), benchmark.get_name(), benchmark.get_values()
    if benchmark.get_unit() != "second":
        raise ResultsError(f"benchmark {name!r} is in {benchmark.get_unit()}, expected seconds")
    if "ternops_size" in metadata:
        return results.row_of(metadata, values, name)
    fields = {"size": "", "engine": name, "test": "", "kind": MEASURED}
    fields["threads"] = metadata.get("ternops_threads", 0)
    return results.row_of({PREFIX + key: each for key, each in fields.items()}, values, name)


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
    return [f"warning: the runs differ in {each}" for each in found]


def _verdict(old: Row, new: Row) -> str:
    """ "faster", "slower", or why it is neither."""
    if old.kind != new.kind:
        return "not of one kind"
    if old.kind == MODELLED:
        return "not timed"
    if min(len(old.seconds), len(new.seconds)) < _MIN_VALUES:
        return "too few values"
    old_low, old_high = np.percentile(old.seconds, (25, 75))
    new_low, new_high = np.percentile(new.seconds, (25, 75))
    if new_low > old_high:
        return "slower"
    return "faster" if new_high < old_low else "within scatter"


def _table(old: Results, new: Results, rows: Sequence[_Pair]) -> Table:
    plain = all(not row.size for row in (*old.rows, *new.rows))
    marks = {"slower": "warn", "faster": "good"}
    columns: dict[str, Callable[[_Pair], Cell]] = {
        "size": lambda each: Cell(_one(each).size),
        "test": lambda each: Cell(_one(each).test),
        "engine": lambda each: Cell(_one(each).engine),
        "threads": lambda each: Cell(str(_one(each).threads or ""), _one(each).threads),
        "old": lambda each: speed(each[0] and each[0].speed),
        "old spread": lambda each: number(each[0] and each[0].spread, "{:.1%}"),
        "new": lambda each: speed(each[1] and each[1].speed),
        "new spread": lambda each: number(each[1] and each[1].spread, "{:.1%}"),
        "ratio": lambda each: number(
            each[1].speed / each[0].speed if each[0] and each[1] else None, "{:.3f}x"
        ),
        "kind": lambda each: text("/".join(dict.fromkeys(row.kind for row in each[:2] if row))),
        "": lambda each: Cell(each[2], mark=marks.get(each[2], "")),
    }
    title = f"{'Runs' if plain else 'Tokens'} a second, old and new"
    return table("compare", title, columns, rows, _warnings(old, new), whole=True)


def _one(pair: _Pair) -> Row:
    row = pair[0] or pair[1]
    assert row is not None
    return row
