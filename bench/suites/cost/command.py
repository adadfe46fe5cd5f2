"""Is the cost model right about this machine?

    python -m bench.cost

calibrates on kernels, measures decoding of some sizes from 125M to 3B, in every encoding, predicts
the same, and prints both beside each other, within six minutes: sizes for which there is no time
are left out. --full measures ten sizes up to 7B, as far as they fit. Profiles and speeds go to
cost.json in a folder of results after every step, and --resume goes on with them;
`python -m bench.cost_model` makes docs/COST_MODEL.md and its pictures of it.
"""

from __future__ import annotations

import json
import math
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from bench.core import command
from bench.core.cost import COST_FILE, FORMAT, MAX_ERROR, MAX_MEDIAN, errors, load, table_of
from bench.core.envelope import envelope, resumed, save_json
from bench.core.process import INTERRUPTED, WorkerError
from bench.core.results import ENGINES, MEASURED, Probe, Row, having
from bench.suites.run import decoding, worker
from bench.suites.run.found import found_share
from bench.suites.run.plan import Effort, tasks_of
from ternops.cost.calibrate import calibrate

#: Without more being said, and --full. A shared machine drifts with its neighbours: calibrated
#: before and behind each size; and its memory, which drifts most, by the read probes that took
#: turns with each size, and by what was found in its cache of the weights themselves.
DEFAULT = Effort(("125M", "350M", "700M", "2B4T", "3B"), 16, 5, 20e9, 1, 0, settled=True)
FULL = Effort(
    ("125M", "350M", "700M", "1B", "1.5B", "2.7B", "3B", "2B4T", "3.8B", "7B"), 32, 9, 30e9, 1, 0,
    settled=True,
)  # fmt: skip
#: No size is begun that would not end by then, as the ones before it took.
MINUTES = 6
_GROWTH = 2.0  # of a size's time over that of the longest before it, at most


class _Run:
    """What has been measured of a plan, which is in its file after every step."""

    def __init__(
        self, console: Console, path: Path, threads: list[int], effort: Effort, resume: bool
    ) -> None:
        self._console, self.path, self._threads, self._effort = console, path, threads, effort
        options = {"threads": threads, "effort": asdict(effort)}
        self._found: dict[str, Any] = {
            **envelope(FORMAT), "options": json.loads(json.dumps(options)), "done": [],
            "profiles": [], "rows": [], "left_out": [],
        }  # fmt: skip
        if resume and path.exists():
            same = ("options", "ternops", "cpu", "tier")
            self._found = resumed(load(path)[0], self._found, path, same)

    def measure(self) -> list[str]:
        """The rest of the plan; the sizes for which there was no time."""
        sizes = [size for size in self._effort.sizes if size not in self._found["done"]]
        end = time.monotonic() + (math.inf if self._effort is FULL else 60 * MINUTES)
        with command.progress(self._console) as start:
            longest = calibration = 0.0
            if sizes:
                calibration = self._calibrate(start)
            for i, size in enumerate(sizes):
                # The next one is larger; another calibration follows it.
                if time.monotonic() + _GROWTH * longest + calibration > end:
                    return sizes[i:]
                longest = max(longest, self._size(size, start))
                calibration = self._calibrate(start)
        return []

    def _calibrate(self, start: Any) -> float:
        """Seconds that it took."""
        begin = time.monotonic()
        self._found["profiles"].append(
            calibrate(self._threads, start("calibrating", 1 + len(self._threads)))
        )
        save_json(self.path, self._found)
        return time.monotonic() - begin

    def _size(self, size: str, start: Any) -> float:
        """Seconds that it took; its rows are kept once all of them are there."""
        begin, free = time.monotonic(), psutil.virtual_memory().available
        tasks, left_out = tasks_of(size, ENGINES, self._threads, self._effort, free)
        advance = start(size, sum(map(decoding.steps, tasks)))
        found = []
        for task in tasks:
            try:
                rows, probes, lines = worker.run(task, advance)
            except WorkerError as error:
                left_out.append(f"{task.name}: {error}")
                continue
            left_out += lines
            decode = having(rows, is_decode=True, kind=MEASURED)
            number = len(self._found["profiles"]) - 1
            found += [_as_json(row, decode, probes, number) for row in decode]
        self._found["rows"] += found
        self._found["left_out"] += left_out
        self._found["done"].append(size)
        save_json(self.path, self._found)
        return time.monotonic() - begin


def _as_json(row: Row, beside: list[Row], probes: list[Probe], profile: int) -> dict[str, Any]:
    # Of those that took turns, the probe of the most bytes: no cache holds a part of it.
    same = having(beside, threads=row.threads)
    largest = max(same, key=lambda each: each.bytes_per_token)
    share = found_share(probes, row.engine, row.threads)
    return {
        "size": row.size, "engine": row.engine, "threads": row.threads,
        "tokens_per_second": row.speed, "spread": row.spread,
        "repeats": (max(row.seconds) - min(row.seconds)) / 2 * row.speed,
        "bandwidth": largest.limit * largest.bytes_per_token,
        "context": max(1, int(row.test.removeprefix("tg")) // 2), "profile": profile,
        **({} if share is None else {"found": share}),
    }  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Calibrate, measure, predict, print and write; 1 if the model is off, 2 for bad options.

    130 if it was interrupted; what was measured by then is kept.
    """
    parser = command.make_parser("bench.cost", __doc__)
    sizes = ", ".join(FULL.sizes)
    words = f"{sizes}, {FULL.rounds} rounds: half an hour or more"
    parser.add_argument("--full", action="store_true", help=words)
    command.add_options(parser)
    parser.add_argument("--resume", action="store_true", help="go on with what is in the folder")
    arguments = parser.parse_args(argv)
    console = Console()
    effort = FULL if arguments.full else DEFAULT
    try:
        threads = command.chosen_threads(arguments.threads)
        folder = command.chosen_folder(
            arguments.output, COST_FILE, arguments.force, arguments.resume
        )
        run = _Run(console, folder / COST_FILE, threads, effort, arguments.resume)
    except (TypeError, ValueError) as error:
        print(f"bench.cost: {error}", file=sys.stderr)
        return 2
    command.introduce(console, folder, threads)
    try:
        missing = run.measure()
    except KeyboardInterrupt:
        words = f"{run.path} has what was measured; --resume goes on"
        command.tell(console, "interrupted", [words])
        return INTERRUPTED
    if missing:
        line = f"{', '.join(missing)}: no time within {MINUTES} minutes; --resume goes on"
        command.tell(console, "left out", [line])
    return _show(console, run.path)


def _show(console: Console, path: Path) -> int:
    """Print every pair and the errors; 1 if they are above the aims."""
    found, pairs = load(path)
    console.print(table_of(pairs))
    command.tell(console, "left out", found["left_out"])
    if not pairs:
        command.tell(console, "failed", ["no size was measured"], "red")
        return 1
    middle, worst = errors(pairs)
    console.print(f"median error {middle:.1%} (at most {MAX_MEDIAN:.0%}), "
                  f"worst {worst:.1%} (at most {MAX_ERROR:.0%}); wrote {path}")  # fmt: skip
    return int(middle > MAX_MEDIAN or worst > MAX_ERROR or math.isnan(middle))
