"""Measuring in a process of its own, so that its memory, threads and crashes are its own.

    python -m bench.worker REQUEST.json ANSWER.json

`call` starts a module like this one, passes its progress on and gives its answer; `run` does so for
a task of bench.run, and `merged` makes one of what several processes found.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

from bench.command import Advance
from bench.plan import Task
from bench.results import Row, row_of

_STEP = "step "  #: lines of a worker's output that begin with it are progress


class WorkerError(RuntimeError):
    """A worker failed; the message is its last word, in one line."""


def call(module: str, request: dict[str, Any], advance: Advance) -> dict[str, Any]:
    """What the module's process answers; it is ended when this is interrupted.

    Raises WorkerError.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        asked, answered, errors = (folder / each for each in ("asked", "answered", "errors"))
        asked.write_text(json.dumps(request), "utf-8")
        with (
            errors.open("wb") as sink,
            subprocess.Popen(
                [sys.executable, "-m", module, str(asked), str(answered)],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=sink, text=True,
                encoding="utf-8", errors="replace",
            ) as process,
        ):  # fmt: skip
            try:
                for line in process.stdout or ():
                    if line.startswith(_STEP):
                        advance(line.removeprefix(_STEP).strip())
            except BaseException:
                process.kill()
                raise
        if process.returncode or not answered.exists():
            words = errors.read_text("utf-8", "replace").strip().splitlines()
            raise WorkerError(words[-1] if words else f"exit code {process.returncode}")
        found: dict[str, Any] = json.loads(answered.read_text("utf-8"))
        return found


def answer(measure: Callable[[dict[str, Any], Advance], dict[str, Any]]) -> int:
    """The main function of a module that `call` starts."""
    asked, answered = map(Path, sys.argv[1:])
    found = measure(
        json.loads(asked.read_text("utf-8")), lambda what: print(_STEP + what, flush=True)
    )
    answered.write_text(json.dumps(found), "utf-8")
    return 0


def run(task: Task, advance: Advance) -> tuple[list[Row], list[dict[str, Any]], list[str]]:
    """The rows, probes ("metadata" and "values") and left-out lines of a task."""
    found = call("bench.worker", asdict(task), advance)
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
    from bench.decoding import measure

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
    sys.exit(answer(_measure))
