"""A task of bench.run in a process of its own (`run`), and several processes' rows as one."""

from __future__ import annotations

import sys
from dataclasses import asdict, replace
from statistics import fmean
from typing import Any

from bench.core import process
from bench.core.command import Advance
from bench.core.results import Row, row_of
from bench.suites.run.plan import Task


def run(task: Task, advance: Advance) -> tuple[list[Row], list[dict[str, Any]], list[str]]:
    """The rows, probes ("metadata" and "values") and left-out lines of a task."""
    found = process.call("bench.suites.run.worker", asdict(task), advance)
    rows = [row_of(each["metadata"], each["values"], task.name) for each in found["rows"]]
    return rows, found["probes"], found["left_out"]


def merged(runs: list[list[Row]]) -> list[Row]:
    """The rows of several processes as one each, their values one behind another.

    A process may find the machine faster than another did, limits and all: a row's share is the
    mean of its shares in each of them. A row that one of the processes lacks is left out of all.
    """
    first, *others = runs
    rows = []
    for row in first:
        same = [each for run in others for each in run if each.name == row.name]
        if len(same) == len(others):
            rows.append(_together([row, *same]))
    return rows


def _together(rows: list[Row]) -> Row:
    seconds = tuple(value for row in rows for value in row.seconds)
    joules = fmean(row.joules for row in rows)
    whole = replace(rows[0], seconds=seconds, joules=joules)
    if not all(row.limit for row in rows):
        return replace(whole, limit=0.0)
    return replace(whole, limit=whole.speed / fmean(row.share for row in rows))


def _measure(request: dict[str, Any], advance: Advance) -> dict[str, Any]:
    # Here and not above: the process that starts workers has no need of the kernels.
    from bench.suites.run.decoding import measure

    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in request.items()}
    found = measure(Task(**fields), advance)
    return {
        "rows": [{"metadata": row.metadata, "values": row.seconds} for row in found.rows],
        "probes": [
            {"metadata": {"name": case.name, "loops": case.loops, **case.metadata},
             "values": case.values}
            for case in found.probes
        ],
        "left_out": found.left_out,
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(process.answer(_measure))
