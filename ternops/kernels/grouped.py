"""Products of matrices with a scale a group of columns: what all of them do, and one token's.

Layout: panels of 16 rows (`ternops.encodings.panels`): a line is four columns of each row, so that
lanes are rows. Trick: codes stay where they are in the byte and meet four activations that all
lanes share; the int32 sums of a group are complete, and are turned into floats once a group, in one
chain of fused multiply-adds in the order of the groups. Bound: memory, the bits of a weight.
"""

from functools import cache

import numpy as np

from ternops.encodings import ENCODINGS
from ternops.encodings.blocks import BLOCK_BYTES, Blocks
from ternops.encodings.panels import LINE, ROWS
from ternops.isa import (
    BYTES,
    PARTIAL,
    TIER,
    WIDE,
    close_sums,
    dot_lanes,
    i8,
    i32,
    load_fp16,
    open_sums,
    u8,
)
from ternops.kernels.elementwise import copy_row, quantize_row
from ternops.kernels.operands import Operands
from ternops.kernels.tuning import stream_step
from ternops.simd import (
    RowsKernel,
    bitcast,
    convert,
    f32,
    fma,
    full,
    i32x16,
    inlined,
    load,
    pointer,
    prefetch,
    record_at,
    registers,
    store,
    store_first,
)

#: Columns whose sums are added up before they go to their group's.
MAX_UNIT = 64
#: What partial sums of int16 have room for: see `ternops.isa`.
_MAX_PARTIAL = 128
_DWORD = 4


@RowsKernel
def place_groups(operands, first, last, thread):
    """Quantise tokens [first, last), each in its natural order, with the sums of its groups."""
    p = record_at(Operands, operands)
    size = 1 << p.group_bits
    groups = p.columns >> p.group_bits
    for token in range(first, last):
        placed = pointer(p.placed) + token * p.placed_stride
        x = pointer(p.x) + 4 * token * p.columns
        step = np.float32(1)
        if p.is_float and not p.is_blocked:
            step, _ = quantize_row(x, p.columns, p.floor, placed)
        for group in range(groups):
            at = group << p.group_bits
            if not p.is_float:
                source = pointer(p.x) + (token * p.columns + at)
                total = copy_row(source, size, placed + at)
            elif p.is_blocked:
                step, total = quantize_row(x + 4 * at, size, p.floor, placed + at)
            else:
                total = copy_row(placed + at, size, placed + at)
            place = 4 * (token * groups + group)
            store(pointer(p.offsets) + place, np.int32(total * p.bias))
            store(pointer(p.steps) + place, step)
        for at in range(p.columns, p.placed_stride):
            store(placed + at, np.int8(0))


@inlined
def factors_of(p, row):
    """Where the scales of the panel of `row` are."""
    return pointer(p.scales) + (row >> 4) * ((p.columns >> p.group_bits) * ROWS * p.scale_step)


@inlined
def scales_of(p, factors, group):
    """The scales of a panel's rows for a group; factors: the panel's."""
    if p.scale_step == 2:
        return load_fp16(factors + group * (2 * ROWS))
    return load(f32, factors + group * (4 * ROWS))


@inlined
def add_group(p, total, scales, sums_at, result):
    """result + (a group's sums less what codes exceed values by) * (scales * the token's step).

    sums_at: the bytes from a token's first offset and step to the group's.
    """
    total = total - load(np.int32, pointer(p.offsets) + sums_at)
    step = load(np.float32, pointer(p.steps) + sums_at)
    return fma(convert(f32, total), scales * step, result)


@inlined
def write_rows(p, result, row, token):
    """The results of a panel's rows, as many as there are."""
    place = pointer(p.out) + 4 * (token * p.out_stride + row)
    store_first(place, result, min(ROWS, p.rows - row))


@inlined
def columns_of(x):
    """The four activations at x, for every row."""
    return bitcast(i8, full(i32, load(np.int32, x)))


def fields_apart(encoding: Blocks, unit: int) -> int:
    """How many of a byte's fields the sums of a unit have room for where they are in the byte."""
    most = TIER.pick(encoding.tiles).apart
    if TIER.close is None:
        return most
    bits = encoding.make_unpack(1, WIDE).shift
    codes = unit // _DWORD * (len(encoding.values) - 1)
    return max(n for n in range(1, most + 1) if codes << bits * (n - 1) <= _MAX_PARTIAL)


def make_blocks(encoding: Blocks, unit: int):
    """Functions that add a whole block of a panel, and what is left of a row, to the groups' sums.

    unit: columns whose sums are added up before they go to their group's.
    """
    fields, step = encoding.fields, encoding.step
    apart = fields_apart(encoding, unit)
    unpack = encoding.make_unpack(apart, WIDE)
    holds, opens, hold, open_fields, codes, shift, factor = unpack
    inverse, lines = unpack.last_inverse, unit // _DWORD

    @inlined
    def value(total, field):
        """The sum of a field's values. Exact: each lane is a multiple of what it is divided by."""
        if factor != 0 and field == fields - 1:
            total = total * inverse  # modulo 2**32
        else:
            total = total >> shift * (field % apart)
        return total * step if step > 1 else total

    @inlined
    def add_to(totals, p, column, part, total):
        place = totals + ((column >> p.group_bits) * LINE + part)
        store(place, load(i32, place) + total)

    @inlined
    def block(p, line, x, column, ahead, totals, opened, held):
        """A block whose first line is at `line`, and whose first column is `column`."""
        sums = registers(i32, fields)
        partial = registers(PARTIAL, fields)
        for start in range(0, MAX_UNIT, unit):
            for part in range(0, LINE, BYTES):
                for field in range(fields):
                    sums[field] = full(i32, 0)
                into = open_sums(sums, partial, fields)
                for i in range(lines):
                    at = line + (start // _DWORD + i) * LINE
                    if part == 0:
                        prefetch(at + ahead)
                    open_fields(load(u8, at + part), opened, held)
                    for field in range(fields):
                        near = x + (column + field * BLOCK_BYTES + start + i * _DWORD)
                        into[field] = dot_lanes(
                            into[field], codes(opened, held, field), columns_of(near)
                        )
                close_sums(sums, partial, fields)
                for field in range(fields):
                    total = value(sums[field], field)
                    add_to(totals, p, column + field * BLOCK_BYTES + start, part, total)

    @inlined
    def tail(p, line, x, column, stride, totals, opened, held):
        """The last, shorter block: four columns at a time, since groups end anywhere in it."""
        sums = registers(i32, fields)
        partial = registers(PARTIAL, fields)
        for i in range(stride >> 2):
            for part in range(0, LINE, BYTES):
                open_fields(load(u8, line + (i * LINE + part)), opened, held)
                for field in range(fields):
                    sums[field] = full(i32, 0)
                into = open_sums(sums, partial, fields)
                for field in range(fields):
                    near = x + (column + field * stride + i * _DWORD)
                    into[field] = dot_lanes(
                        into[field], codes(opened, held, field), columns_of(near)
                    )
                close_sums(sums, partial, fields)
                for field in range(fields):
                    at = column + field * stride + i * _DWORD
                    if at < p.columns:
                        add_to(totals, p, at, part, value(sums[field], field))

    return holds, opens, hold, block, tail


def make_streams(encoding: Blocks, unit: int, streams: int, ahead: int):
    """A function that computes panels [first, last) for one token, as streams of equal length."""
    holds, opens, hold, block, tail = make_blocks(encoding, unit)
    size = encoding.block

    @inlined
    def finish(p, row, totals):
        groups = p.columns >> p.group_bits
        factors = factors_of(p, row)
        result = full(f32, 0.0)
        for group in range(groups):
            total = load(i32x16, totals + group * LINE)
            result = add_group(p, total, scales_of(p, factors, group), 4 * group, result)
        write_rows(p, result, row, 0)

    @inlined
    def together(p, row, step, totals, totals_bytes):
        """The panel of `row`, and those that begin step, 2 * step, ... rows behind."""
        opened = registers(u8, opens)
        held = registers(u8, holds)
        hold(held)
        x = pointer(p.placed)
        whole = p.columns // size
        first = pointer(p.weights) + row * p.stride
        for i in range(0, streams * totals_bytes, LINE):
            for part in range(0, LINE, BYTES):
                store(totals + (i + part), full(i32, 0))
        # Scales are read a panel at a time: they are asked for as the weights of theirs are read.
        factors = factors_of(p, row)
        row_bytes = (step >> 4) * ((p.columns >> p.group_bits) * ROWS * p.scale_step)
        each = (size >> p.group_bits) * ROWS * p.scale_step
        for number in range(whole):
            for stream in range(streams):
                scales = factors + (stream * row_bytes + number * each)
                for at in range(0, each, LINE):
                    prefetch(scales + at)
                line = first + (stream * step * p.stride + number * (ROWS * BLOCK_BYTES))
                own = totals + stream * totals_bytes
                block(p, line, x, number * size, ahead, own, opened, held)
        stride = p.stride - whole * BLOCK_BYTES
        for stream in range(streams):
            own = totals + stream * totals_bytes
            if stride > 0:
                line = first + (stream * step * p.stride + whole * (ROWS * BLOCK_BYTES))
                tail(p, line, x, whole * size, stride, own, opened, held)
            finish(p, row + stream * step, own)

    @inlined
    def all_streams(p, first, last, totals):
        totals_bytes = (p.columns >> p.group_bits) * LINE
        while first < last:
            step = max(1, stream_step(last - first, streams))
            first = min(first, last - step * streams)
            for number in range(first, first + step):
                together(p, number * ROWS, step * ROWS, totals, totals_bytes)
            first += step * streams

    return all_streams


def totals_bytes(encoding: Blocks, columns: int, group: int) -> int:
    """Of scratch for the sums of one token's groups."""
    return encoding.panel_tile.streams * (columns // group) * LINE


@cache
def grouped_gemv(name: str, unit: int) -> RowsKernel:
    """The product with one token. unit: MAX_UNIT, or the columns of a smaller group."""
    encoding = ENCODINGS[name]
    assert isinstance(encoding, Blocks)
    streams, ahead = encoding.panel_tile
    several = make_streams(encoding, unit, streams, ahead)
    single = make_streams(encoding, unit, 1, ahead)

    @inlined
    def gemv(operands, first, last, thread):
        """Rows [first, last) of a product with one token; first is that of a panel."""
        p = record_at(Operands, operands)
        totals = pointer(p.scratch) + thread * p.scratch_stride
        start, end = first >> 4, (last + ROWS - 1) >> 4
        if end - start >= streams:
            several(p, start, end, totals)
        else:
            single(p, start, end, totals)

    return RowsKernel(gemv, f"grouped_gemv_{name}_{unit}")
