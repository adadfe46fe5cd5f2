"""Joules where no counter can be read: the cost model's, from a row's own time and bytes."""

from __future__ import annotations

import functools
import math
from dataclasses import replace

from bench.results import MODELLED, Row
from ternops.cost import Hardware, load
from ternops.cost.energy import joules_of

#: The profile whose watts and joules a byte are taken.
PROFILE = "generic"


def with_joules(row: Row) -> Row:
    """The row, of generating tokens with the joules that it would take on a machine as PROFILE.

    Measured joules stay.
    """
    if not row.is_decode or not math.isnan(row.joules):
        return row
    joules = joules_of(1 / row.speed, row.bytes_per_token, _machine(), row.threads)
    return replace(row, joules=joules, energy=MODELLED)


@functools.cache
def _machine() -> Hardware:
    return load(PROFILE)
