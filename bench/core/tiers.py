"""The tier of this process, and those that processes on this CPU can have, by name."""

from __future__ import annotations

from ternops.simd import HAS_TILES, targets

__all__ = ["HAS_TILES", "TIER", "available"]

TIER = targets.TIER.name


def available() -> list[str]:
    """The best one first, as `TERNOPS_ISA` takes them."""
    return [tier.name for tier in targets.available()]
