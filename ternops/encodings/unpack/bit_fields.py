"""Unpacking bytes whose fields are some bits each, in kernel code.

Layout: blocks (`ternops.encodings.blocks`); field f is the bits [f * bits, (f + 1) * bits) of a
byte. Trick: a field that is left where it is takes one AND, and its codes come times a power of
two. Bound: an AND a field, and a shift where fields are brought down to one accumulator.
"""

from __future__ import annotations

from typing import Any

from ternops.encodings.blocks import Unpack
from ternops.simd import constant, inlined


@inlined
def leave(opened, held):
    """Fields are taken out of packed bytes as they are."""


def make_unpack(fields: int, apart: int, width: Any) -> Unpack:
    """For 8, 4, 2 fields in a byte, or 1, and `apart` accumulators."""
    bits, last = 8 // fields, fields - 1
    # 32 registers have room for the constants; half as many have not, and on ARM one is an
    # instruction that LLVM may repeat.
    in_memory = width.bytes == 64
    mask0, mask1, mask2, mask3, mask4, mask5, mask6, mask7 = (
        constant(width.u8, [((1 << bits) - 1 << bits * (i % fields))] * width.bytes, in_memory)
        for i in range(8)
    )

    @inlined
    def hold(held, levels):
        held[0] = mask0()
        if fields > 1:
            held[1] = mask1()
        if fields > 2:
            held[2] = mask2()
            held[3] = mask3()
        if fields > 4:
            held[4] = mask4()
            held[5] = mask5()
            held[6] = mask6()
            held[7] = mask7()

    @inlined
    def codes(opened, held, field):
        if field == last and last % apart == 0:
            return opened[0] >> bits * last
        return (opened[0] >> bits * (field // apart * apart)) & held[field % apart]

    return Unpack(fields, 1, hold, leave, codes, bits)
