"""Unpacking codes of three bits, the low two in one line and the high one in another.

Layout: ternops.encodings.three_bit. Trick: the high bit is moved to where it is worth 4, and one
operation takes it out of its byte and joins it. Bound: two shifts, an AND and that a field.
"""

from __future__ import annotations

from typing import Any

from ternops.encodings.blocks import Unpack
from ternops.encodings.unpack.bit_fields import leave
from ternops.simd import constant, inlined

_PLANES, _EACH = 3, 4


def make_unpack(fields: int, apart: int, width: Any) -> Unpack:
    """For 8 fields, all of which have one accumulator each."""
    in_memory = width.bytes == 64
    low, high = (constant(width.u8, [value] * width.bytes, in_memory) for value in (3, 4))

    @inlined
    def hold(held, levels):
        held[0] = low()
        held[1] = high()

    @inlined
    def codes(opened, held, field):
        bits = opened[field // _EACH] >> 2 * (field % _EACH) & held[0]
        # Only one of the two shifts is by more than 0.
        fourth = (opened[_PLANES - 1] << max(0, 2 - field)) >> max(0, field - 2)
        return bits | (fourth & held[1])

    return Unpack(2, _PLANES, hold, leave, codes, 0)
