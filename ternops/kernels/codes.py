"""Codes of a few values, as files or arrays have them: blocks of them become a byte a code.

Trick: bits of a byte are spread by shifts and a multiplication of 32-bit lanes; a digit of base 3
is what three times the byte carries. Bound: operations, less than one a code.
"""

import numpy as np

from ternops.isa import BYTES, u8
from ternops.simd import (
    Vector,
    at_least,
    convert,
    full,
    i32x16,
    inlined,
    interleave,
    load,
    pointer,
    store,
)

#: How codes lie. TRITS: int8 values; PAIRS: four neighbours in a byte, the first in the lowest
#: bits; FIELDS: fields of two bits, those of `apart` bytes field after field; SIGNS: a bit each,
#: neighbours, the lowest first; DIGITS: in three stages of bytes, digits of base 3, as TQ1_0.
TRITS, PAIRS, FIELDS, SIGNS, DIGITS = range(5)

_u8x16 = Vector("u8", 16)
_u8x8, _i32x8 = Vector("u8", 8), Vector("i32", 8)
#: Eight codes of zeros, which are 1.
ZEROS = 0x0101010101010101


@inlined
def _pairs(source, codes, count):
    """Two bits each become a byte each."""
    for at in range(0, count & ~63, 64):
        word = convert(i32x16, load(_u8x16, source + (at >> 2)))
        store(codes + at, (word | word << 6 | word << 12 | word << 18) & 0x03030303)
    if count & 32 != 0:
        at = count & ~63
        half = convert(_i32x8, load(_u8x8, source + (at >> 2)))
        store(codes + at, (half | half << 6 | half << 12 | half << 18) & 0x03030303)


@inlined
def _fields(source, codes, count, apart, turned):
    for part in range(0, count >> 2, 16):
        packed = load(_u8x16, source + part)
        inside = part & (apart - 1)
        for field in range(4):
            place = 4 * (part - inside) + (field ^ turned) * apart + inside
            store(codes + place, packed >> 2 * field & 3)


@inlined
def _spread(nibbles):
    """Four bits each become the bytes of an int32."""
    return convert(i32x16, nibbles) * 0x00204081 & 0x01010101


@inlined
def _signs(source, codes, count, up):
    for at in range(0, count, 128):
        packed = load(_u8x16, source + (at >> 3))
        both = interleave(_spread(packed & 15), _spread(packed >> 4))
        store(codes + at, both << up)


@inlined
def _digits(source, codes, size, count):
    """The digits of `size` bytes q = ceil(256 x / 243): the first is what 3 q carries."""
    for part in range(0, size & ~15, 16):
        value = load(_u8x16, source + part)
        for digit in range(count):
            carry = at_least(value, full(_u8x16, 86)) + at_least(value, full(_u8x16, 171))
            store(codes + (digit * size + part), full(_u8x16, 0) - carry)
            value = value + value + value
    for part in range(size & ~15, size):
        number = np.int64(load(np.uint8, source + part))
        for digit in range(count):
            number = (number & 255) * 3
            store(codes + (digit * size + part), np.uint8(number >> 8))


@inlined
def read_values(source, codes, count, low, down, table):
    if table != 0:
        for at in range(count):
            value = np.int64(load(np.uint8, source + at))
            store(codes + at, load(np.uint8, pointer(table) + value))
        return
    whole = count - count % BYTES
    for at in range(0, whole, BYTES):
        store(codes + at, (load(u8, source + at) - low) >> down)
    for at in range(whole, count):
        store(codes + at, np.uint8((np.int64(load(np.int8, source + at)) - low) >> down))


@inlined
def read_block(p, source, codes):
    """One block's codes; gives a number that is 0 if all are zeros, and one whose lowest bit of
    any field is set if a code is 3."""
    some, bad = np.int64(0), np.int64(0)
    if p.form == SIGNS:
        _signs(source, codes, p.size, p.up)
        some = np.int64(1)
    elif p.form == DIGITS:
        _digits(source, codes, p.bytes0, p.digits0)
        second = p.bytes0 * p.digits0
        _digits(source + p.bytes0, codes + second, p.bytes1, p.digits1)
        third = second + p.bytes1 * p.digits1
        _digits(source + (p.bytes0 + p.bytes1), codes + third, p.bytes2, p.digits2)
        for at in range(0, p.size, 8):
            some |= load(np.int64, codes + at) ^ ZEROS
    else:
        if p.form == PAIRS:
            _pairs(source, codes, p.size)
        else:
            _fields(source, codes, p.size, p.apart, p.turned)
        for at in range(0, p.size >> 2, 8):
            word = load(np.int64, source + at)
            some |= word ^ 0x5555555555555555
            bad |= word & word >> 1
    return some, bad & 0x5555555555555555
