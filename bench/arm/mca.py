"""Cycles a weight of the hot loops, as llvm-mca simulates them with LLVM's models of cores.

No memory is simulated: every load hits the nearest cache. What it is good for is a ranking.
"""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.arm.counted import versions
from bench.arm.loops import hot
from bench.arm.packages import RELEASE, do, unpack
from bench.arm.retarget import CORES, assemblies
from bench.arm.stored import Cycles, Part
from bench.core.errors import ResultsError
from ternops.encodings import ENCODINGS

KERNELS = tuple(f"gemv_{encoding}" for encoding in ENCODINGS)
_TURNS = 1000  # of a loop, so that its start does not count
_MAJOR = 22
#: With the libraries that it needs, but for those of C.
_PACKAGES = (
    f"llvm-{_MAJOR}", f"libllvm{_MAJOR}", "libz3-4", "libedit2", "libffi8", "libxml2", "libicu72",
    "libzstd1", "liblzma5", "zlib1g", "libtinfo6", "libbsd0", "libmd0", "libstdc++6", "libgcc-s1",
)  # fmt: skip
#: Of the cores that the kernels are compiled for, those that are one.
_CORES = tuple(core for core in CORES if core != "generic")
#: LLVM schedules several cores by the model of another: by what it calls that one's units, whose.
_MODELS = {
    "A57": "Cortex-A57", "Cy": "Cyclone (Apple A7)", "N1": "Neoverse N1", "N2": "Neoverse N2",
    "V1": "Neoverse V1",
}  # fmt: skip


class Mca:
    """llvm-mca in a folder, put there if need be; Unavailable if that fails."""

    def __init__(self, folder: Path) -> None:
        root = folder.resolve() / "llvm"
        if not (root / "done").exists():
            root.mkdir(parents=True, exist_ok=True)
            unpack(folder.resolve(), "amd64", _PACKAGES, root, f"{RELEASE}-security")
            (root / "done").touch()
        self._program = root / "usr" / "lib" / f"llvm-{_MAJOR}" / "bin" / "llvm-mca"
        libraries = ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu")
        self._libraries = os.pathsep.join(str(root / each) for each in libraries)

    @property
    def version(self) -> str:
        """Of LLVM."""
        return self._run("--version").split("version ")[1].split()[0]

    def simulate(self, core: str, kernel: str, assembly: str) -> Cycles:
        """The hot loop of a kernel; ResultsError for another kind of answer."""
        lines, weights = loop_of(kernel, assembly)
        answer = self._run(
            "-mtriple=aarch64", f"-mcpu={core}", f"-iterations={_TURNS}", "-json",
            text="\n".join(lines) + "\n",
        )  # fmt: skip
        return parsed(core, kernel, weights, answer)

    def _run(self, *arguments: str, text: str = "") -> str:
        return do([str(self._program), *arguments], Path("/"), text,
                  LD_LIBRARY_PATH=self._libraries)  # fmt: skip


def measure(folder: Path) -> Part:
    """Every kernel on every core that there is code for; Unavailable without llvm-mca."""
    mca = Mca(folder)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        compiled = list(pool.map(lambda core: assemblies(core, *KERNELS), _CORES))
    rows = [
        mca.simulate(core, kernel, found[kernel])
        for core, found in zip(_CORES, compiled, strict=True) for kernel in KERNELS
    ]  # fmt: skip
    return Part({"llvm-mca": mca.version, **versions()}, rows)


def loop_of(kernel: str, assembly: str) -> tuple[list[str], int]:
    """The lines of the hot loop, without LLVM's remarks, and the weights of one turn."""
    loop = hot(kernel, assembly)
    return [line.split("//")[0].rstrip() for line in loop.lines], loop.products


def model_of(units: list[str]) -> str:
    """Whose model it is that has these units, which share a prefix: "N1UnitB"."""
    prefix = units[0].split("Unit")[0]
    return _MODELS.get(prefix, prefix)


def parsed(core: str, kernel: str, weights: int, answer: str) -> Cycles:
    """A row from llvm-mca's JSON; ResultsError for any other."""
    try:
        found = json.loads(answer)
        (region,) = found["CodeRegions"]
        summary = region["SummaryView"]
        turns = int(summary["Iterations"])
        return Cycles(
            core, model_of(found["TargetInfo"]["Resources"]), kernel, weights,
            int(summary["Instructions"]) // turns, float(summary["BlockRThroughput"]),
            summary["TotalCycles"] / turns,
        )  # fmt: skip
    except (ValueError, LookupError, TypeError, ArithmeticError) as error:
        raise ResultsError(f"llvm-mca, {kernel} on {core}: no summary: {error!r}") from None
