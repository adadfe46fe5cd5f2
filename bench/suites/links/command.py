"""What ranks on this machine pay for messages, over shared memory and over networks of namespaces.

    python -m bench.links

calibrates this machine, measures the link of two ranks over shared memory and, as root, over
networks with a latency and a rate (`python -m bench.namespaces`), and writes links.json to
results/links; `python -m bench.ranks results/links` makes docs/SCALING.md of it.

    python -m bench.dummy --size 2B4T --format hf --output model
    python -m bench.links --decode model --size 2B4T

decodes with a model of a layout over each of these, and adds rounds of that to the file.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.core import command
from bench.core.envelope import commit, envelope, load_json, save_json
from bench.core.links import LINKS_FILE, LINKS_FORMAT, SHARED_MEMORY
from bench.core.mpi import mpiexec
from bench.suites.links.namespaces import (
    MEASURE,
    NamespaceError,
    measured,
    network,
    run,
    settle,
)
from ternops.cost.calibrate import calibrate
from ternops.cost.known_links import load_link
from ternops.cost.layouts import SIZES

#: Networks that are made, by their links.
ASKED = ("1ms,1Gbit/s", "200us,1Gbit/s")
_FOLDER = Path(__file__).parents[3] / "results" / "links"
_RANKS, _ROUNDS = 2, 2


def main(argv: list[str] | None = None) -> int:
    """Measure and write; 2 for what cannot be."""
    parser = command.make_parser("bench.links", __doc__)
    parser.add_argument("--output", type=Path, default=_FOLDER, metavar="DIR",
                        help="folder to write")  # fmt: skip
    parser.add_argument("--decode", type=Path, metavar="MODEL", help="of the layout --size")
    parser.add_argument("--size", choices=tuple(SIZES), metavar="SIZE", help="as 2B4T")
    arguments = parser.parse_args(argv)
    if (arguments.decode is None) != (arguments.size is None):
        parser.error("--decode, --size: expected both or neither")
    console = command.make_console(120)
    path = arguments.output / LINKS_FILE
    try:
        if arguments.decode is not None:
            return _decode(arguments, path, console)
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


def _decode(arguments: Any, path: Path, console: Any) -> int:
    """Decode with one rank and with two over each link, in turn; add rounds to those in a file."""
    found = load_json(path, "bench.links", LINKS_FORMAT)
    before = found.get("decoding", {})
    rows: dict[str, list[float]] = before["seconds"] if before.get("size") == arguments.size else {}
    program = [sys.executable, "-m", "bench.suites.links.decoding", str(arguments.decode)]

    def note(name: str, done: subprocess.CompletedProcess[str]) -> None:
        if done.returncode:
            raise NamespaceError(f"decoding, {name}: ended with {done.returncode}")
        told = json.loads(done.stdout)
        found["decoding"] = {key: told[key] for key in ("encoding", "context")}
        rows.setdefault(name, []).append(told["seconds"])
        console.print(f"{name}: {1e3 * told['seconds']:.2f} ms a token", highlight=False)

    output: dict[str, Any] = {"stdout": subprocess.PIPE, "text": True}
    together = [mpiexec(), "-n", str(_RANKS), *program, "1"]
    for _ in range(_ROUNDS):
        note("1 thread", subprocess.run([*program, "1"], **output))
        note("2 threads", subprocess.run([*program, "2"], **output))
        note(SHARED_MEMORY, subprocess.run(together, **output))
        for name in (each["name"] for each in found["links"] if each["asked"]):
            asked = load_link(name)
            with network(_RANKS, asked.bytes_per_s) as made:
                settle(made, asked)
                note(name, run(made.names, [*program, "1"], **output))
        found["decoding"] |= {"size": arguments.size, "seconds": rows}
        save_json(path, {**found, "commit": commit()})
    return 0


def _links(console: Any) -> tuple[list[dict[str, Any]], list[str]]:
    """What was asked for, and what was measured; and what could not be."""
    words = [mpiexec(), "-n", str(_RANKS), *MEASURE]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise NamespaceError(f"measuring shared memory: mpiexec ended with {done.returncode}")
    found: list[dict[str, Any]] = [
        {"name": SHARED_MEMORY, "asked": None, **json.loads(done.stdout)}
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
