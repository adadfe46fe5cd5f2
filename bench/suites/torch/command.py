"""Layers for PyTorch beside its own, and a model of transformers before and after `accelerate`.

    python -m bench.torch

prints what was asked and what was seen, and writes torch.json and a picture to results/torch;
--draw draws that again. The model has the layout of BitNet b1.58 2B-4T with random weights, which
takes 8 GB of memory. OMP_WAIT_POLICY is "passive" unless the environment has another: threads that
wait then sleep.
"""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.core import command, goals
from bench.core.envelope import envelope, load_json, save_json
from bench.core.errors import ResultsError
from bench.pages.plots import layers, style
from bench.suites.torch.sections import SECTIONS, TorchOptions
from ternops.threads import check_threads, default_threads

TORCH_FILE, FORMAT = "torch.json", 1
_FOLDER = Path(__file__).parents[3] / "results" / "torch"
_WIDTH = 200


def main(argv: list[str] | None = None) -> int:
    """0 if all went well, 2 for bad arguments, or without PyTorch."""
    parser = command.make_parser("bench.torch", __doc__)
    parser.add_argument("--quick", action="store_true", help="less time, fewer tokens and layers")
    parser.add_argument("--only", nargs="+", choices=tuple(SECTIONS), metavar="SECTION",
                        help=", ".join(SECTIONS))  # fmt: skip
    parser.add_argument("--threads", type=int, metavar="N", help="default: all")
    parser.add_argument("--draw", action="store_true", help="draw what is there, measure nothing")
    parser.add_argument("--output", type=Path, default=_FOLDER, metavar="DIR",
                        help="folder to write")  # fmt: skip
    arguments = parser.parse_args(argv)
    console = command.make_console(_WIDTH)
    path = arguments.output / TORCH_FILE
    if arguments.draw:
        try:
            _draw(load_json(path, "bench.torch", FORMAT), arguments.output)
        except (ResultsError, OSError) as error:
            print(f"bench.torch: {error}", file=sys.stderr)
            return 2
        return 0
    found: list[goals.Goal] = []
    # PyTorch's threads and ours wait spinning, and take CPUs that they share from each other.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        import torch

        threads = check_threads(arguments.threads or default_threads())
        torch.set_num_threads(threads)
        command.introduce(console, arguments.output, [threads])
        options = TorchOptions(threads, *((0.5, 16, 2) if arguments.quick else (4.0, 64, 30)))
        for name in arguments.only or SECTIONS:
            with console.status(f"{name}: {SECTIONS[name].__doc__}"):
                for goal in SECTIONS[name](options):
                    console.print(f"{goal.what}: {goal.words[1]} ({goal.remark})", highlight=False)
                    found.append(goal)
        arguments.output.mkdir(parents=True, exist_ok=True)
        content = {
            **envelope(FORMAT), "torch": torch.__version__, "threads": threads,
            "goals": [{**asdict(each), "verdict": each.words[2]} for each in found],
            "raw": options.raw,
        }  # fmt: skip
        save_json(path, content)
        _draw(content, arguments.output)
    except (ValueError, OSError, ImportError) as error:
        print(f"bench.torch: {error}", file=sys.stderr)
        return 2
    console.print(goals.asked(found))
    console.print(f"wrote {path}", highlight=False)
    return 0


def _draw(found: dict[str, Any], folder: Path) -> None:
    with style.applied():
        figure = layers.figure(found)
        if figure is not None:
            style.save(figure, folder, "torch")
