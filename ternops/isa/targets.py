"""What LLVM is told when kernels are compiled for a tier, and not for a CPU that is there.

The features are those of the tier and of the level of the architecture that every CPU of the tier
has: https://gitlab.com/x86-psABIs/x86-64-ABI. A CPU that lacks one compiles its own kernels.
"""

from __future__ import annotations

from typing import NamedTuple

from ternops.isa.tier import Tier
from ternops.simd import host

_V2 = ("cx16", "popcnt", "sahf", "sse3", "ssse3", "sse4.1", "sse4.2")
_V3 = (*_V2, "avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "xsave")
_V4 = (*_V3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")
#: A feature that tells the level, LLVM's name of the level, its features; best first.
_LEVELS = (("avx512f", "x86-64-v4", _V4), ("avx2", "x86-64-v3", _V3))
_TRIPLE = "{}-unknown-linux-gnu"


class Target(NamedTuple):
    """A tier on an architecture."""

    tier: str
    triple: str
    cpu: str
    features: str


def target_of(tier: Tier, machine: str) -> Target:
    """For a tier that the architecture has."""
    is_arm = machine in host.ARM
    cpu: str = "generic" if is_arm else "x86-64"
    features: tuple[str, ...] = ("neon",) if is_arm else ()
    for feature, level, has in _LEVELS:
        if feature in tier.features:
            cpu, features = level, has
            break
    named = dict.fromkeys((*features, *tier.features))
    return Target(tier.name, _TRIPLE.format(machine), cpu, ",".join(f"+{each}" for each in named))
