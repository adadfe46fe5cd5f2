"""Codes turned into the levels of a matrix, in kernel code.

Layout: a matrix's levels, 16 bytes over and over (`ternops.kernels.levels`). Trick: one shuffle of
bytes looks the codes of a vector up. Bound: that shuffle, a code.
"""

from __future__ import annotations

from typing import Any

from ternops.encodings.blocks import Unpack
from ternops.encodings.encoding import MAX_LEVEL
from ternops.isa import LEVEL_OFFSET, TABLE_REGISTERS, hold_table, look_up_level
from ternops.simd import inlined, pointer

#: Where the levels as int8 are, behind those as `ternops.isa.dot_levels` takes them.
SIGNED_AT = 64


def with_levels(unpack: Unpack, has_table: bool, is_signed: bool, width: Any) -> Unpack:
    """The same with levels in the place of codes, as `dot_levels` takes them, or as int8."""
    holds, opens, hold, open_fields, codes, shift, _ = unpack
    at = SIGNED_AT if is_signed else 0
    if not has_table:
        move = MAX_LEVEL if is_signed or LEVEL_OFFSET == 0 else 0

        @inlined
        def moved(opened, held, field):
            return codes(opened, held, field) - move if move > 0 else codes(opened, held, field)

        return unpack._replace(codes=moved)

    @inlined
    def hold_both(held, levels):
        hold(held, levels)
        hold_table(held, holds, pointer(levels) + at)

    @inlined
    def looked_up(opened, held, field):
        return look_up_level(held, holds, codes(opened, held, field))

    return Unpack(holds + TABLE_REGISTERS, opens, hold_both, open_fields, looked_up, shift)
