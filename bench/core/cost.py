"""Results of bench.cost: what was calibrated and measured, and what the cost model says of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from bench.core.envelope import load_json
from bench.core.errors import ResultsError, expect, is_positive
from bench.core.results import ENGINES
from bench.core.table import Cell, Table, number, table, text
from ternops.cost import Hardware, ProfileError, predict
from ternops.cost.hardware import Curve, Level
from ternops.cost.layouts import SIZES
from ternops.cost.measured import SHARED
from ternops.cost.profile import parse
from ternops.cost.workload import workload

COST_FILE = "cost.json"
FORMAT = 1
#: The aim: median and largest error of the speed.
MAX_MEDIAN, MAX_ERROR = 0.04, 0.15


@dataclass(frozen=True)
class Pair:
    """Tokens/s measured, and predicted: the median of what profiles predict, of those that were
    calibrated before and behind the row if it says so, or of all.

    repeats: half of what lies between the slowest and the fastest round of the row, over its
    median; NaN in older results, which do not tell. No prediction can be held to less.
    """

    size: str
    engine: str
    threads: int
    measured: float
    predicted: float
    repeats: float = math.nan

    @property
    def error(self) -> float:
        """Relative, of the speed."""
        return self.predicted / self.measured - 1


def load(path: Path) -> tuple[dict[str, Any], list[Pair]]:
    """What was stored, and the pairs; ResultsError for another kind of file."""
    found = load_json(path, "bench.cost", FORMAT)
    for key in ("profiles", "rows", "left_out"):
        expect(isinstance(found.get(key), list), f"{path}: {key}", found.get(key), "a list")
    try:
        machines = [parse(each, str(path)) for each in found["profiles"]]
    except ProfileError as error:
        raise ResultsError(str(error)) from error
    if not machines:
        raise ResultsError(f"{path}: profiles: none, expected what calibration found")
    rows = enumerate(found["rows"])
    return found, [_pair(row, machines, f"{path}: rows[{i}]") for i, row in rows]


def _check_row(row: Any, where: str) -> None:
    expect(isinstance(row, dict), where, row, "a row")
    choices: dict[str, tuple[str, ...]] = {"size": tuple(SIZES), "engine": ENGINES}
    for key, known in choices.items():
        expect(row.get(key) in known, f"{where}.{key}", row.get(key), " or ".join(known))
    for key in ("threads", "context", "tokens_per_second", "bandwidth"):
        value = row.get(key)
        expect(is_positive(value), f"{where}.{key}", value, "a number above 0")
    for key, most in (("found", 1.0), ("repeats", math.inf)):
        value = row.get(key, 0.0)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        expect(
            is_number and 0 <= value <= most, f"{where}.{key}", value, f"a number from 0 to {most}"
        )


def _beside(row: Any, machines: list[Hardware], where: str) -> list[Hardware]:
    """The profiles that predict a row."""
    if "profile" not in row:
        return machines
    number = row["profile"]
    known = type(number) is int and 0 <= number < len(machines)
    expect(known, f"{where}.profile", number, f"0 to {len(machines) - 1}")
    return machines[number : number + 2]


def _pair(row: Any, machines: list[Hardware], where: str) -> Pair:
    _check_row(row, where)
    size, engine, threads = row["size"], row["engine"], row["threads"]
    speeds = []
    for machine in _beside(row, machines, where):
        # As it is when its memory delivers what the probes beside the row read.
        *caches, memory = machine.levels
        read = replace(memory, bandwidth=Curve((1,), (row["bandwidth"],)))
        try:
            if "found" in row and caches and caches[-1].name == SHARED:
                work = workload(SIZES[size], engine, "decode", row["context"])
                caches[-1] = holding(caches[-1], row["found"], work.bytes)
            hardware = replace(machine, levels=(*caches, read))
            found = predict(SIZES[size], hardware, engine, threads, context=row["context"])
        except ValueError as error:
            raise ResultsError(f"{where}: {error}") from error
        speeds.append(found.tokens_per_second)
    return Pair(
        size,
        engine,
        threads,
        row["tokens_per_second"],
        median(speeds),
        row.get("repeats", math.nan),
    )


def holding(level: Level, share: float, size: int) -> Level:
    """A cache in which that share of a working set is found, whatever the time between passes."""
    return replace(level, capacity=size * level.edge ** (share - 0.5), refill=0.0)


def errors(pairs: list[Pair]) -> tuple[float, float]:
    """Median and largest of the absolute relative errors."""
    found = [abs(each.error) for each in pairs]
    return median(found), max(found)


def table_of(pairs: list[Pair]) -> Table:
    """Every pair."""
    columns: dict[str, Callable[[Pair], Cell]] = {
        "size": lambda each: text(each.size),
        "weights": lambda each: text(each.engine),
        "threads": lambda each: number(each.threads, "{}"),
        "measured": lambda each: number(each.measured, "{:.2f}"),
        "repeats": lambda each: number(each.repeats, "±{:.1%}"),
        "predicted": lambda each: number(each.predicted, "{:.2f}"),
        "error": lambda each: number(each.error, "{:+.1%}"),
    }
    if all(math.isnan(each.repeats) for each in pairs):
        del columns["repeats"]
    title = "Decoding, tokens/s: measured, and predicted from calibrated kernels"
    return table("cost", title, columns, pairs)
