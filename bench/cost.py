"""Is the cost model right about this machine?

    python -m bench.cost

calibrates on kernels, measures decoding of every size from 125M to 7B that fits, in every encoding,
predicts the same, and prints both beside each other. Profiles and speeds go to cost.json in a
folder of results; `python -m bench.cost_model` makes docs/COST_MODEL.md and its pictures of it.
"""

from __future__ import annotations

import argparse
import json
import math
import reprlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from bench import decoding, worker
from bench.about import envelope
from bench.command import add_options, chosen_folder, chosen_threads, introduce, progress
from bench.plan import ENGINES, Effort, tasks_of
from bench.results import MEASURED, Row
from bench.stats import ResultsError
from ternops.cost import Hardware, ProfileError, predict
from ternops.cost.calibrate import calibrate
from ternops.cost.hardware import Curve
from ternops.cost.layouts import SIZES
from ternops.cost.profile import parse
from ternops.files import replaced

RESULTS = "cost.json"
FORMAT = 1
#: What the model is asked about.
ASKED = ("125M", "350M", "700M", "1B", "1.5B", "2.7B", "3B", "2B4T", "3.8B", "7B")
#: The aim: median and largest error of the speed.
MOST_MEDIAN, MOST_ERROR = 0.08, 0.20
_EFFORT = Effort(ASKED, 32, 9, 30e9, 1, 0)
# A shared machine drifts with its neighbours: calibrated before, amidst and behind; and its memory,
# which drifts most, by the read probes that took turns with each size.
_CALIBRATIONS = 3
_MOST = 1e30  # of a figure: beyond it sums and products would overflow


@dataclass(frozen=True)
class Pair:
    """Tokens/s measured, and predicted: the median of all profiles' predictions."""

    size: str
    engine: str
    threads: int
    measured: float
    predicted: float

    @property
    def error(self) -> float:
        """Relative, of the speed."""
        return self.predicted / self.measured - 1


def load(path: Path) -> tuple[dict[str, Any], list[Pair]]:
    """What was stored, and the pairs; ResultsError for another kind of file."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ResultsError(f"{path}: no results of bench.cost: {error}") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ResultsError(f"{path}: no results of bench.cost of format {FORMAT}: measure it again")
    for key in ("profiles", "rows", "left_out"):
        if not isinstance(found.get(key), list):
            raise _wrong(f"{path}: {key}", found.get(key), "a list")
    try:
        return found, list(_pairs(found, str(path)))
    except ProfileError as error:
        raise ResultsError(str(error)) from error


def _pairs(found: dict[str, Any], file: str) -> Iterator[Pair]:
    machines = [parse(each, file) for each in found["profiles"]]
    if not machines:
        raise ResultsError(f"{file}: profiles: none, expected what calibration found")
    for number, row in enumerate(found["rows"]):
        where = f"{file}: rows[{number}]"
        _check_row(row, where)
        try:
            yield _pair(row, machines)
        except ValueError as error:
            raise ResultsError(f"{where}: {error}") from error


def _check_row(row: Any, where: str) -> None:
    if not isinstance(row, dict):
        raise _wrong(where, row, "a row")
    choices: dict[str, Any] = {"size": SIZES, "engine": ENGINES}
    for key, known in choices.items():
        if not isinstance(row.get(key), str) or row[key] not in known:
            raise _wrong(f"{where}.{key}", row.get(key), " or ".join(known))
    for key in ("threads", "context", "tokens_per_second", "bandwidth"):
        value: Any = row.get(key)
        if type(value) not in (int, float) or not 0 < value < _MOST:
            raise _wrong(f"{where}.{key}", value, "a number above 0")


def _wrong(where: str, value: Any, expected: str) -> ResultsError:
    return ResultsError(f"{where}: is {reprlib.repr(value)}, expected {expected}")


def _pair(row: dict[str, Any], machines: list[Hardware]) -> Pair:
    speeds = [
        predict(
            SIZES[row["size"]], _reading(each, row["bandwidth"]), ENGINES[row["engine"]],
            row["threads"], context=row["context"],
        ).tokens_per_second
        for each in machines
    ]  # fmt: skip
    return Pair(
        row["size"], row["engine"], row["threads"], row["tokens_per_second"], median(speeds)
    )


def _reading(machine: Hardware, bandwidth: float) -> Hardware:
    """The machine when its memory delivered so many bytes/s."""
    *caches, memory = machine.levels
    return replace(machine, levels=(*caches, replace(memory, bandwidth=Curve((1,), (bandwidth,)))))


def errors(pairs: list[Pair]) -> tuple[float, float]:
    """Median and largest of the absolute relative errors."""
    found = [abs(each.error) for each in pairs]
    return median(found), max(found)


def table_of(pairs: list[Pair]) -> Table:
    """Every pair."""
    table = Table(title="Decoding, tokens/s: measured, and predicted from calibrated kernels")
    for column in ("size", "engine", "threads", "measured", "predicted", "error"):
        table.add_column(column, justify="left" if column in ("size", "engine") else "right")
    for each in pairs:
        table.add_row(
            each.size, each.engine, str(each.threads), f"{each.measured:.2f}",
            f"{each.predicted:.2f}", f"{each.error:+.1%}",
        )  # fmt: skip
    return table


def _measure(console: Console, threads: list[int]) -> dict[str, Any]:
    found: dict[str, Any] = {**envelope(FORMAT), "profiles": [], "rows": [], "left_out": []}
    parts = [ASKED[start :: _CALIBRATIONS - 1] for start in range(_CALIBRATIONS - 1)]
    with progress(console) as start:
        for sizes in parts:
            found["profiles"].append(calibrate(threads, start("calibrating", 12)))
            for size in sizes:
                _size(size, threads, found, start)
        found["profiles"].append(calibrate(threads, start("calibrating", 12)))
    return found


def _size(size: str, threads: list[int], found: dict[str, Any], start: Any) -> None:
    free = psutil.virtual_memory().available
    tasks, left_out = tasks_of(size, ENGINES, threads, _EFFORT, free)
    found["left_out"] += left_out
    advance = start(size, sum(map(decoding.steps, tasks)))
    for task in tasks:
        try:
            rows, _, lines = worker.run(task, advance)
        except worker.WorkerError as error:
            found["left_out"].append(f"{task.name}: {error}")
            continue
        found["left_out"] += lines
        decode = [row for row in rows if row.is_decode and row.kind == MEASURED]
        found["rows"] += [_as_json(row, decode) for row in decode]


def _as_json(row: Row, beside: list[Row]) -> dict[str, Any]:
    # Of those that took turns, the probe of the most bytes: no cache holds a part of it.
    same = [each for each in beside if each.threads == row.threads]
    largest = max(same, key=lambda each: each.bytes_per_token)
    return {
        "size": row.size, "engine": row.engine, "threads": row.threads,
        "tokens_per_second": row.speed, "spread": row.spread,
        "bandwidth": largest.limit * largest.bytes_per_token,
        "context": max(1, int(row.test.removeprefix("tg")) // 2),
    }  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Calibrate, measure, predict, print and write; 1 if the model is off, 2 for bad options."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.cost", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add_options(parser)
    arguments = parser.parse_args(argv)
    console = Console()
    try:
        threads = chosen_threads(arguments.threads)
        folder = chosen_folder(arguments.output, RESULTS, arguments.force)
    except (TypeError, ValueError) as error:
        print(f"bench.cost: {error}", file=sys.stderr)
        return 2
    introduce(console, folder, threads)
    found = _measure(console, threads)
    path = folder / RESULTS
    with replaced(path) as temporary:
        temporary.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    _, pairs = load(path)
    console.print(table_of(pairs))
    for line in found["left_out"]:
        console.print(f"left out: {line}", highlight=False, markup=False)
    if not pairs:
        console.print("failed: no size was measured")
        return 1
    middle, worst = errors(pairs)
    console.print(f"median error {middle:.1%} (at most {MOST_MEDIAN:.0%}), "
                  f"worst {worst:.1%} (at most {MOST_ERROR:.0%}); wrote {path}")  # fmt: skip
    return int(middle > MOST_MEDIAN or worst > MOST_ERROR or math.isnan(middle))


if __name__ == "__main__":
    sys.exit(main())
