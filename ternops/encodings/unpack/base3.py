"""Unpacking base3 bytes, x = 81 t + m, in kernel code.

Layout: ternops.encodings.base3. Trick: where the tier has a look-up of 81 entries, it turns m into
the four 2-bit fields of two_bit; twice the smaller of x and x - 81, unsigned, is m, and x - m is
81 t; where a comparison gives -1, two of them are -t, and m takes one multiply-add. Otherwise
remainders give the codes one by one.
Bound: 5 operations a vector, on ARM 7, and then an AND a field; without the look-up 24 in all.
"""

from __future__ import annotations

from typing import Any

from ternops.encodings.blocks import Unpack
from ternops.encodings.unpack import bit_fields
from ternops.isa.detect import TIER
from ternops.simd import Vector, at_least, constant, full, inlined, instruction

_BYTES = TIER.vector_bytes
_TABLE: Any = TIER.byte_table
_IS_ARM = _TABLE is not None and _TABLE.is_arm
_u8 = Vector("u8", _BYTES)
_PACKED = [i // 27 | i // 9 % 3 << 2 | i // 3 % 3 << 4 | i % 3 << 6 for i in range(81)]

_LOOKS_UP = _TABLE is not None
# The fifth field comes times this.
_FIFTH = -1 if _IS_ARM else 81

_minimum = instruction(f"llvm.umin.v{_BYTES}i8", _u8, _u8, _u8)


@inlined
def _remainder(value, divisor):
    """Unsigned bytes below 3 * divisor modulo divisor: x - divisor wraps where x is less."""
    once = _minimum(value, value - divisor)
    return _minimum(once, once - divisor)


def _constants(values):
    """Held in registers: LLVM would rather make some of them anew in every turn of a loop."""
    return [constant(_u8, lanes, in_memory=True) for lanes in values]


def _table(size):
    entries = _PACKED + [0] * (size - len(_PACKED))
    return _constants(entries[i : i + _BYTES] for i in range(0, size, _BYTES))


if _TABLE is not None:
    _look_up = _TABLE.look_up

if _IS_ARM:
    _HELD = 9  # registers that `_hold` fills
    _table0, _table1, _table2, _table3, _table4, _table5 = _table(_TABLE.bytes)
    _81, _162, _64 = _constants([value] * _BYTES for value in (81, 162, 64))

    @inlined
    def _hold(held, at):
        """Fill `held`, registers, from `at` on, with the table and what goes with it."""
        held[at] = _table0()
        held[at + 1] = _table1()
        held[at + 2] = _table2()
        held[at + 3] = _table3()
        held[at + 4] = _table4()
        held[at + 5] = _table5()
        held[at + 6] = _81()
        held[at + 7] = _162()
        held[at + 8] = _64()

    @inlined
    def _take_apart(packed, held, at):
        """The bytes of four fields, and the codes of the fifth times _FIFTH."""
        fifth = at_least(packed, held[at + 6]) + at_least(packed, held[at + 7])
        rest = packed + fifth * held[at + 6]
        return _look_up(held, at, rest, held[at + 8]), fifth

    @inlined
    def _fifth_code(fifth, mask):
        """The code of the fifth field, without the factor. mask: of 3."""
        return full(_u8, 0) - fifth

else:
    _HELD = 3  # registers that `_hold` fills
    (_81,) = _constants([[81] * _BYTES])
    _low, _high = _table(_TABLE.bytes) if _LOOKS_UP else (_81, _81)

    @inlined
    def _hold(held, at):
        """Fill `held`, registers, from `at` on, with the table and what goes with it."""
        held[at] = _81()
        held[at + 1] = _low()
        held[at + 2] = _high()

    @inlined
    def _take_apart(packed, held, at):
        """The bytes of four fields, and the codes of the fifth times _FIFTH."""
        rest = _remainder(packed, held[at])
        return _look_up(held[at + 1], rest, held[at + 2]), packed - rest

    @inlined
    def _fifth_code(fifth, mask):
        """The code of the fifth field, without the factor. mask: of 3."""
        return fifth & mask  # 81 is 1 modulo 4


def make_unpack(fields: int, apart: int, width: Any) -> Unpack:
    """Of the tier's widest vectors. The first four fields are two_bit's once a look-up was made."""
    four = bit_fields.make_unpack(4, apart, width)
    masks = four.holds
    hold_masks, four_codes = four.hold, four.codes

    if not _LOOKS_UP:

        @inlined
        def open_bytes(opened, held):
            packed = opened[0]
            # 81 and 9 are 1 modulo 4, 27 and 3 are -1: the difference of two remainders, or its
            # negative, holds the trit in its low two bits.
            rest81 = _remainder(packed, 81)
            opened[4] = (packed - rest81) & 3
            rest27 = _remainder(rest81, 27)
            opened[0] = (rest27 - rest81) & 3
            rest9 = _remainder(rest27, 9)
            opened[1] = (rest27 - rest9) & 3
            opened[3] = _remainder(rest9, 3)
            opened[2] = (opened[3] - rest9) & 3

        @inlined
        def codes(opened, held, field):
            return opened[field]

        return Unpack(masks, fields, hold_masks, open_bytes, codes, 2)

    @inlined
    def hold(held, levels):
        hold_masks(held, levels)
        _hold(held, masks)

    @inlined
    def open_looked_up(opened, held):
        opened[0], opened[1] = _take_apart(opened[0], held, masks)

    @inlined
    def codes_looked_up(opened, held, field):
        if field == 4:
            return opened[1] if apart > 1 else _fifth_code(opened[1], held[0])
        return four_codes(opened, held, field)

    return Unpack(
        masks + _HELD, 2, hold, open_looked_up, codes_looked_up, 2, _FIFTH if apart > 1 else 0
    )
