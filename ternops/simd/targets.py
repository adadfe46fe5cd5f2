"""Which instructions this process uses: the tiers as a literal table, and the choice among them.

A tier is chosen from the very features that Numba compiles with, because an instruction that
LLVM was not told of aborts the interpreter instead of raising an error.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from ternops.simd import vector, x86


@dataclass(frozen=True)
class Tier:
    """An instruction-set tier.

    machines: LLVM architecture names, none for every one; features: the LLVM features that the
    CPU must have; vector_bytes: the width of the integer vectors.
    """

    name: str
    machines: tuple[str, ...]
    features: tuple[str, ...]
    vector_bytes: int


_X86 = ("x86_64", "amd64")
_AVX2 = ("avx2", "f16c", "fma")
_AVX512 = (*_AVX2, "avx512f", "avx512bw", "avx512vl", "avx512vnni")
_AMX = (*_AVX512, "avx512vbmi", "amx-tile", "amx-int8")

#: Best first.
TIERS = (
    Tier("amx", _X86, _AMX, 64),
    Tier("avx512vbmi", _X86, (*_AVX512, "avx512vbmi"), 64),
    Tier("avx512vnni", _X86, _AVX512, 64),
    Tier("avxvnni", _X86, (*_AVX2, "avxvnni"), 32),
    Tier("avx2", _X86, _AVX2, 32),
    Tier("neon-i8mm", vector.ARM, ("dotprod", "i8mm"), 16),
    Tier("neon-dotprod", vector.ARM, ("dotprod",), 16),
    # Every 64-bit ARM core has NEON.
    Tier("neon", vector.ARM, (), 16),
    Tier("generic", (), (), 16),
)


def missing(tier: Tier) -> str:
    """What this CPU lacks for a tier, in words; empty if nothing."""
    if tier.machines and vector.machine() not in tier.machines:
        return f"architecture {' or '.join(tier.machines)} (this is {vector.machine()})"
    lacking = [each for each in tier.features if each not in vector.features()]
    if not lacking and "amx-tile" in tier.features and not x86.tiles_granted():
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
vector.compile_for(TIER.name)
#: Whether it is one of NEON's.
ON_ARM = TIER.machines == vector.ARM
