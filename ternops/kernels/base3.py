"""Taking base3 bytes apart, x = 81 t + m, by the tier's look-up of 81 entries.

Layout: ternops.encodings.base3; the table turns m into the four 2-bit fields of two_bit. Trick:
twice the smaller of x and x - 81, unsigned, is m, and x - m is 81 t; where a comparison gives -1,
two of them are -t, and m takes one multiply-add. Bound: 5 operations a vector, on ARM 7.
"""

from typing import Any

from ternops.isa.detect import TIER
from ternops.simd import Vector, at_least, constant, full, inlined, instruction

BYTES = TIER.vector_bytes
_TABLE: Any = TIER.byte_table
_IS_ARM = _TABLE is not None and _TABLE.is_arm
_u8 = Vector("u8", BYTES)
_FIELDS = [i // 27 | i // 9 % 3 << 2 | i // 3 % 3 << 4 | i % 3 << 6 for i in range(81)]

#: Whether there is such a look-up.
LOOKS_UP = _TABLE is not None
#: The fifth field comes times this.
FIFTH = -1 if _IS_ARM else 81

minimum_u8 = instruction(f"llvm.umin.v{BYTES}i8", _u8, _u8, _u8)


@inlined
def remainder(value, divisor):
    """Unsigned bytes below 3 * divisor modulo divisor: x - divisor wraps where x is less."""
    once = minimum_u8(value, value - divisor)
    return minimum_u8(once, once - divisor)


def _constants(values):
    """Held in registers: LLVM would rather make some of them anew in every turn of a loop."""
    return [constant(_u8, lanes, in_memory=True) for lanes in values]


def _table(size):
    entries = _FIELDS + [0] * (size - len(_FIELDS))
    return _constants(entries[i : i + BYTES] for i in range(0, size, BYTES))


if _TABLE is not None:
    _look_up = _TABLE.look_up

if _IS_ARM:
    HELD = 9  #: Registers that `hold` fills.
    _table0, _table1, _table2, _table3, _table4, _table5 = _table(_TABLE.bytes)
    _81, _162, _64 = _constants([value] * BYTES for value in (81, 162, 64))

    @inlined
    def hold(held, at):
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
    def take_apart(packed, held, at):
        """The bytes of four fields, and the codes of the fifth times FIFTH."""
        fifth = at_least(packed, held[at + 6]) + at_least(packed, held[at + 7])
        rest = packed + fifth * held[at + 6]
        return _look_up(held, at, rest, held[at + 8]), fifth

    @inlined
    def fifth_code(fifth, mask):
        """The code of the fifth field, without the factor. mask: of 3."""
        return full(_u8, 0) - fifth

else:
    HELD = 3  #: Registers that `hold` fills.
    (_81,) = _constants([[81] * BYTES])
    _low, _high = _table(_TABLE.bytes) if LOOKS_UP else (_81, _81)

    @inlined
    def hold(held, at):
        """Fill `held`, registers, from `at` on, with the table and what goes with it."""
        held[at] = _81()
        held[at + 1] = _low()
        held[at + 2] = _high()

    @inlined
    def take_apart(packed, held, at):
        """The bytes of four fields, and the codes of the fifth times FIFTH."""
        rest = remainder(packed, held[at])
        return _look_up(held[at + 1], rest, held[at + 2]), packed - rest

    @inlined
    def fifth_code(fifth, mask):
        """The code of the fifth field, without the factor. mask: of 3."""
        return fifth & mask  # 81 is 1 modulo 4
