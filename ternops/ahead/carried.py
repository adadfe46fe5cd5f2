"""The files of compiled kernels that a wheel carries, one a tier.

    python -m ternops.ahead.carried FOLDER [--machine ARCHITECTURE] [--tiers all|here] [--attended]

LLVM compiles for architectures that are not this machine's as well as for this one.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

from ternops.ahead.pool import Task, compile_all
from ternops.files import replaced
from ternops.isa import detect
from ternops.isa.targets import target_of
from ternops.kernels import tuned
from ternops.simd import host, kept, objects
from ternops.threads import usable_cpus


def carry(folder: Path, machine: str, tiers: list[str]) -> list[Path]:
    """Compile every job of some tiers, for any CPU that has them, into a file each."""
    chosen = [
        target_of(tier, machine)
        for tier in detect.TIERS
        if tier.name in tiers and (not tier.machines or machine in tier.machines)
    ]
    with tempfile.TemporaryDirectory(prefix="ternops-") as temporary:
        tasks = []
        for target in chosen:
            place = Path(temporary, target.tier)
            place.mkdir()
            arguments = "--target", json.dumps(target._asdict()), str(place)
            # The tables' tiles, whatever the building machine is tuned for.
            environment = ("TERNOPS_ISA", target.tier), (tuned.VARIABLE, tuned.OFF)
            tasks.append(Task(target.tier, arguments, environment))
        compile_all(tasks, usable_cpus(), _tell)
        return [
            _join(sorted(Path(temporary, target.tier).iterdir()), folder, machine, target.tier)
            for target in chosen
        ]


def _tell(key: str, done: int, count: int) -> None:
    print(f"{done} of {count}: {key}", file=sys.stderr, flush=True)


def _join(parts: list[Path], folder: Path, machine: str, tier: str) -> Path:
    """One file of those of single jobs."""
    kernels, origin = [], None
    for part in parts:
        found = objects.open_objects(part)
        assert found is not None
        origin = found.origin
        for key in found.kernels:
            code = found.read(key)
            assert code is not None
            kernels.append((key, *code))
    assert origin is not None
    path = folder / kept.carried_name(machine, tier)
    folder.mkdir(parents=True, exist_ok=True)
    with replaced(path) as temporary:
        temporary.write_bytes(objects.as_bytes(origin, kernels))
    return path


def _end_with_stdin() -> None:
    """Let this process end, and its workers, when the one that wants the files has: killed, it
    could not say so, and all CPUs would go on for minutes."""

    def wait() -> None:
        sys.stdin.read()
        os.kill(os.getpid(), signal.SIGINT)

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
    threading.Thread(target=wait, daemon=True).start()


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m ternops.ahead.carried", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--machine", default=host.machine(), metavar="ARCHITECTURE")
    parser.add_argument("--tiers", default="all", help="all, here, or names with commas between")
    parser.add_argument("--attended", action="store_true", help="end when stdin does")
    arguments = parser.parse_args()
    if arguments.attended:
        _end_with_stdin()
    every = [tier.name for tier in detect.TIERS]
    tiers = {"all": every, "here": [detect.TIER.name]}
    start = time.perf_counter()
    paths = carry(
        arguments.folder, arguments.machine,
        tiers.get(arguments.tiers, arguments.tiers.split(",")),
    )  # fmt: skip
    size = sum(path.stat().st_size for path in paths) / 1e6
    seconds = time.perf_counter() - start
    print(f"{len(paths)} tier(s), {size:.1f} MB, {seconds:.0f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
