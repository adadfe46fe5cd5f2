"""How packed bytes become codes: the trits + 1 of one field, as unsigned bytes.

Layout: ternops.encodings.two_bit and base3. Trick: base3's byte is 81 t + m; twice the smaller of
x and x - 81, unsigned, is m, and one look-up turns m into the four 2-bit fields of two_bit, while
x - m is 81 t, which is t modulo 4. Bound: 5 operations a vector, or 24 without the look-up.
"""

from ternops.simd import (
    LOOKS_UP_81,
    WIDE,
    constant,
    fields_high,
    fields_low,
    inlined,
    look_up_128,
    minimum_u8,
)

#: Fields a byte has: which of the encodings a kernel works on.
TWO_BIT, BASE3 = 4, 5
#: The most vectors that `hold` and `open_fields` fill.
MOST_HELD, MOST_OPEN = 7, 5


def make_fields(fields, apart, width=WIDE):
    """The functions `hold`, `open_fields` and `codes`, for constants that are known here.

    fields: TWO_BIT or BASE3. apart: 1, 2 or 4; the codes of field f < 4 come times
    4 ** (f % apart), those of field 4 times 81 unless apart is 1.
    """
    looks_up = fields == BASE3 and LOOKS_UP_81
    # 32 registers have room for the constants; half as many have not.
    in_memory = width.bytes == 64
    mask0, mask1, mask2, mask3, eighty_one = (
        constant(width.u8, [value] * width.bytes, in_memory) for value in (3, 12, 48, 192, 81)
    )

    @inlined
    def hold(held):
        """Fill `held`, registers of MOST_HELD vectors, with constants."""
        held[0] = mask0()
        held[1] = mask1()
        held[2] = mask2()
        held[3] = mask3()
        if looks_up:
            held[4] = eighty_one()
            held[5] = fields_low()
            held[6] = fields_high()

    @inlined
    def remainder(value, divisor):
        """Unsigned bytes below 3 * divisor modulo divisor: x - divisor wraps where x is less."""
        once = minimum_u8(value, value - divisor)
        return minimum_u8(once, once - divisor)

    @inlined
    def open_fields(packed, opened, held):
        """Prepare packed bytes for `codes`: fills `opened`, registers of MOST_OPEN vectors."""
        if fields == TWO_BIT:
            opened[0] = packed
        elif looks_up:
            rest = remainder(packed, held[4])
            opened[0] = look_up_128(held[5], rest, held[6])
            opened[1] = packed - rest
        else:
            # 81 and 9 are 1 modulo 4, 27 and 3 are -1: the difference of two remainders, or its
            # negative, holds the trit in its low two bits.
            rest81 = remainder(packed, 81)
            opened[4] = (packed - rest81) & 3
            rest27 = remainder(rest81, 27)
            opened[0] = (rest27 - rest81) & 3
            rest9 = remainder(rest27, 9)
            opened[1] = (rest27 - rest9) & 3
            opened[3] = remainder(rest9, 3)
            opened[2] = (opened[3] - rest9) & 3

    @inlined
    def codes(opened, held, field):
        """The codes of one field, a constant."""
        if fields == BASE3 and not looks_up:
            return opened[field]
        if field == 4:
            return opened[1] if apart > 1 else opened[1] & held[0]
        return (opened[0] >> 2 * (field // apart * apart)) & held[field % apart]

    return hold, open_fields, codes
