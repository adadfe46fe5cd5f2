"""The server beside the library alone and beside llama.cpp's, over a real port.

    python -m bench.serve --size 700M

starts `python -m ternops serve` on a random model of a layout, asks it as clients do, prints what
was asked and what was seen, and writes serve.json and a picture to results/serve; --draw draws that
again.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.core import command, goals
from bench.core.envelope import envelope, load_json, save_json
from bench.core.errors import ResultsError
from bench.core.process import WorkerError
from bench.pages.plots import serve, style
from bench.suites.serve.models import NAMES, TINY
from bench.suites.serve.sections import PEERS, SECTIONS, ServeOptions
from ternops.threads import check_threads, default_threads

SERVE_FILE, FORMAT = "serve.json", 1
_FOLDER = Path(__file__).parents[3] / "results" / "serve"
_WIDTH = 200
#: Of an answer of the tiny model, whose tokens are so fast that few of them are one event.
_TINY_TOKENS = 400


def main(argv: list[str] | None = None) -> int:
    """0 if all went well, 1 if a figure that no machine excuses was missed, 2 for bad arguments."""
    parser = command.make_parser("bench.serve", __doc__)
    command.add_sections(parser, SECTIONS, "fewer tokens, rounds and seconds", "without llama.cpp")
    parser.add_argument("--size", choices=NAMES, default="700M", help="of the model: %(choices)s")
    parser.add_argument("--threads", type=int, metavar="N", help="default: all")
    parser.add_argument("--output", type=Path, default=_FOLDER, metavar="DIR",
                        help="folder to write")  # fmt: skip
    parser.add_argument("--draw", action="store_true", help="draw the results that are there")
    arguments = parser.parse_args(argv)
    console = command.make_console(_WIDTH)
    path = arguments.output / SERVE_FILE
    found: list[goals.Goal] = []
    try:
        if not arguments.draw:
            threads = check_threads(arguments.threads or default_threads())
            command.introduce(console, arguments.output, [threads])
            found = _measure(arguments, console, threads, path)
        pictures = _draw(load_json(path, "bench.serve", FORMAT), arguments.output)
    except (ResultsError, ValueError, OSError, ImportError) as error:
        print(f"bench.serve: {error}", file=sys.stderr)
        return 2
    if found:
        console.print(goals.asked(found))
    console.print(f"wrote {', '.join(map(str, [path, *pictures]))}", highlight=False)
    return 1 if any(each.seen > each.asked for each in found if each.asked == 0) else 0


def _measure(arguments: Any, console: Any, threads: int, path: Path) -> list[goals.Goal]:
    most = (32, 2, 5.0) if arguments.quick else (128, 7, 60.0)
    if arguments.size == TINY:  # less would be one event
        most = (_TINY_TOKENS, *most[1:])
    options = ServeOptions(arguments.size, threads, *most)
    found: list[goals.Goal] = []
    for name in SECTIONS:
        if name not in (arguments.only or SECTIONS) or (arguments.no_peers and name in PEERS):
            continue
        with console.status(f"{name}: {SECTIONS[name].__doc__}"):
            try:
                for goal in SECTIONS[name](options):
                    console.print(f"{goal.what}: {goal.words[1]} ({goal.remark})", highlight=False)
                    found.append(goal)
            except WorkerError as error:
                command.tell(console, "failed", [f"{name}: {error}"], "red")
    arguments.output.mkdir(parents=True, exist_ok=True)
    save_json(path, {
        **envelope(FORMAT), "size": options.size, "threads": threads, "tokens": options.tokens,
        "rounds": options.rounds, "goals": [_row(each) for each in found], "raw": options.raw,
    })  # fmt: skip
    return found


def _row(goal: goals.Goal) -> dict[str, Any]:
    """JSON has no NaN."""
    found = asdict(goal)
    return {
        **found,
        "seen": None if goal.seen != goal.seen else goal.seen,
        "verdict": goal.words[2],
    }


def _draw(found: dict[str, Any], folder: Path) -> list[Path]:
    with style.applied():
        figure = serve.figure(found)
        return style.save(figure, folder, "serve") if figure else []
