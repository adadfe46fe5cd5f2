"""``python -m tests.memcheck``: every part on every tier that valgrind can run, as a table.

valgrind has no AVX-512, and so the tiers are those without. Half an hour.
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.memcheck import run
from tests.memcheck.child import CONTROLS, PARTS

TIERS = ("avx2", "generic")


def main(arguments: list[str] | None = None) -> int:
    """1 if anything was found, or a control was not."""
    parser = argparse.ArgumentParser(prog="python -m tests.memcheck", description=__doc__)
    parser.add_argument("--tier", choices=TIERS, action="append", help="by default all of them")
    parser.add_argument("--part", choices=PARTS, action="append", help="by default all of them")
    options = parser.parse_args(arguments)
    if reason := run.lacking():
        parser.error(reason)
    print("| tier | part | kernels | errors | s |\n| --- | --- | ---: | ---: | ---: |")
    failed = False
    for tier in options.tier or TIERS:
        for control in CONTROLS:
            if not run.check(control, tier).errors:
                print(f"{control} is not found", file=sys.stderr)
                failed = True
        for part in options.part or PARTS:
            start = time.monotonic()
            found = run.check(part, tier)
            seconds = time.monotonic() - start
            print(
                f"| {tier} | {part} | {len(found.kernels)} | {found.errors.total()} "
                f"| {seconds:.0f} |", flush=True,
            )  # fmt: skip
            for error, count in found.errors.items():
                print(f"{count} times {error}", file=sys.stderr)
            failed |= bool(found.errors)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
