"""Products of matrices with a scale a group of columns: what all of them do, and one token's.

Layout: panels of 16 rows (`ternops.encodings.panels`): a line is four columns of each row, so that
lanes are rows. Trick: codes stay where they are in the byte and meet four activations that all
lanes share; the int32 sums of a group are complete, and are turned into floats once a group, in one
chain of fused multiply-adds in the order of the groups. Bound: memory, the bits of a weight.
"""

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from ternops.encodings import PANELS
from ternops.encodings.blocks import BLOCK_BYTES, PanelTile
from ternops.encodings.panels import LINE, ROWS, Panels
from ternops.isa import (
    BYTES,
    LANES,
    PARTIAL,
    TIER,
    WIDE,
    close_sums,
    dot_lanes,
    dot_levels,
    i8,
    i32,
    load_fp16,
    open_sums,
    u8,
)
from ternops.isa.detect import FAMILY
from ternops.kernels.elementwise import copy_row, quantize_row
from ternops.kernels.operands import Operands, finish
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
#: Blocks that their scales are asked for ahead, at least.
SCALES_AHEAD = 2


@RowsKernel
def place_groups(operands, first, last, thread):
    """Quantise tokens [first, last), each in its natural order, with the sums of its groups."""
    p = record_at(Operands, operands)
    groups = max(1, p.columns >> p.group_bits)
    size = min(p.columns, 1 << p.group_bits)
    for token in range(first, last):
        placed = pointer(p.placed) + token * p.placed_stride
        x = pointer(p.x) + 4 * token * p.columns
        step = np.float32(1)
        if p.is_float and not p.is_blocked:
            step, _ = quantize_row(x, p.columns, p.floor, placed)
        for group in range(groups):
            at = group * size
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
    total = (total << p.shift) - load(np.int32, pointer(p.offsets) + sums_at)
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


@inlined
def write_sums(p, totals, row, token):
    """The results of a panel's rows from int32 sums, where all columns share a scale."""
    for part in range(0, LINE, BYTES):
        first = row + part // _DWORD
        if first < p.rows:
            total = load(i32, totals + part)
            finish(p, total, first, token, min(LANES, p.rows - first))


class Dots(NamedTuple):
    """How the sums of an encoding add up: as `open_sums`, `close_sums` and `dot_lanes` do, or, of
    levels, in int32. most: columns of a lane that may pass between the first two."""

    partial: Any
    open: Any
    close: Any
    dot: Any
    most: int


@inlined
def _as_they_are(sums, partial, count):
    return sums


@inlined
def _nothing(sums, partial, count):
    pass


def dots_of(encoding: Panels) -> Dots:
    """Those of codes, or of levels."""
    if encoding.has_levels:
        return Dots(i32, _as_they_are, _nothing, dot_levels, 1 << 30)
    most = 1 << 30 if TIER.close is None else _MAX_PARTIAL // encoding.greatest * _DWORD
    return Dots(PARTIAL, open_sums, close_sums, dot_lanes, most)


def make_open_line(planes: int, open_fields: Any):
    """A function that prepares the bytes of some columns, a vector of each plane's line."""

    @inlined
    def open_line(line, part, opened, held):
        for plane in range(planes):
            opened[plane] = load(u8, line + (plane * LINE + part))
        open_fields(opened, held)

    return open_line


def make_tail_stride(encoding: Panels):
    """A function that gives the stride of a row's last, shorter block, which comes after `whole`
    others; 0 if there is none."""
    planes, block_bytes = encoding.planes, encoding.block_bytes

    @inlined
    def tail_stride(p, whole):
        return (p.stride - whole * block_bytes) // planes

    return tail_stride


def panel_tile(encoding: Panels, family: str = FAMILY) -> PanelTile:
    """That of an encoding here, or for another family of CPUs."""
    return TIER.pick(encoding.panel_tiles, family)


def fields_apart(encoding: Panels, unit: int) -> int:
    """How many of a byte's fields the sums of a unit have room for where they are in the byte."""
    most = TIER.pick(encoding.apart)
    if TIER.close is None or most == 1:
        return most
    bits = encoding.make_unpack(1, WIDE).shift
    codes = unit // _DWORD * encoding.greatest
    return max(n for n in range(1, most + 1) if codes << bits * (n - 1) <= _MAX_PARTIAL)


def slots_of(encoding: Panels, unit: int) -> int:
    """Groups that have sums which are not floats yet, at most, a power of two: those of a block,
    and one that began before it, as blocks of no power of two have."""
    groups = encoding.block // unit + (encoding.block & (encoding.block - 1) != 0)
    return 1 << (groups - 1).bit_length()


def make_blocks(encoding: Panels, unit: int, tile: PanelTile, tokens: int = 1):
    """Functions that add a whole block of each stream's panel, and what is left of their rows, to
    the sums of groups, and these to floats.

    unit: columns whose sums are added up before they go to their group's. Sums lie in memory by
    streams, tokens, and groups, of which the first to come takes the place of the last to go.
    """
    streams, ahead, run = tile
    fields, planes, slots = encoding.fields, encoding.planes, slots_of(encoding, unit)
    apart = fields_apart(encoding, unit)
    unpack = encoding.make_unpack(apart, WIDE)
    holds, opens, hold, _, codes, shift, factor = unpack
    open_line = make_open_line(planes, unpack.open)
    inverse, lines = unpack.last_inverse, unit // _DWORD
    kind, open_dots, close_dots, dot, _ = dots_of(encoding)
    # Where a line is more than a register, or the registers do not hold the sums of all streams,
    # a stream's lines follow one another, but for tables, with which the loop would be too long.
    each = tokens * fields
    if (BYTES < LINE and not encoding.is_table) or streams == 1 or run > lines:
        run = lines
    apart_by = each if run < lines else 0
    count = each if run == lines else streams * each

    @inlined
    def value(total, field):
        """The sum of a field's codes. Exact: each lane is a multiple of what it is divided by."""
        if factor != 0 and field == fields - 1:
            return total * inverse  # modulo 2**32
        return total >> shift * (field % apart)

    @inlined
    def add_to(p, totals, number, column, part, total):
        """totals: of a stream; number: the token's."""
        slot = (column >> p.group_bits) & (slots - 1)
        place = totals + ((number * slots + slot) * LINE + part)
        store(place, load(i32, place) + total)

    @inlined
    def block(p, line, stream_bytes, x, column, totals, opened, held):
        """A block whose first lines are at `line`, and at stream_bytes, 2 * stream_bytes, ... from
        it, and whose first column is `column`."""
        sums = registers(i32, count)
        partial = registers(kind, each)
        x_step = p.placed_stride
        for start in range(0, BLOCK_BYTES, unit):
            for part in range(0, LINE, BYTES):
                for first in range(0, lines, run):
                    for stream in range(streams):
                        here, at = line + stream * stream_bytes, stream * apart_by
                        if first == 0:
                            for i in range(each):
                                sums[at + i] = full(i32, 0)
                        into = open_dots(sums, partial, each)
                        for i in range(first, first + run):
                            place = here + (start // _DWORD + i) * (planes * LINE)
                            if part == 0:
                                for plane in range(planes):
                                    prefetch(place + (plane * LINE + ahead))
                            open_line(place, part, opened, held)
                            for field in range(fields):
                                code = codes(opened, held, field)
                                near = x + (column + field * BLOCK_BYTES + start + i * _DWORD)
                                for t in range(tokens):
                                    own = at + t * fields + field
                                    into[own] = dot(into[own], code, columns_of(near + t * x_step))
                        close_dots(sums, partial, each)
                        if first + run == lines:
                            room = totals + stream * tokens * slots * LINE
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
        partial = registers(kind, each)
        for i in range(stride >> 2):
            for part in range(0, LINE, BYTES):
                open_line(line + i * (planes * LINE), part, opened, held)
                for own in range(each):
                    sums[own] = full(i32, 0)
                into = open_dots(sums, partial, each)
                for field in range(fields):
                    code = codes(opened, held, field)
                    near = x + (column + field * stride + i * _DWORD)
                    for t in range(tokens):
                        own = t * fields + field
                        into[own] = dot(into[own], code, columns_of(near + t * p.placed_stride))
                close_dots(sums, partial, each)
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
                place = totals + (t * slots + (group & (slots - 1))) * LINE
                total = load(i32x16, place)
                store(place, full(i32x16, 0))
                near = sums_at + 4 * (t * groups + group)
                result = add_group(p, total, scales, near, load(f32, floats + t * LINE))
                store(floats + t * LINE, result)

    return holds, opens, hold, block, tail, settle


def scratch_bytes(encoding: Panels, unit: int, streams: int, tokens: int) -> int:
    """Of the sums of some groups of some panels and tokens, and of as many floats."""
    return streams * tokens * (slots_of(encoding, unit) + 1) * LINE


@inlined
def write_result(p, totals, floats, row, token):
    """The results of a panel's rows for a token: its floats, or, where all columns share a scale,
    its sums, which are cleared."""
    if p.columns >> p.group_bits == 0:
        write_sums(p, totals, row, token)
        store(totals, full(i32x16, 0))
    else:
        write_rows(p, load(f32, floats), row, token)


def make_panels(encoding: Panels, unit: int, tile: PanelTile, tokens: int = 1):
    """A function that computes panels [first, last), of which there are at least as many as
    streams, for the first tokens, as streams of equal length."""
    holds, opens, hold, block, tail, settle = make_blocks(encoding, unit, tile, tokens)
    size, streams, slots = encoding.block, tile.streams, slots_of(encoding, unit)
    block_bytes = encoding.block_bytes
    tail_stride = make_tail_stride(encoding)
    room = tokens * slots * LINE
    # As early as the weights: Zen 4, nibble, groups of 32, 2 threads, 82 to 90% of the fastest
    # probe, with two blocks 77 to 81%.
    soon = max(SCALES_AHEAD, tile.ahead // (ROWS * block_bytes))

    @inlined
    def together(p, row, step, totals, floats):
        """The panel of `row`, and those that begin step, 2 * step, ... rows behind."""
        opened = registers(u8, opens)
        held = registers(u8, holds)
        hold(held, p.levels)
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
                scales = factors + (stream * factors_bytes + (number + soon) * each)
                for at in range(0, each, LINE):
                    prefetch(scales + at)
            line = first + number * (ROWS * block_bytes)
            block(p, line, step * p.stride, x, number * size, totals, opened, held)
            complete = (number + 1) * size >> p.group_bits
            for stream in range(streams):
                near, own = factors + stream * factors_bytes, floats + stream * tokens * LINE
                settle(p, near, done, complete, 0, totals + stream * room, own)
            done = complete
        stride = tail_stride(p, whole)
        for stream in range(streams):
            own, sums = floats + stream * tokens * LINE, totals + stream * room
            if stride > 0:
                line = first + (stream * step * p.stride + whole * (ROWS * block_bytes))
                tail(p, line, x, whole * size, stride, sums, opened, held)
                near = factors + stream * factors_bytes
                settle(p, near, done, groups, 0, sums, own)
            for t in range(tokens):
                write_result(p, sums + t * slots * LINE, own + t * LINE, row + stream * step, t)

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


def panels_of(name: str, is_wide: bool) -> Panels:
    """The record of an encoding; is_wide: with room for all the levels that a matrix may have."""
    return PANELS[name].widened if is_wide else PANELS[name]


def kernel_name(kind: str, name: str, is_wide: bool, *rest: Any) -> str:
    """What a kernel of panels is found by."""
    return "_".join(map(str, (kind, name, *(("wide",) if is_wide else ()), *rest)))


@cache
def grouped_gemv(name: str, unit: int, is_wide: bool = False, family: str = FAMILY) -> RowsKernel:
    """The product with one token. unit: MAX_UNIT, or the columns of a smaller group. family: of
    CPUs whose tile it has, which is in its name if it is not the tier's own."""
    encoding = panels_of(name, is_wide)
    tile = panel_tile(encoding, family)
    streams, others = tile.streams, () if tile == panel_tile(encoding, "") else (tile,)
    several = make_panels(encoding, unit, tile)
    single = make_panels(encoding, unit, tile._replace(streams=1))

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

    return RowsKernel(gemv, kernel_name("grouped_gemv", name, is_wide, unit, *others))
