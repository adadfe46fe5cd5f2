"""What ranks on this machine pay for messages, over shared memory and over networks of namespaces.

    python -m bench.links

calibrates this machine, measures the link of two ranks over shared memory and, as root, over
networks with a latency and a rate (`python -m bench.namespaces`), and writes links.json to
results/links; `python -m bench.ranks results/links` makes docs/SCALING.md of it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.core import command
from bench.core.envelope import envelope, save_json
from bench.core.links import LINKS_FILE, LINKS_FORMAT
from bench.suites.links.namespaces import (
    MEASURE,
    NamespaceError,
    measured,
    mpiexec,
    network,
    settle,
)
from ternops.cost.calibrate import calibrate
from ternops.cost.known_links import load_link

#: Networks that are made, by their links.
ASKED = ("1ms,1Gbit/s", "200us,1Gbit/s")
_FOLDER = Path(__file__).parents[3] / "results" / "links"
_RANKS = 2


def main(argv: list[str] | None = None) -> int:
    """Measure and write; 2 for what cannot be."""
    parser = command.make_parser("bench.links", __doc__)
    parser.add_argument("--output", type=Path, default=_FOLDER, metavar="DIR",
                        help="folder to write")  # fmt: skip
    arguments = parser.parse_args(argv)
    console = command.make_console(120)
    path = arguments.output / LINKS_FILE
    try:
        with command.progress(console) as start:
            profile = calibrate(None, start("calibrating", 3))
        found, left_out = _links(console)
        arguments.output.mkdir(parents=True, exist_ok=True)
        save_json(path, {**envelope(LINKS_FORMAT), "profile": profile, "links": found,
                         "left_out": left_out})  # fmt: skip
    except (ValueError, OSError) as error:
        print(f"bench.links: {error}", file=sys.stderr)
        return 2
    command.tell(console, "left out", left_out)
    console.print(f"wrote {path}", highlight=False)
    return 0


def _links(console: Any) -> tuple[list[dict[str, Any]], list[str]]:
    """What was asked for, and what was measured; and what could not be."""
    words = [mpiexec(), "-n", str(_RANKS), *MEASURE]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise NamespaceError(f"measuring shared memory: mpiexec ended with {done.returncode}")
    found: list[dict[str, Any]] = [
        {"name": "shared memory", "asked": None, **json.loads(done.stdout)}
    ]
    left_out = []
    for name in ASKED:
        asked = load_link(name)
        console.print(f"measuring {name}", highlight=False)
        try:
            with network(_RANKS, asked.bytes_per_s) as made:
                settle(made, asked)
                figures = measured(made)
        except OSError as error:
            left_out.append(f"{name}: {error}")
            continue
        about = {"latency": asked.latency_s, "bandwidth": asked.bytes_per_s, "by": made.kind}
        found.append({"name": name, "asked": about, **figures})
    return found, left_out
