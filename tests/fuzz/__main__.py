"""``python -m tests.fuzz``: attack every target for some time, and print what was tried.

Each target has a process of its own, which is started anew when it ends before its time. What is
found lies in a folder, an input and its traceback each: put an input that was mended into
tests/fuzz/findings/TARGET, where the suite tries it from then on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.fuzz import targets

ROOT = Path(__file__).parents[2]
#: Where the counts of the last long run are kept, which docs/RELIABILITY.md shows.
COUNTS = Path(__file__).with_name("counts.json")
#: Seconds that a child may take to begin and to end, beside its own.
_GRACE = 150


def attack(name: str, seconds: float, seed: int, folder: Path, by_chance: bool) -> dict[str, Any]:
    """Try inputs for so many seconds, half of them by chance alone: what atheris goes on from is
    mostly refused. Gives the counts of all processes that it took."""
    total: dict[str, Any] = {"inputs": 0, "accepted": 0, "findings": 0, "slowest_ms": 0.0}
    start, ended, ways = time.monotonic(), 0, (True,) if by_chance else (False, True)
    for number, chance in enumerate(ways, 1):
        end = start + seconds * number / len(ways)
        while (left := end - time.monotonic()) > 1 and ended < 20:
            place = folder / name / f"{seed}-{number}-{ended}"
            options = ["--seconds", str(left), "--seed", str(seed + 1000 * ended + number)]
            code = _child(name, place, [*options, *(["--by-chance"] if chance else [])], left)
            found = place / "counts.json"
            counts = json.loads(found.read_text()) if found.is_file() else {}
            for key in ("inputs", "accepted", "findings"):
                total[key] += counts.get(key, 0)
            total["slowest_ms"] = max(total["slowest_ms"], counts.get("slowest_ms", 0.0))
            if code == 0:
                break
            ended += 1  # before its time: the input that it had is one to look at
            print(f"{name}: ended with {code}, see {place}", file=sys.stderr)
    total["findings"] += ended
    return total


def _child(name: str, place: Path, options: list[str], seconds: float) -> int:
    """The exit code of a process of one target; what it says lies in a file."""
    place.mkdir(parents=True, exist_ok=True)
    with open(place / "output.txt", "w") as output:
        try:
            return subprocess.run(
                [sys.executable, "-m", "tests.fuzz.child", name, str(place), *options], cwd=ROOT,
                stdout=output, stderr=output, check=False, timeout=seconds + _GRACE,
            ).returncode  # fmt: skip
        except subprocess.TimeoutExpired:
            return -1


def table(counts: dict[str, dict[str, Any]]) -> str:
    """The rows of docs/RELIABILITY.md."""
    lines = ["| target | inputs | accepted | slowest | open findings |",
             "| --- | ---: | ---: | ---: | ---: |"]  # fmt: skip
    for name, each in counts.items():
        lines.append(
            f"| {name} | {each['inputs']:,} | {each['accepted']:,} | "
            f"{each['slowest_ms']:.1f} ms | {each['findings']} |"
        )
    together = sum(each["inputs"] for each in counts.values())
    return "\n".join([*lines, f"| all | {together:,} | | | |"])


def main() -> int:
    """0 if nothing was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=30, help="of each target (default: 30)")
    parser.add_argument("--seed", type=int, default=int(time.time()) % 1_000_000)
    parser.add_argument("--only", nargs="+", metavar="TARGET", choices=targets.MODULES, default=[])
    parser.add_argument("--output", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("--by-chance", action="store_true", help="without atheris")
    parser.add_argument("--keep", action="store_true", help=f"add the counts to {COUNTS.name}")
    parser.add_argument("--table", action="store_true", help="print the kept counts, run nothing")
    arguments = parser.parse_args()
    kept: dict[str, dict[str, Any]] = json.loads(COUNTS.read_text()) if COUNTS.is_file() else {}
    if arguments.table:
        print(table(kept))
        return 0
    found = {}
    for name in arguments.only or targets.MODULES:
        found[name] = attack(name, arguments.seconds, arguments.seed, arguments.output.resolve(),
                             arguments.by_chance)  # fmt: skip
        print(name, found[name], file=sys.stderr, flush=True)
    print(table(found))
    if arguments.keep:
        for name, each in found.items():
            before = kept.setdefault(name, {"inputs": 0, "accepted": 0, "slowest_ms": 0.0})
            for key in ("inputs", "accepted"):
                before[key] += each[key]
            before["slowest_ms"] = max(before["slowest_ms"], each["slowest_ms"])
            before["findings"] = each["findings"]
        COUNTS.write_text(json.dumps(kept, indent=1) + "\n")
    return int(any(each["findings"] for each in found.values()))


if __name__ == "__main__":
    sys.exit(main())
