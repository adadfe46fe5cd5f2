"""What can be known of the kernels on ARM without ARM hardware, in results/arm-static.

    python -m bench.arm [--only executed|mca|predicted]

executed: instructions a weight, counted under emulation. mca: cycles a weight of the hot loops, by
simulation. predicted: the cost model's speeds. A part that is not made anew stays as it was.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.arm import executed, mca, page, predicted, stored
from bench.arm.packages import Unavailable, tools
from bench.core.errors import ResultsError

TARGET = Path("results") / "arm-static"

PARTS: dict[str, Callable[[], stored.Part]] = {
    "executed": lambda: executed.measure(tools()),
    "mca": lambda: mca.measure(tools()),
    "predicted": predicted.measure,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the parts and write them; 0, or 2 with one line on stderr."""
    words = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m bench.arm", description=words)
    parser.add_argument("--only", choices=PARTS, help="one part; the others stay as they are")
    chosen = parser.parse_args(arguments).only
    try:
        TARGET.mkdir(parents=True, exist_ok=True)
        parts = stored.load(TARGET)
        for name in [chosen] if chosen else PARTS:
            try:
                parts[name] = PARTS[name]()
            except Unavailable as error:
                print(f"{name}: skipped: {error}")
        print(stored.save(TARGET, parts), page.write(TARGET, parts), sep="\n")
    except (ResultsError, OSError) as error:
        print(f"bench.arm: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
