"""Which tier this process uses.

A tier is chosen from the very features that Numba compiles with, because an instruction that
LLVM was not told of aborts the interpreter instead of raising an error.
"""

from __future__ import annotations

import os

from ternops.isa import x86
from ternops.isa.tier import Tier, family_of
from ternops.isa.tiers import TIERS
from ternops.simd import folder, host

__all__ = ["FAMILY", "REASON", "TIER", "TIERS", "Tier", "available", "choose", "missing"]


def missing(tier: Tier) -> str:
    """What this CPU lacks for a tier, in words; empty if nothing."""
    if tier.machines and host.machine() not in tier.machines:
        return f"architecture {' or '.join(tier.machines)} (this is {host.machine()})"
    lacking = [each for each in tier.features if each not in host.features()]
    if not lacking and tier.has_tiles and host.IS_HERE and not x86.tiles_granted():
        return "the system's permission to use AMX"
    return ", ".join(lacking)


def available() -> tuple[Tier, ...]:
    """The tiers that this CPU can run, best first."""
    return tuple(tier for tier in TIERS if not missing(tier))


def choose(requested: str | None) -> tuple[Tier, str]:
    """The tier to use and the reason, `requested` being the value of TERNOPS_ISA or None.

    Raises ValueError for an unknown name and for a tier that this CPU cannot run.
    """
    usable = available()
    if not requested:
        return usable[0], "the best that this CPU has"
    names = ", ".join(tier.name for tier in usable)
    for tier in TIERS:
        if tier.name == requested:
            if lacking := missing(tier):
                raise ValueError(
                    f"TERNOPS_ISA={requested!r}: this CPU lacks {lacking}; expected one of {names}"
                )
            return tier, "set by TERNOPS_ISA"
    raise ValueError(f"TERNOPS_ISA={requested!r}: unknown tier; expected one of {names}")


TIER, REASON = choose(os.environ.get("TERNOPS_ISA"))
FAMILY = family_of(host.cpu_name())
folder.compile_for(TIER.name)
