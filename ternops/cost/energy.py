"""Where the joules of a pass go: arithmetic, bytes by level of memory, busy cores, and time itself.

Arithmetic from the operation tables of `ternops.cost.arithmetic`; a busy core takes far more than
its multiply-accumulates do, which is why it is a term of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ternops.cost.arithmetic import mac_joules
from ternops.cost.hardware import Hardware
from ternops.cost.latency import Timed
from ternops.cost.workload import ATTENTION, FP16

ARITHMETIC, CORES, IDLE = "arithmetic", "busy cores", "idle"


def energy_terms(
    parts: Sequence[Timed], seconds: float, hardware: Hardware, threads: int
) -> dict[str, float]:
    """Term -> joules of a pass that takes so long; empty if the profile has no power.

    A level without an energy of its own has no term: its share is in the busy cores'.
    """
    if math.isnan(hardware.core) or math.isnan(hardware.idle):
        return {}
    terms = {ARITHMETIC: math.fsum(_arithmetic(each, hardware) for each in parts)}
    for level in hardware.levels:
        if not math.isnan(level.energy):
            read = math.fsum(each.bytes.get(level.name, 0.0) for each in parts)
            terms[level.name] = read * level.energy
    over = _over(seconds, hardware, threads)
    # A busy core's watts are those of its multiply-accumulates too.
    over[CORES] = max(0.0, over[CORES] - terms[ARITHMETIC])
    return terms | over


def joules_of(seconds: float, read: float, hardware: Hardware, threads: int) -> float:
    """Joules of a pass by its seconds and the bytes that it read from DRAM, without arithmetic.

    NaN if the profile has no power, or its DRAM no energy a byte.
    """
    busy = math.fsum(_over(seconds, hardware, threads).values())
    return busy + read * hardware.levels[-1].energy


def _over(seconds: float, hardware: Hardware, threads: int) -> dict[str, float]:
    return {CORES: hardware.core * threads * seconds, IDLE: hardware.idle * seconds}


def _arithmetic(timed: Timed, hardware: Hardware) -> float:
    kind = FP16 if timed.part.kernel in (FP16, ATTENTION) else "ternary"
    return timed.part.macs * mac_joules(kind, hardware.node)
