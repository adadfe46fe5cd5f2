"""Compare the library's results on emulated ARM CPUs with this machine's, bit for bit.

python -m tests.arm [CPU ...]
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.arm.emulator import CPUS, Emulator, Unavailable

_FOLDER = Path(".arm")
_RESULTS = ("-m", "tests.arm.results")


def _here() -> dict[str, Any]:
    done = subprocess.run([sys.executable, *_RESULTS], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _there(emulator: Emulator, cpu: str, expected: dict[str, str]) -> str:
    """What is wrong on a CPU, empty if nothing is; and how long it took, printed."""
    start = time.monotonic()
    process = emulator.run(cpu, *_RESULTS)
    output, errors = process.communicate()
    if process.returncode:
        words = errors.strip().splitlines() or [f"exit code {process.returncode}"]
        return f"{cpu}: {words[-1]}"
    found = json.loads(output)
    results = found["results"]
    different = [name for name in expected if results.get(name) != expected[name]]
    equal = f"{len(results) - len(different)} of {len(expected)} results equal"
    print(f"{cpu}, tier {found['tier']}: {equal}, {time.monotonic() - start:.0f} s", flush=True)
    return f"{cpu}: differs in {', '.join(different)}" if different else ""


def main() -> int:
    """0 if all are equal or ARM cannot be emulated here, which is then said; 1 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m tests.arm", description=__doc__)
    parser.add_argument("cpus", nargs="*", metavar="CPU", default=list(CPUS),
                        help=f"models of qemu's (default: {' '.join(CPUS)})")  # fmt: skip
    arguments = parser.parse_args()
    try:
        if platform.machine() != "x86_64":
            raise Unavailable(f"this is {platform.machine()}, expected x86_64")
        emulator = Emulator(_FOLDER)
    except Unavailable as error:
        print(f"skipped: no ARM here to test on: {error}")
        return 0
    here = _here()
    print(f"this machine, tier {here['tier']}: {len(here['results'])} results", flush=True)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        failures = list(
            pool.map(lambda cpu: _there(emulator, cpu, here["results"]), arguments.cpus)
        )
    for failure in filter(None, failures):
        print(f"failed: {failure}")
    return int(any(failures))


if __name__ == "__main__":
    sys.exit(main())
