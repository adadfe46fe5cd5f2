"""A task of bench.run in a process of its own (`run`), and several processes' rows as one."""

from __future__ import annotations

import sys
from dataclasses import asdict, replace
from statistics import fmean
from typing import Any

from bench.core import process
from bench.core.command import Advance
from bench.core.results import Probe, Row, row_of
from bench.suites.run.plan import Task


def run(task: Task, advance: Advance) -> tuple[list[Row], list[Probe], list[str]]:
    """The rows, probes and left-out lines of a task."""
    found = process.call("bench.suites.run.worker", asdict(task), advance)
    rows = [row_of(metadata, seconds, task.name) for metadata, seconds in found["rows"]]
    probes = [Probe(metadata, tuple(seconds)) for metadata, seconds in found["probes"]]
    return rows, probes, found["left_out"]


def merged(runs: list[list[Row]]) -> list[Row]:
    """The rows of several processes as one each, their values one after another.

    A process may find the machine faster than another did, limits and all: a row's share is the
    mean of its shares in each of them. A row that one of the processes lacks is left out of all.
    """
    first, *others = runs
    rows = []
    for row in first:
        same = [row] + [each for run in others for each in run if each.name == row.name]
        if len(same) == len(runs):
            seconds = tuple(value for each in same for value in each.seconds)
            whole = replace(row, seconds=seconds, joules=fmean(each.joules for each in same))
            known = all(each.limit for each in same)
            limit = whole.speed / fmean(each.share for each in same) if known else 0.0
            rows.append(replace(whole, limit=limit))
    return rows


def _measure(request: dict[str, Any], advance: Advance) -> dict[str, Any]:
    # Here and not above: the process that starts workers has no need of the kernels.
    from bench.suites.run.decoding import measure

    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in request.items()}
    found = measure(Task(**fields), advance)
    return {
        "rows": [(row.metadata, row.seconds) for row in found.rows],
        "probes": [
            ({"name": case.name, "loops": case.loops, **case.metadata}, case.values)
            for case in found.probes
        ],
        "left_out": found.left_out,
    }


if __name__ == "__main__":
    sys.exit(process.answer(_measure))
