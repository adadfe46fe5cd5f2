"""Results of bench.cost: what was calibrated and measured, and what the cost model says of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from bench.core.envelope import load_json
from bench.core.errors import ResultsError, wrong
from bench.core.results import ENGINES
from bench.core.table import Cell, Table, number, table, text
from ternops.cost import Hardware, ProfileError, predict
from ternops.cost.hardware import Curve
from ternops.cost.layouts import SIZES
from ternops.cost.profile import parse

RESULTS = "cost.json"
FORMAT = 1
#: The aim: median and largest error of the speed.
MAX_MEDIAN, MAX_ERROR = 0.08, 0.20
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
    found = load_json(path, "bench.cost", FORMAT)
    for key in ("profiles", "rows", "left_out"):
        if not isinstance(found.get(key), list):
            raise wrong(f"{path}: {key}", found.get(key), "a list")
    try:
        return found, list(_pairs(found, str(path)))
    except ProfileError as error:
        raise ResultsError(str(error)) from error


def _pairs(found: dict[str, Any], file: str) -> Iterator[Pair]:
    machines = [parse(each, file) for each in found["profiles"]]
    if not machines:
        raise ResultsError(f"{file}: profiles: none, expected what calibration found")
    for i, row in enumerate(found["rows"]):
        where = f"{file}: rows[{i}]"
        _check_row(row, where)
        try:
            yield _pair(row, machines)
        except ValueError as error:
            raise ResultsError(f"{where}: {error}") from error


def _check_row(row: Any, where: str) -> None:
    if not isinstance(row, dict):
        raise wrong(where, row, "a row")
    choices: dict[str, Any] = {"size": SIZES, "engine": ENGINES}
    for key, known in choices.items():
        if not isinstance(row.get(key), str) or row[key] not in known:
            raise wrong(f"{where}.{key}", row.get(key), " or ".join(known))
    for key in ("threads", "context", "tokens_per_second", "bandwidth"):
        value: Any = row.get(key)
        if type(value) not in (int, float) or not 0 < value < _MOST:
            raise wrong(f"{where}.{key}", value, "a number above 0")


def _pair(row: dict[str, Any], machines: list[Hardware]) -> Pair:
    speeds = [
        predict(
            SIZES[row["size"]], _reading(each, row["bandwidth"]), row["engine"], row["threads"],
            context=row["context"],
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
    columns: dict[str, Callable[[Pair], Cell]] = {
        "size": lambda each: text(each.size),
        "weights": lambda each: text(each.engine),
        "threads": lambda each: number(each.threads, "{}"),
        "measured": lambda each: number(each.measured, "{:.2f}"),
        "predicted": lambda each: number(each.predicted, "{:.2f}"),
        "error": lambda each: number(each.error, "{:+.1%}"),
    }
    title = "Decoding, tokens/s: measured, and predicted from calibrated kernels"
    return table("cost", title, columns, pairs)
