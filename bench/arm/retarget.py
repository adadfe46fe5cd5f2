"""The kernels compiled for an ARM core on a machine of another kind, as text.

    python -m bench.arm.retarget CORE [KERNEL ...]

prints one JSON object, {kernel: assembly}. It needs a process of its own, in which LLVM is told
another architecture before anything is compiled; what comes out cannot run here.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import Any

#: LLVM's name of a core -> which of the features that tiers ask for it has.
CORES: dict[str, tuple[str, ...]] = {
    "cortex-a72": (),  # Raspberry Pi 4, Graviton 1
    "cortex-a76": ("dotprod",),  # Raspberry Pi 5
    "neoverse-n1": ("dotprod",),  # Graviton 2, Ampere Altra
    "neoverse-v1": ("dotprod", "i8mm"),  # Graviton 3
    "neoverse-n2": ("dotprod", "i8mm"),  # Cobalt 100
    "apple-m2": ("dotprod", "i8mm"),  # M2 Ultra
    "generic": ("dotprod", "i8mm"),  # a model that LLVM does not know
}
_TRIPLE = "aarch64-unknown-linux-gnu"


def assemblies(core: str, *kernels: str) -> dict[str, str]:
    """kernel -> assembly, of all or those named, from a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.arm.retarget", core, *kernels],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found: dict[str, str] = json.loads(done.stdout)
    return found


def jobs() -> dict[str, Any]:
    """All that can be asked for by name: the kernels, and the job that calls them."""
    from ternops.kernels.linear import linear

    return {**kernels(), linear.name: linear}


def _pretend(core: str) -> None:
    """This process compiles for a core from now on; it may not have imported `ternops.isa`."""
    from ternops.simd import host

    host.compile_for(_TRIPLE, core, ",".join(f"+{each}" for each in CORES[core]))


def kernels() -> dict[str, Any]:
    """name -> job: what multiplies, in every encoding and shape class.

    Weights from memory ("stream") have kernels of their own on x86 alone, by the width of vectors.
    """
    from ternops.kernels import plan

    jobs = [multiply for (_, kind), (_, multiply) in plan.KERNELS.items() if kind != "stream"]
    jobs += [each.multiply for each in plan.UNPACKED.values()]
    return {job.name: job for job in jobs}


def main() -> int:
    """Print the assembly of every kernel."""
    parser = argparse.ArgumentParser(prog="python -m bench.arm.retarget", description=__doc__)
    parser.add_argument("core", choices=CORES, metavar="CORE", help=", ".join(CORES))
    parser.add_argument("kernels", nargs="*", metavar="KERNEL", default=[], help="default: all")
    arguments = parser.parse_args()
    _pretend(arguments.core)
    known = jobs()
    if unknown := [name for name in arguments.kernels if name not in known]:
        parser.error(f"KERNEL: {unknown[0]!r}: expected one of {', '.join(known)}")
    names = arguments.kernels or kernels()
    json.dump({name: known[name].assembly() for name in names}, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
