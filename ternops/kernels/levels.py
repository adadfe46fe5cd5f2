"""The levels of a matrix as kernels take them: a table in memory, and two numbers."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

from ternops.encodings import ENCODINGS, PANELS
from ternops.encodings.encoding import MAX_LEVEL
from ternops.encodings.unpack.levels import SIGNED_AT
from ternops.isa import LEVEL_OFFSET
from ternops.memory import aligned_empty

_BYTES = 2 * SIGNED_AT
_ENTRIES = 16

#: Those that addresses are given of: a few hundred bytes for each set of levels ever used.
_KEPT: list[np.ndarray] = []


class Levels(NamedTuple):
    """table: the address of 64 bytes, the levels as `ternops.isa.dot_levels` takes them, over and
    over, and of 64 more, as int8. bias: what codes exceed levels by, times 2**shift. shift: a level
    is (code << shift) - bias; of levels that are looked up, 0."""

    table: int
    bias: int
    shift: int


@cache
def levels_of(encoding: str, levels: tuple[int, ...] = ()) -> Levels:
    """Of a matrix of an encoding, by default its values, or of `ternops.kernels.plan.UNPACKED`."""
    if encoding not in ENCODINGS:
        return Levels(0, 0, 0)
    levels = levels or ENCODINGS[encoding].values
    table = aligned_empty(_BYTES, np.uint8)
    entries = np.zeros(_ENTRIES, np.int8)
    if len(levels) <= _ENTRIES:
        entries[: len(levels)] = levels
    table[:SIGNED_AT].reshape(-1, _ENTRIES)[:] = entries.view(np.uint8) + np.uint8(LEVEL_OFFSET)
    table[SIGNED_AT:].reshape(-1, _ENTRIES)[:] = entries.view(np.uint8)
    _KEPT.append(table)
    panels = PANELS.get(encoding)
    if panels is None or not panels.has_levels:
        return Levels(table.ctypes.data, -levels[0], levels[1] - levels[0] - 1)
    if panels.is_table:
        return Levels(table.ctypes.data, LEVEL_OFFSET, 0)
    return Levels(table.ctypes.data, MAX_LEVEL if LEVEL_OFFSET else 0, 0)
