"""Codes of a few values, as files or arrays have them, packed as blocks or panels.

Layout: ternops.encodings.blocks and panels. Trick: a piece of a row becomes a byte a code, in a
near cache, whatever it was; the fields of a line of 64 bytes are then joined as the digits of a
number, and in panels its dwords go to 16 lines. Bound: operations, half of them those moves.
"""

import numpy as np

from ternops.encodings import PANELS
from ternops.encodings.blocks import BLOCK_BYTES
from ternops.encodings.panels import LINE, ROWS, Panels
from ternops.isa import BYTES, u8
from ternops.kernels.codes import NIBBLES, TRITS, ZEROS, read_block, read_values
from ternops.simd import (
    TeamJob,
    full,
    i32x16,
    inlined,
    load,
    pointer,
    prefetch,
    record_at,
    record_type,
    registers,
    store,
    transpose,
)
from ternops.team import share

#: Rows `order` of data, `rows` of them. Their blocks of `size` weights are `stride` bytes apart
#: from `first` on, with codes from codes_at on and a float16 scale at scale_at (-1: none). turned:
#: what a field's number is XORed with. A value is (code << down) + low, or has its code in the 256
#: bytes at `table` (0: none), a packed code code << up. layout: its number in PANELS.
#: dead: whether a scale of 0, or a 0 in `used`, makes the block zeros.
#: out: lines rows at a time (16 of panels), row_bytes each, the last block's stride being tail.
#: scales, used: get a block's scale, 0 where nothing is multiplied by it, and whether anything is.
#: flaws: an int64 a thread; scratch: SCRATCH_BYTES a thread.
PACK = np.dtype(
    [(name, np.intp) for name in (
        "data", "row_stride", "order", "rows", "columns", "form", "size", "first", "stride",
        "codes_at", "scale_at", "apart", "turned", "bytes0", "digits0", "bytes1", "digits1",
        "bytes2", "digits2", "low", "down", "table", "up", "dead", "layout", "fields", "planes",
        "lines", "out", "row_bytes", "tail", "scales", "used", "flaws", "scratch",
    )]
)  # fmt: skip
_Pack = record_type(PACK)

#: Columns that are worked on at a time: whole blocks of every encoding and every file.
PIECE = 2560
#: Their codes, zeros behind; and the bytes of 16 rows of them, at least a code in each.
_CODES_BYTES = PIECE + 1024
_ROW_BYTES = PIECE + BLOCK_BYTES
SCRATCH_BYTES = _CODES_BYTES + ROWS * _ROW_BYTES

_INFINITY = 0x7C00


def digits_of(encoding: Panels):
    """What the fields of a byte are as the digits of a number, the most significant first: a
    function that gives the field of a digit, and the radix (1: there is one digit)."""
    fields = encoding.fields
    units = [int(each) for each in encoding.join(np.eye(fields, dtype=np.uint8))]
    order = sorted(range(fields), key=lambda field: -units[field])
    n0, n1, n2, n3, n4, n5, n6, n7 = (*order, *[0] * (8 - fields))

    @inlined
    def field_of(i):
        low = (n0 if i == 0 else n1) if i < 2 else (n2 if i == 2 else n3)
        high = (n4 if i == 4 else n5) if i < 6 else (n6 if i == 6 else n7)
        return low if i < 4 else high

    return field_of, units[order[-2]] if fields > 1 else 1


#: Of an encoding of two planes, of fields of two bits and of one.
_EACH, _LOW, _HIGH = 4, 2, 2


def _make_join(encoding: Panels):
    """A function that joins the fields of a line of each plane, `stride` apart, to bytes."""
    fields, planes = encoding.fields, encoding.planes

    @inlined
    def join_planes(codes, stride, line):
        for part in range(0, BLOCK_BYTES, BYTES):
            high = full(u8, 0)
            for plane in range(planes - 1):
                low = full(u8, 0)
                for i in range(_EACH):
                    field = plane * _EACH + i
                    code = load(u8, codes + (field * stride + part))
                    low = low | (code & 3) << _LOW * i
                    high = high | (code >> _HIGH) << field
                store(line + (plane * BLOCK_BYTES + part), low)
            store(line + ((planes - 1) * BLOCK_BYTES + part), high)

    if planes > 1:
        return join_planes
    field_of, radix = digits_of(encoding)

    @inlined
    def join(codes, stride, line):
        for part in range(0, BLOCK_BYTES, BYTES):
            value = load(u8, codes + (field_of(0) * stride + part))
            for i in range(1, fields):
                if radix == 3:
                    value = value + value + value
                else:
                    value = value << (4 if radix == 16 else radix // 2)
                value = value + load(u8, codes + (field_of(i) * stride + part))
            store(line + part, value)

    return join


def by_layout(make):
    """A function that calls one of those that `make` makes of each of PANELS, by its number, with
    three arguments."""
    made = [make(each) for each in PANELS.values()]
    f0, f1, f2, f3, f4, f5 = made

    @inlined
    def chosen(layout, a, b, c):
        if layout == 0:
            f0(a, b, c)
        elif layout == 1:
            f1(a, b, c)
        elif layout == 2:
            f2(a, b, c)
        elif layout == 3:
            f3(a, b, c)
        elif layout == 4:
            f4(a, b, c)
        else:
            f5(a, b, c)

    return chosen


_join_fields = by_layout(_make_join)
#: Of a layout with more than one.
_PLANES = max(each.planes for each in PANELS.values())


@inlined
def _read(p, row, first, count, codes):
    """The codes of `count` columns of a row, and whether something is wrong with them."""
    at_row = load(np.int64, pointer(p.order) + 8 * row)
    source = pointer(p.data) + (at_row * p.row_stride + p.first)
    if p.form == TRITS:
        read_values(source + first, codes, count, p.low, p.down, p.table)
        return np.int64(0)
    flaw = np.int64(0)
    block, blocks = first // p.size, p.columns // p.size
    begin = source + (block * p.stride + p.row_stride)
    for at in range(0, count // p.size * p.stride, LINE):
        prefetch(begin + at)
    for i in range(count // p.size):
        at = i * p.size
        place = source + (block + i) * p.stride
        mark = row * blocks + block + i
        some, bad = read_block(p, place + p.codes_at, codes + at)
        flaw |= bad
        bits = np.int64(1)
        if p.scale_at >= 0:
            bits = np.int64(load(np.uint16, place + p.scale_at))
        elif p.dead != 0:
            bits = np.int64(load(np.uint8, pointer(p.used) + mark))
        if p.dead != 0 and bits & 0x7FFF == 0:
            some = np.int64(0)
            for each in range(at, at + p.size, 8):
                store(codes + each, np.int64(ZEROS))
            flaw |= p.down  # no code of signs
        if some == 0:
            bits = np.int64(0)
        elif p.form >= NIBBLES:
            flaw |= np.int64(bits & _INFINITY == _INFINITY)
        elif bits <= 0 or bits >= _INFINITY:
            flaw |= 1
        if p.scale_at >= 0:
            store(pointer(p.scales) + 2 * mark, np.uint16(bits))
        store(pointer(p.used) + mark, np.uint8(1 if some != 0 else 0))
    return flaw


@inlined
def _join(p, codes, count, line, is_last):
    """The bytes of `count` codes, from `line` on; is_last: of a row, with its shorter block, whose
    planes are as far apart as those of others. Gives the bytes written, but for the last plane's.
    """
    size, width = p.fields * BLOCK_BYTES, p.planes * BLOCK_BYTES
    whole = count // size
    for block in range(whole + 1):
        stride = BLOCK_BYTES if block < whole else p.tail
        if block == whole and (not is_last or stride == 0):
            break
        _join_fields(p.layout, codes + block * size, stride, line + block * width)
    return whole * width + (p.tail if is_last else 0)


@inlined
def _write_row(out, line, size):
    whole = size & ~(BYTES - 1)
    for part in range(0, whole, BYTES):
        store(out + part, load(u8, line + part))
    for i in range(whole, size):
        store(out + i, load(np.uint8, line + i))


@inlined
def _write_panel(out, lines, size, planes):
    """The dwords of 16 rows, interleaved, those of planes as well."""
    square = registers(i32x16, ROWS)
    for at in range(0, size, planes * BLOCK_BYTES):
        count = min(ROWS, (size - at) >> 2)
        for plane in range(planes):
            for row in range(ROWS):
                place = lines + (row * _ROW_BYTES + at + plane * BLOCK_BYTES)
                square[row] = load(i32x16, place)
            transpose(square)
            for i in range(ROWS):
                if i < count:
                    store(out + (at * ROWS + (i * planes + plane) * LINE), square[i])


@inlined
def _pack(record, team, thread, threads):
    """Rows are shared out by 16."""
    p = record_at(_Pack, record)
    codes = pointer(p.scratch) + thread * SCRATCH_BYTES
    lines = codes + _CODES_BYTES
    flaw = np.int64(0)
    rows = (p.rows + p.lines - 1) // p.lines * p.lines
    first, last = share(rows, ROWS, thread, threads)
    for top in range(first, last, ROWS):
        for start in range(0, p.columns, PIECE):
            count = min(PIECE, p.columns - start)
            base, size = start // p.fields * p.planes, np.int64(0)
            for row in range(top, min(top + ROWS, last)):
                end = np.int64(0)
                if row < p.rows:
                    flaw |= _read(p, row, start, count, codes)
                    end = count
                for at in range(end, _CODES_BYTES - BYTES + 1 if end < PIECE else 0, BYTES):
                    store(codes + at, full(u8, 0))
                line = lines + (row - top) * _ROW_BYTES
                size = _join(p, codes, count, line, start + count == p.columns)
                if p.lines == 1:
                    _write_row(pointer(p.out) + (row * p.row_bytes + base), line, size)
            if p.lines > 1:
                out = pointer(p.out) + (top * p.row_bytes + base * ROWS)
                if p.planes == 1:
                    _write_panel(out, lines, size, 1)
                else:
                    _write_panel(out, lines, size, _PLANES)
    store(pointer(p.flaws) + 8 * thread, flaw)


pack = TeamJob(_pack, "pack")
