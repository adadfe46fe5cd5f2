"""Codes of a few values, as files or arrays have them, packed as blocks or panels.

Layout: ternops.encodings.blocks and panels. Trick: a piece of a row becomes a byte a code, in the
first-level cache, whatever it was; the fields of a line of 64 bytes are then joined as the digits
of a number, and in panels its dwords go to 16 lines. Bound: operations, half of them those moves.
"""

import numpy as np

from ternops.encodings import PANELS
from ternops.encodings.blocks import BLOCK_BYTES, Blocks
from ternops.encodings.panels import LINE, ROWS
from ternops.isa import BYTES, u8
from ternops.simd import (
    TeamJob,
    Vector,
    at_least,
    convert,
    full,
    i32x16,
    inlined,
    interleave,
    load,
    pointer,
    record_at,
    record_type,
    store,
)
from ternops.team import share

#: How codes lie. TRITS: int8 values; PAIRS: four neighbours in a byte, the first in the lowest
#: bits; FIELDS: fields of two bits, those of `apart` bytes field after field; SIGNS: a bit each,
#: neighbours, the lowest first; DIGITS: in three stages of bytes, digits of base 3, as TQ1_0.
TRITS, PAIRS, FIELDS, SIGNS, DIGITS = range(5)

#: Rows `order` of data, `rows` of them. Their blocks of `size` weights are `stride` bytes apart
#: from `first` on, with codes from codes_at on and a float16 scale at scale_at (-1: none). turned:
#: what a field's number is XORed with. A value is (code << down) + low, a packed code code << up.
#: dead: whether a scale of 0, or a 0 in `used`, makes the block zeros.
#: out: lines rows at a time (16 of panels), row_bytes each, the last block's stride being tail.
#: scales, used: get a block's scale, 0 where nothing is multiplied by it, and whether anything is.
#: flaws: an int64 a thread; scratch: SCRATCH_BYTES a thread.
PACK = np.dtype(
    [(name, np.intp) for name in (
        "data", "row_stride", "order", "rows", "columns", "form", "size", "first", "stride",
        "codes_at", "scale_at", "apart", "turned", "bytes0", "digits0", "bytes1", "digits1",
        "bytes2", "digits2", "low", "down", "up", "dead", "fields", "lines", "out", "row_bytes",
        "tail", "scales", "used", "flaws", "scratch",
    )]
)  # fmt: skip
_Pack = record_type(PACK)

#: Columns that are worked on at a time: whole blocks of every encoding and every file.
PIECE = 2560
#: Their codes, and what tells of a line.
SCRATCH_BYTES = PIECE + 1024
_LINE_AT = SCRATCH_BYTES - BLOCK_BYTES

_u8x16 = Vector("u8", 16)
_u8x8, _i32x8 = Vector("u8", 8), Vector("i32", 8)
_ONES = 0x0101010101010101
_INFINITY = 0x7C00


def digits_of(encoding: Blocks):
    """What a byte's fields are as the digits of a number, the most significant first: functions
    that give the field of a digit and its unit, and the radix."""
    fields = encoding.fields
    units = [int(each) for each in encoding.join(np.eye(fields, dtype=np.uint8))]
    order = sorted(range(fields), key=lambda field: -units[field])

    def lookup(numbers: list[int]):
        n0, n1, n2, n3, n4, n5, n6, n7 = (*numbers, *[0] * (8 - fields))

        @inlined
        def number_of(i):
            low = (n0 if i == 0 else n1) if i < 2 else (n2 if i == 2 else n3)
            high = (n4 if i == 4 else n5) if i < 6 else (n6 if i == 6 else n7)
            return low if i < 4 else high

        return number_of

    return lookup(order), lookup([units[field] for field in order]), units[order[-2]]


def _make_join(encoding: Blocks):
    """A function that joins a line's fields, `stride` apart, to bytes."""
    fields = encoding.fields
    field_of, _, radix = digits_of(encoding)

    @inlined
    def join(codes, stride, line):
        for part in range(0, BLOCK_BYTES, BYTES):
            value = load(u8, codes + (field_of(0) * stride + part))
            for i in range(1, fields):
                twice = value + value
                if radix == 4:
                    value = twice + twice
                elif radix == 3:
                    value = twice + value
                else:
                    value = twice
                value = value + load(u8, codes + (field_of(i) * stride + part))
            store(line + part, value)

    return join


_join4, _join5, _join8 = (
    _make_join(next(each.blocks for each in PANELS.values() if each.blocks.fields == fields))
    for fields in (4, 5, 8)
)


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
def _values(source, codes, count, low, down):
    whole = count - count % BYTES
    for at in range(0, whole, BYTES):
        store(codes + at, (load(u8, source + at) - low) >> down)
    for at in range(whole, count):
        store(codes + at, np.uint8((np.int64(load(np.int8, source + at)) - low) >> down))


@inlined
def _read_block(p, source, codes):
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
            some |= load(np.int64, codes + at) ^ _ONES
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


@inlined
def _read(p, row, first, count, codes):
    """The codes of `count` columns of a row, and whether something is wrong with them."""
    at_row = load(np.int64, pointer(p.order) + 8 * row)
    source = pointer(p.data) + (at_row * p.row_stride + p.first)
    if p.form == TRITS:
        _values(source + first, codes, count, p.low, p.down)
        return np.int64(0)
    flaw = np.int64(0)
    block, blocks = first // p.size, p.columns // p.size
    for i in range(count // p.size):
        at = i * p.size
        place = source + (block + i) * p.stride
        mark = row * blocks + block + i
        some, bad = _read_block(p, place + p.codes_at, codes + at)
        flaw |= bad
        bits = np.int64(1)
        if p.scale_at >= 0:
            bits = np.int64(load(np.uint16, place + p.scale_at))
        elif p.dead != 0:
            bits = np.int64(load(np.uint8, pointer(p.used) + mark))
        if p.dead != 0 and bits & 0x7FFF == 0:
            some = np.int64(0)
            for each in range(at, at + p.size, 8):
                store(codes + each, np.int64(_ONES))
            flaw |= p.down  # no code of signs
        if some == 0:
            bits = np.int64(0)
        elif bits <= 0 or bits >= _INFINITY:
            flaw |= 1
        if p.scale_at >= 0:
            store(pointer(p.scales) + 2 * mark, np.uint16(bits))
        store(pointer(p.used) + mark, np.uint8(1 if some != 0 else 0))
    return flaw


@inlined
def _write(p, row, place, line, stride):
    """A line's first `stride` bytes, as those from `place` on of a row."""
    if p.lines == 1:
        out = pointer(p.out) + (row * p.row_bytes + place)
        if stride == BLOCK_BYTES:
            for part in range(0, BLOCK_BYTES, BYTES):
                store(out + part, load(u8, line + part))
        else:
            for i in range(stride):
                store(out + i, load(np.uint8, line + i))
    else:
        panel = row // ROWS * ROWS * p.row_bytes
        out = pointer(p.out) + (panel + place // 4 * LINE + row % ROWS * 4)
        for i in range(stride >> 2):
            store(out + i * LINE, load(np.uint32, line + 4 * i))


@inlined
def _pack(record, team, thread, threads):
    """Rows are shared out by 16."""
    p = record_at(_Pack, record)
    codes = pointer(p.scratch) + thread * SCRATCH_BYTES
    line = codes + _LINE_AT
    flaw = np.int64(0)
    rows = (p.rows + p.lines - 1) // p.lines * p.lines
    first, last = share(rows, ROWS, thread, threads)
    size = p.fields * BLOCK_BYTES
    for top in range(first, last, ROWS):
        for start in range(0, p.columns, PIECE):
            count = min(PIECE, p.columns - start)
            whole, base = count // size, start // p.fields
            for row in range(top, min(top + ROWS, last)):
                end = np.int64(0)
                if row < p.rows:
                    flaw |= _read(p, row, start, count, codes)
                    end = count
                if end < whole * size + p.fields * p.tail:
                    for at in range(end, _LINE_AT - BYTES + 1, BYTES):
                        store(codes + at, full(u8, 0))
                for block in range(whole + 1):
                    stride = BLOCK_BYTES if block < whole else p.tail
                    if block == whole and (start + count < p.columns or count % size == 0):
                        break
                    place = codes + block * size
                    if p.fields == 4:
                        _join4(place, stride, line)
                    elif p.fields == 5:
                        _join5(place, stride, line)
                    else:
                        _join8(place, stride, line)
                    _write(p, row, base + block * BLOCK_BYTES, line, stride)
    store(pointer(p.flaws) + 8 * thread, flaw)


pack = TeamJob(_pack, "pack")
