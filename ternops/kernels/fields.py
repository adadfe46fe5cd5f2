"""How packed bytes become codes: the trits + 1 of one field, as bytes.

Layout: ternops.encodings.two_bit and base3. Trick: one look-up turns a base3 byte into the four
2-bit fields of two_bit and the fifth, if the tier has it; otherwise remainders do.
Bound: an AND a field, which base3 adds 5 to 7 operations a vector to, or 24 without the look-up.
"""

from ternops.isa import WIDE
from ternops.kernels import base3
from ternops.simd import constant, inlined

#: Fields a byte has: which of the encodings a kernel works on.
TWO_BIT, BASE3 = 4, 5
_MASKS = 4
#: The most vectors that `hold` and `open_fields` fill.
MAX_HELD, MAX_OPEN = _MASKS + base3.HELD, 5


def make_fields(fields, apart, width=WIDE):
    """The functions `hold`, `open_fields` and `codes`, for constants that are known here.

    fields: TWO_BIT or BASE3. apart: 1 to 4; the codes of field f < 4 come times
    4 ** (f % apart), those of field 4 times base3.FIFTH unless apart is 1.
    """
    looks_up = fields == BASE3 and base3.LOOKS_UP
    # 32 registers have room for the constants; half as many have not, and on ARM one is an
    # instruction that LLVM may repeat.
    in_memory = width.bytes == 64
    mask0, mask1, mask2, mask3 = (
        constant(width.u8, [value] * width.bytes, in_memory) for value in (3, 12, 48, 192)
    )

    @inlined
    def hold(held):
        """Fill `held`, registers of MAX_HELD vectors, with constants."""
        held[0] = mask0()
        held[1] = mask1()
        held[2] = mask2()
        held[3] = mask3()
        if looks_up:
            base3.hold(held, _MASKS)

    @inlined
    def open_fields(packed, opened, held):
        """Prepare packed bytes for `codes`: fills `opened`, registers of MAX_OPEN vectors."""
        if fields == TWO_BIT:
            opened[0] = packed
        elif looks_up:
            opened[0], opened[1] = base3.take_apart(packed, held, _MASKS)
        else:
            # 81 and 9 are 1 modulo 4, 27 and 3 are -1: the difference of two remainders, or its
            # negative, holds the trit in its low two bits.
            rest81 = base3.remainder(packed, 81)
            opened[4] = (packed - rest81) & 3
            rest27 = base3.remainder(rest81, 27)
            opened[0] = (rest27 - rest81) & 3
            rest9 = base3.remainder(rest27, 9)
            opened[1] = (rest27 - rest9) & 3
            opened[3] = base3.remainder(rest9, 3)
            opened[2] = (opened[3] - rest9) & 3

    @inlined
    def codes(opened, held, field):
        """The codes of one field, a constant."""
        if fields == BASE3 and not looks_up:
            return opened[field]
        if field == 4:
            return opened[1] if apart > 1 else base3.fifth_code(opened[1], held[0])
        if field == 3 and apart in (1, 3):
            return opened[0] >> 6
        return (opened[0] >> 2 * (field // apart * apart)) & held[field % apart]

    return hold, open_fields, codes
