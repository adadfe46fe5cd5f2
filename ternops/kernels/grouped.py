"""Products of matrices with a scale a group of columns: what all of them do, and one token's.

Layout: panels of 16 rows (`ternops.encodings.panels`): a line is four columns of each row, so that
lanes are rows. Trick: codes stay where they are in the byte and meet four activations that all
lanes share; the int32 sums of a group are complete, and are turned into floats once a group, in one
chain of fused multiply-adds in the order of the groups. Bound: memory, the bits of a weight.
"""

from functools import cache

import numpy as np

from ternops.encodings import ENCODINGS
from ternops.encodings.blocks import BLOCK_BYTES, Blocks, PanelTile
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
#: Groups that have sums which are not floats yet, at most, a power of two: those of a block.
_SLOTS = 16
#: Blocks that their scales are asked for ahead.
SCALES_AHEAD = 2


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


def make_blocks(encoding: Blocks, unit: int, tile: PanelTile, tokens: int = 1):
    """Functions that add a whole block of each stream's panel, and what is left of their rows, to
    the sums of groups, and these to floats.

    unit: columns whose sums are added up before they go to their group's. Sums lie in memory by
    streams, tokens, and groups, of which the first to come takes the place of the last to go.
    """
    streams, ahead, run = tile
    fields, step = encoding.fields, encoding.step
    apart = fields_apart(encoding, unit)
    unpack = encoding.make_unpack(apart, WIDE)
    holds, opens, hold, open_fields, codes, shift, factor = unpack
    inverse, lines = unpack.last_inverse, unit // _DWORD
    # Where a line is more than a register, or the registers do not hold the sums of all streams,
    # a stream's lines follow one another.
    each = tokens * fields
    if BYTES < LINE or streams == 1 or run > lines:
        run = lines
    apart_by = each if run < lines else 0
    count = each if run == lines else streams * each

    @inlined
    def value(total, field):
        """The sum of a field's values. Exact: each lane is a multiple of what it is divided by."""
        if factor != 0 and field == fields - 1:
            total = total * inverse  # modulo 2**32
        else:
            total = total >> shift * (field % apart)
        return total * step if step > 1 else total

    @inlined
    def add_to(p, totals, number, column, part, total):
        """totals: of a stream; number: the token's."""
        slot = (column >> p.group_bits) & (_SLOTS - 1)
        place = totals + ((number * _SLOTS + slot) * LINE + part)
        store(place, load(i32, place) + total)

    @inlined
    def block(p, line, stream_bytes, x, column, totals, opened, held):
        """A block whose first lines are at `line`, and at stream_bytes, 2 * stream_bytes, ... from
        it, and whose first column is `column`."""
        sums = registers(i32, count)
        partial = registers(PARTIAL, each)
        x_step = p.placed_stride
        for start in range(0, MAX_UNIT, unit):
            for part in range(0, LINE, BYTES):
                for first in range(0, lines, run):
                    for stream in range(streams):
                        here, at = line + stream * stream_bytes, stream * apart_by
                        if first == 0:
                            for i in range(each):
                                sums[at + i] = full(i32, 0)
                        into = open_sums(sums, partial, each)
                        for i in range(first, first + run):
                            place = here + (start // _DWORD + i) * LINE
                            if part == 0:
                                prefetch(place + ahead)
                            open_fields(load(u8, place + part), opened, held)
                            for field in range(fields):
                                code = codes(opened, held, field)
                                near = x + (column + field * BLOCK_BYTES + start + i * _DWORD)
                                for t in range(tokens):
                                    own = at + t * fields + field
                                    into[own] = dot_lanes(
                                        into[own], code, columns_of(near + t * x_step)
                                    )
                        close_sums(sums, partial, each)
                        if first + run == lines:
                            room = totals + stream * tokens * _SLOTS * LINE
                            for t in range(tokens):
                                for field in range(fields):
                                    total = value(sums[at + t * fields + field], field)
                                    own = column + field * BLOCK_BYTES + start
                                    add_to(p, room, t, own, part, total)

    @inlined
    def tail(p, line, x, column, stride, totals, opened, held):
        """The last, shorter block of a stream: four columns at a time, since groups end anywhere
        in it."""
        sums = registers(i32, each)
        partial = registers(PARTIAL, each)
        for i in range(stride >> 2):
            for part in range(0, LINE, BYTES):
                open_fields(load(u8, line + (i * LINE + part)), opened, held)
                for own in range(each):
                    sums[own] = full(i32, 0)
                into = open_sums(sums, partial, each)
                for field in range(fields):
                    code = codes(opened, held, field)
                    near = x + (column + field * stride + i * _DWORD)
                    for t in range(tokens):
                        own = t * fields + field
                        near_t = near + t * p.placed_stride
                        into[own] = dot_lanes(into[own], code, columns_of(near_t))
                close_sums(sums, partial, each)
                for field in range(fields):
                    at = column + field * stride + i * _DWORD
                    if at < p.columns:
                        for t in range(tokens):
                            add_to(p, totals, t, at, part, value(sums[t * fields + field], field))

    @inlined
    def settle(p, factors, first, last, sums_at, totals, floats):
        """Add the sums of groups [first, last) of a stream to its floats, a vector each token.

        sums_at: bytes to the first token's offsets and steps.
        """
        groups = p.columns >> p.group_bits
        for group in range(first, last):
            scales = scales_of(p, factors, group)
            for t in range(tokens):
                place = totals + (t * _SLOTS + (group & (_SLOTS - 1))) * LINE
                total = load(i32x16, place)
                store(place, full(i32x16, 0))
                near = sums_at + 4 * (t * groups + group)
                result = add_group(p, total, scales, near, load(f32, floats + t * LINE))
                store(floats + t * LINE, result)

    return holds, opens, hold, block, tail, settle


def scratch_bytes(streams: int, tokens: int) -> int:
    """Of the sums of some groups of some panels and tokens, and of as many floats."""
    return streams * tokens * (_SLOTS + 1) * LINE


def make_panels(encoding: Blocks, unit: int, tile: PanelTile, tokens: int = 1):
    """A function that computes panels [first, last), of which there are at least as many as
    streams, for the first tokens, as streams of equal length."""
    holds, opens, hold, block, tail, settle = make_blocks(encoding, unit, tile, tokens)
    size, streams = encoding.block, tile.streams
    room = tokens * _SLOTS * LINE

    @inlined
    def together(p, row, step, totals, floats):
        """The panel of `row`, and those that begin step, 2 * step, ... rows behind."""
        opened = registers(u8, opens)
        held = registers(u8, holds)
        hold(held)
        x = pointer(p.placed)
        whole, groups = p.columns // size, p.columns >> p.group_bits
        first = pointer(p.weights) + row * p.stride
        factors, factors_bytes = factors_of(p, row), (step >> 4) * (groups * ROWS * p.scale_step)
        each = (size >> p.group_bits) * ROWS * p.scale_step
        for i in range(streams * tokens):
            store(floats + i * LINE, full(f32, 0.0))
        done = 0
        for number in range(whole):
            for stream in range(streams):
                scales = factors + (stream * factors_bytes + (number + SCALES_AHEAD) * each)
                for at in range(0, each, LINE):
                    prefetch(scales + at)
            line = first + number * (ROWS * BLOCK_BYTES)
            block(p, line, step * p.stride, x, number * size, totals, opened, held)
            complete = (number + 1) * size >> p.group_bits
            for stream in range(streams):
                near, own = factors + stream * factors_bytes, floats + stream * tokens * LINE
                settle(p, near, done, complete, 0, totals + stream * room, own)
            done = complete
        stride = p.stride - whole * BLOCK_BYTES
        for stream in range(streams):
            own = floats + stream * tokens * LINE
            if stride > 0:
                line = first + (stream * step * p.stride + whole * (ROWS * BLOCK_BYTES))
                tail(p, line, x, whole * size, stride, totals + stream * room, opened, held)
                near = factors + stream * factors_bytes
                settle(p, near, done, groups, 0, totals + stream * room, own)
            for t in range(tokens):
                write_rows(p, load(f32, own + t * LINE), row + stream * step, t)

    @inlined
    def panels(p, first, last, totals):
        floats = totals + streams * room
        for at in range(0, streams * room, BYTES):
            store(totals + at, full(i32, 0))
        while first < last:
            step = max(1, stream_step(last - first, streams))
            first = min(first, last - step * streams)
            for number in range(first, first + step):
                together(p, number * ROWS, step * ROWS, totals, floats)
            first += step * streams

    return panels


@cache
def grouped_gemv(name: str, unit: int) -> RowsKernel:
    """The product with one token. unit: MAX_UNIT, or the columns of a smaller group."""
    encoding = ENCODINGS[name]
    assert isinstance(encoding, Blocks)
    streams = encoding.panel_tile.streams
    several = make_panels(encoding, unit, encoding.panel_tile)
    single = make_panels(encoding, unit, encoding.panel_tile._replace(streams=1))

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
