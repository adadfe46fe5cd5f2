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
#: NIBBLES: four bits each, the low ones of `apart` bytes, then the high ones; E2M1: so, a sign and
#: a magnitude, for ranks among its 15 values; INT8: integers, for their distances from -127.
TRITS, PAIRS, FIELDS, SIGNS, DIGITS, NIBBLES, E2M1, INT8 = range(8)

_u8x16 = Vector("u8", 16)
_u8x8, _i32x8 = Vector("u8", 8), Vector("i32", 8)
#: The highest bit, and the lowest, of each byte of an int64.
_TOPS, _LOWS = -0x7F7F7F7F7F7F7F80, 0x0101010101010101
#: Eight codes of zeros, which are 1.
ZEROS = _LOWS


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
def _ranks(nibbles):
    """15 - c of codes from 8, which have the sign, c + 7 of others."""
    negative = at_least(nibbles, full(_u8x8, 8))
    return (nibbles ^ negative) + 7 + (negative & 9)


@inlined
def _nibbles(source, codes, count, apart, has_sign):
    for part in range(0, count >> 1, 8):
        packed = load(_u8x8, source + part)
        low, high = packed & 15, packed >> 4
        place = codes + (2 * part - (part & (apart - 1)))
        store(place, _ranks(low) if has_sign else low)
        store(place + apart, _ranks(high) if has_sign else high)


@inlined
def _integers(source, codes, count):
    """Gives a number that is not 0 if one is -128."""
    bad = np.int64(0)
    for at in range(0, count, 8):
        store(codes + at, load(_u8x8, source + at) + 127)
        word = load(np.int64, codes + at)
        bad |= (~word - _LOWS) & word & _TOPS
    return bad


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
    """One block's codes; gives a number that is 0 if all are zeros (of levels it is not), and one
    that is not 0 if a code is none."""
    some, bad = np.int64(0), np.int64(0)
    if p.form == NIBBLES:
        _nibbles(source, codes, p.size, p.apart, False)
        some = np.int64(1)
    elif p.form == E2M1:
        _nibbles(source, codes, p.size, p.apart, True)
        some = np.int64(1)
    elif p.form == INT8:
        bad = _integers(source, codes, p.size)
        some = np.int64(1)
    elif p.form == SIGNS:
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
            bad |= word & word >> 1 & 0x5555555555555555
    return some, bad
