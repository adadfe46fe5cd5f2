"""Compare the library's results on emulated ARM CPUs with x86's, bit for bit.

python -m tests.arm [CPU ...]

Besides: a tier that a CPU lacks is refused, and if it is not, the CPU ends the process.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import ternops
from bench.arm.emulator import CPUS, Emulator
from bench.arm.packages import Unavailable, tools
from ternops.ahead.carried import carry
from tests.arm import results

#: CPU -> the tier that it must choose, and the best that it lacks with the feature that is missing.
TIERS = {
    "cortex-a72": ("neon", "neon-dotprod", "dotprod"),
    "neoverse-n1": ("neon-dotprod", "neon-i8mm", "i8mm"),
    "neoverse-v1": ("neon-i8mm", "", ""),
    "max": ("neon-i8mm", "", ""),
}
#: What compiles its kernels itself, under the emulator, which takes longest. The others get those
#: of a wheel for ARM, which are compiled here.
_COMPILES = "neoverse-v1"


def _compare(emulator: Emulator, cpu: str) -> list[str]:
    """What is wrong with the results on a CPU; and how many are right, printed."""
    start = time.monotonic()
    carries = cpu != _COMPILES
    with tempfile.TemporaryDirectory(prefix="ternops-arm-") as folder:
        if carries:
            _install(Path(folder), TIERS[cpu][0])
        mode = ("--brief",) if carries else ()
        process = emulator.run(cpu, "-m", "tests.arm.results", *mode, first=folder)
        output, errors = process.communicate()
    if process.returncode:
        words = errors.strip().splitlines() or [f"exit code {process.returncode}"]
        return [f"{cpu}: {words[-1]}"]
    found, expected = json.loads(output), results.expected(brief=carries)
    wrong = [name for name, value in expected.items() if found["results"].get(name) != value]
    print(
        f"{cpu}, tier {found['tier']}: {len(expected) - len(wrong)} of {len(expected)} results "
        f"equal, {time.monotonic() - start:.0f} s", flush=True,
    )  # fmt: skip
    failures = [f"{cpu}: differs in {name}" for name in wrong]
    if found["tier"] != TIERS[cpu][0]:
        failures.append(f"{cpu}: chose {found['tier']}, expected {TIERS[cpu][0]}")
    if carries and found["compiles"]:
        failures.append(f"{cpu}: compiles kernels, expected to find them all in the wheel")
    return failures


def _install(folder: Path, tier: str) -> None:
    """Put the package into a folder as a wheel for ARM has it, with the kernels of a tier."""
    ignored = shutil.ignore_patterns("__pycache__", "compiled")
    shutil.copytree(Path(ternops.__file__).parent, folder / "ternops", ignore=ignored)
    carry(folder / "ternops" / "compiled", "aarch64", [tier])


def _refuse(emulator: Emulator, cpu: str) -> list[str]:
    """What is wrong with how a CPU without a feature is dealt with."""
    _, tier, feature = TIERS[cpu]
    if not tier:
        return []
    process = emulator.run(cpu, "-m", "tests.programs.product", TERNOPS_ISA=tier)
    _, errors = process.communicate()
    line = (errors.strip().splitlines() or ["nothing"])[-1]
    refusal = f"ValueError: TERNOPS_ISA={tier!r}: this CPU lacks {feature}; expected one of "
    failures = []
    if not process.returncode or not line.startswith(refusal):
        failures.append(f"{cpu}: {tier} is not refused: {line}")
    # The same with the check deceived: that the emulator has no such instruction is what makes
    # equal results a proof that none was executed.
    deceived = {"TERNOPS_ISA": tier, "NUMBA_CPU_NAME": "generic",
                "NUMBA_CPU_FEATURES": "+dotprod,+i8mm"}  # fmt: skip
    process = emulator.run(cpu, "-m", "tests.programs.product", **deceived)
    output, _ = process.communicate()
    if process.returncode != -signal.SIGILL or output:
        failures.append(f"{cpu}: executes {feature}: exit code {process.returncode}, {output!r}")
    if not failures:
        print(f"{cpu}: {tier} is refused; forced, it ends with SIGILL", flush=True)
    return failures


def main() -> int:
    """0 if all are equal or ARM cannot be emulated here, which is then said; 1 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m tests.arm", description=__doc__)
    parser.add_argument("cpus", nargs="*", metavar="CPU", default=list(CPUS),
                        help=f"models of qemu's (default: {' '.join(CPUS)})")  # fmt: skip
    arguments = parser.parse_args()
    if unknown := [cpu for cpu in arguments.cpus if cpu not in CPUS]:
        parser.error(f"CPU: {unknown[0]!r}: expected some of {', '.join(CPUS)}")
    try:
        emulator = Emulator(tools())
    except Unavailable as error:
        print(f"skipped: no ARM here to test on: {error}")
        return 0
    failures = []
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for check in (_compare, _refuse):
            calls = [pool.submit(check, emulator, cpu) for cpu in arguments.cpus]
            failures += [line for call in calls for line in call.result()]
    for failure in failures:
        print(f"failed: {failure}")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
