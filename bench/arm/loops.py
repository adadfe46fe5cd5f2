"""The loops in the assembly of ARM kernels: their instructions, spills, and how much they do.

    python -m bench.arm.loops

compiles every kernel for every core and writes the table that the tests hold the code to.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import re
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from bench.arm.retarget import CORES, assemblies
from ternops.files import replaced

TABLE = Path(__file__).parents[2] / "results" / "arm-static" / "loops.csv"
_COLUMNS = ("core", "kernel", "instructions", "products", "instructions a product", "spills")

#: Instruction -> the products of a weight and an activation that one stands for. Look-ups: 16 rows
#: of a group's sum, whose low and high bytes are looked up apart.
PRODUCTS = {
    "sdot": 16, "smmla": 32, "smull": 8, "smull2": 8, "smlal": 8, "smlal2": 8, "fmla": 4,
}  # fmt: skip
LOOK_UPS = {"gemv_tl1": 16, "gemv_tl2": 24}

_LABEL = re.compile(r"^([.$\w]+):")
_BRANCH = re.compile(r"^\t(?:b\.\w+|cbn?z|tbn?z)\s+(?:[^/]*,\s*)?([.$\w]+)\s*(?://.*)?$")
_INSTRUCTION = re.compile(r"^\t([a-z]\w*(?:\.\w+)?)(?:\s|$)")
#: A write to the stack, or a read of a whole vector; a loop's counters may be read.
_SPILL = re.compile(r"//.*(Spill|(?:16|32|48|64)-byte.* Reload)")


@dataclass(frozen=True)
class Loop:
    """What stands between a label and the branch back to it."""

    kernel: str
    lines: tuple[str, ...]

    @cached_property
    def instructions(self) -> Counter[str]:
        """How many of each."""
        return Counter(match[1] for line in self.lines if (match := _INSTRUCTION.match(line)))

    @property
    def spills(self) -> int:
        """Instructions that bring a register to the stack, or a vector back from it."""
        return sum(bool(_SPILL.search(line)) for line in self.lines)

    @property
    def products(self) -> int:
        """What one turn multiplies, in pairs of weight and activation."""
        if self.kernel in LOOK_UPS:
            return LOOK_UPS[self.kernel] * self.instructions["tbl"]
        return sum(PRODUCTS.get(name, 0) * n for name, n in self.instructions.items())

    @property
    def length(self) -> int:
        """Instructions of one turn."""
        return self.instructions.total()

    @property
    def each(self) -> float:
        """Instructions a product: with one token, a weight."""
        return self.length / self.products


def innermost(assembly: str, branch: re.Pattern[str] = _BRANCH) -> list[list[str]]:
    """The lines of the loops that hold no other loop.

    branch: a line that may go on at a label, its first group; ARM's by default.
    """
    lines = assembly.splitlines()
    labels = {match[1]: i for i, line in enumerate(lines) if (match := _LABEL.match(line))}
    spans = [
        (labels[match[1]], i)
        for i, line in enumerate(lines)
        if (match := branch.match(line)) and labels.get(match[1], len(lines)) < i
    ]
    return [
        lines[first : last + 1]
        for first, last in spans
        if not any(
            other != (first, last) and first <= other[0] and other[1] <= last for other in spans
        )
    ]


def hot(kernel: str, assembly: str) -> Loop:
    """The loop of a kernel that does the most in one turn."""
    loops = (Loop(kernel, tuple(lines)) for lines in innermost(assembly))
    return max(loops, key=lambda loop: loop.products)


def table(found: dict[str, dict[str, Loop]]) -> str:
    """core -> kernel -> loop, as comma-separated values."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for core, loops in found.items():
        for kernel, loop in loops.items():
            each = f"{loop.each:.4f}"
            writer.writerow((core, kernel, loop.length, loop.products, each, loop.spills))
    return text.getvalue()


def committed() -> dict[tuple[str, str], tuple[float, int]]:
    """(core, kernel) -> instructions a product and spills, as the table in the project has them."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        return {
            (row["core"], row["kernel"]): (
                int(row["instructions"]) / int(row["products"]),
                int(row["spills"]),
            )
            for row in csv.DictReader(file)
        }


def main() -> int:
    """Write the table."""
    words = (__doc__ or "").splitlines()[0]
    argparse.ArgumentParser(prog="python -m bench.arm.loops", description=words).parse_args()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        texts = dict(zip(CORES, pool.map(assemblies, CORES), strict=True))
    found = {
        core: {kernel: hot(kernel, assembly) for kernel, assembly in kernels.items()}
        for core, kernels in texts.items()
    }
    TABLE.parent.mkdir(parents=True, exist_ok=True)
    with replaced(TABLE) as path:
        path.write_text(table(found), "utf-8")
    print(f"wrote {os.path.relpath(TABLE)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
