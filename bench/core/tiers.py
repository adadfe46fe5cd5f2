"""The tier of this process, and those that processes on this CPU can have, by name."""

from __future__ import annotations

from ternops.isa import HAS_TILES, detect

__all__ = ["HAS_TILES", "TIER", "available"]

TIER = detect.TIER.name


def available() -> list[str]:
    """The best one first, as `TERNOPS_ISA` takes them."""
    return [tier.name for tier in detect.available()]
