"""Products of many tokens with matrices that have a scale a group of columns, on AMX.

Layout: tokens in tiles of 16, each 64 columns of them a kilobyte; the levels of three panels, a
byte each, in kilobytes of 64 columns too. Trick: levels are signed, so that no sum has an offset;
while a
group's products are made, the sums of the group before it leave the tile registers one by one, and
those of the group before that become floats, some behind each product.
Bound: AMX's product of two tiles; making floats takes three vector instructions for 16 sums, which
are as many a tile as there are cycles in its products where groups have 64 columns.
"""

from functools import cache

import numpy as np

from ternops.encodings.blocks import BLOCK_BYTES
from ternops.encodings.panels import LINE, ROWS, Panels
from ternops.isa import (
    i8,
    tile_dot_signed,
    tile_load_once,
    tile_store,
    tile_zero,
)
from ternops.kernels.amx import SIDE, close_tiles, open_tiles
from ternops.kernels.elementwise import copy_row, quantize_row
from ternops.kernels.grouped import factors_of, panels_of, scales_of, write_rows
from ternops.kernels.grouped_gemm import make_decode
from ternops.kernels.operands import Operands, write_scaled
from ternops.simd import (
    RowsKernel,
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
)

_DWORD = 4
_TILE = SIDE * LINE
#: Panels and tokens whose sums are in tile registers at once: six of them, which leaves one for
#: activations and one for trits.
PANELS, TOKENS = 3, 2 * SIDE
_SUMS = PANELS * TOKENS * LINE
#: Columns: a last block may write behind those of a row, and some are kept in any case.
_SLACK = 16 * BLOCK_BYTES
#: Of columns, for whole operands; and tokens, of which half a tile is worth it: on an Intel server
#: 16 tokens take two_bit 864 us, base3 741, where `grouped_few` takes 804 and 956 us for 8.
MIN_GROUP, MIN_TOKENS = 64, 8
#: Columns that are treated as a group where all of a row share a scale.
_WHOLE_GROUP = 256
#: Before the floats the configuration; behind them the sums of two groups.
_ROOM = LINE + 3 * _SUMS


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()


def placed_bytes(columns: int, group: int) -> int:
    """Of a token, at least."""
    return columns if group else -(-columns // _WHOLE_GROUP) * _WHOLE_GROUP


def scratch_bytes(columns: int, group: int) -> int:
    """Of a thread: with the scales of the panels, and their levels."""
    groups = columns // group if group else 0
    return _ROOM + PANELS * LINE * groups + PANELS * ROWS * (columns + _SLACK)


@inlined
def _steps_of(p, token):
    """Where the steps of a token's groups are, a line apart: 16 tokens share lines."""
    groups = max(1, p.columns >> p.group_bits)
    return pointer(p.steps) + (token // SIDE * groups * LINE + token % SIDE * _DWORD)


@RowsKernel
def place_group_tiles(operands, first, last, thread):
    """Quantise tokens [first, last), and place them by tiles, with the steps of their groups."""
    p = record_at(Operands, operands)
    size = min(p.columns, 1 << p.group_bits)
    groups = max(1, p.columns >> p.group_bits)
    width = p.columns
    if p.columns >> p.group_bits == 0:  # where all share a scale there may be any number
        width = (p.columns + _WHOLE_GROUP - 1) & -_WHOLE_GROUP
    row = pointer(p.scratch) + thread * p.scratch_stride
    for token in range(first, last):
        x, steps = pointer(p.x) + 4 * token * p.columns, _steps_of(p, token)
        if p.is_float and p.is_blocked:
            for group in range(groups):
                at = group * size
                step, _ = quantize_row(x + 4 * at, size, p.floor, row + at)
                store(steps + group * LINE, step)
        else:
            step = np.float32(1)
            if p.is_float:
                step, _ = quantize_row(x, p.columns, p.floor, row)
            else:
                copy_row(pointer(p.x) + token * p.columns, p.columns, row)
            for group in range(groups):
                store(steps + group * LINE, step)
        for at in range(p.columns, width):
            store(row + at, np.int8(0))
        target = pointer(p.placed) + (token // SIDE * SIDE * p.placed_stride + token % SIDE * LINE)
        for line in range(width // LINE):
            store(target + line * _TILE, load(i8, row + line * LINE))
        if token == p.tokens - 1:  # those that fill up its tiles: what becomes of them is not kept
            for other in range(token + 1, (token // TOKENS + 1) * TOKENS):
                for group in range(groups):
                    store(_steps_of(p, other) + group * LINE, np.float32(0))


def make_place(kept: int):
    """A function that tells where the trits of four columns are, in those of the first of PANELS
    panels, of which as many tiles are kept, a power of two."""

    @inlined
    def place_of(at):
        return (at // SIDE & (kept - 1)) * (PANELS * _TILE) + at % SIDE * LINE

    return place_of


def make_product(tile: int):
    """A function that multiplies the activations in tile 6 with trits, into a tile of sums."""

    @inlined
    def product(trits, is_start, is_first, after):
        """is_start: the first product of a group, whose tile's sums go to `after`, unless it is
        the first group as well."""
        tile_load_once(7, trits, LINE)
        if is_start:
            if not is_first:
                tile_store(tile, after + tile * _TILE, LINE)
            tile_zero(tile)
        tile_dot_signed(tile, 6, 7)

    return product


_product0, _product1, _product2, _product3, _product4, _product5 = map(make_product, range(6))


@inlined
def _store_sums(after, down):
    """The sums of the last group."""
    tile_store(0, after, LINE)
    tile_store(1, after + _TILE, LINE)
    tile_store(2, after + 2 * _TILE, LINE)
    if down == 2:
        tile_store(3, after + 3 * _TILE, LINE)
        tile_store(4, after + 4 * _TILE, LINE)
        tile_store(5, after + 5 * _TILE, LINE)


def make_tiled(encoding: Panels, group: int, down: int, is_once: bool):
    """A function for PANELS panels times up to `down` tiles of tokens, one or two.

    group: 0 if all columns share a scale: int32 sums take the place of floats. is_once: it unpacks
    levels where they are needed, to the first-level cache; else they are there.
    """
    is_whole, group = group == 0, group or _WHOLE_GROUP
    size = encoding.block
    # Of a block, and of a group that began in the one before.
    kept = _power_of_two(size // LINE + (0 if size % group == 0 else group // LINE - 1))
    decode = make_decode(encoding, make_place(kept), is_signed=True, ahead=PANELS)
    lines = group // BLOCK_BYTES
    tokens, products = down * SIDE, down * PANELS

    @inlined
    def fold(first, last, scales, sums, steps, far, floats):
        """Add the sums of a group to the floats of tokens [first, last).

        steps: of the group; far: bytes from those of a tile of tokens to those of the next.
        """
        result = registers(f32, PANELS)
        for t in range(first, last):
            step = full(f32, 0.0)
            if not is_whole:
                step = full(f32, load(np.float32, steps + (t // SIDE * far + t % SIDE * _DWORD)))
            for k in range(PANELS):
                own = (t // SIDE * PANELS + k) * _TILE + t % SIDE * LINE
                total, place = load(i32x16, sums + own), floats + (t * PANELS + k) * LINE
                if is_whole:
                    store(place, load(i32x16, place) + total)
                else:
                    result[k] = fma(convert(f32, total), scales[k] * step, load(f32, place))
            for k in range(0 if is_whole else PANELS):  # behind all loads, or each would load steps
                store(floats + (t * PANELS + k) * LINE, result[k])

    @inlined
    def beside(number, is_busy, scales, sums, steps, far, floats):
        """The tokens whose floats are made beside product `number` of a group."""
        if is_busy:
            count = products * lines
            first, last = tokens * number // count, tokens * (number + 1) // count
            fold(first, last, scales, sums, steps, far, floats)

    @inlined
    def unit(
        x, x_tile, trits, is_first, is_busy, scales, after, before, steps, far, floats
    ):  # fmt: skip
        """The products of a group; beside them the sums of the group before it go to `after`, and,
        if it is busy, those at `before` to floats."""
        for i in range(lines):
            here, line = x + i * _TILE, trits + i * PANELS * _TILE
            second, third = line + _TILE, line + 2 * _TILE
            n = i * products
            tile_load_once(6, here, LINE)
            _product0(line, i == 0, is_first, after)
            beside(n, is_busy, scales, before, steps, far, floats)
            _product1(second, i == 0, is_first, after)
            beside(n + 1, is_busy, scales, before, steps, far, floats)
            _product2(third, i == 0, is_first, after)
            beside(n + 2, is_busy, scales, before, steps, far, floats)
            if down == 2:
                tile_load_once(6, here + x_tile, LINE)
                _product5(third, i == 0, is_first, after)
                beside(n + 3, is_busy, scales, before, steps, far, floats)
                _product4(second, i == 0, is_first, after)
                beside(n + 4, is_busy, scales, before, steps, far, floats)
                _product3(line, i == 0, is_first, after)
                beside(n + 5, is_busy, scales, before, steps, far, floats)

    @inlined
    def write(p, panel, end, token, count, floats):
        for k in range(min(PANELS, end - panel)):
            row = (panel + k) * ROWS
            for t in range(count):
                place = floats + (t * PANELS + k) * LINE
                if is_whole:
                    write_scaled(p, load(i32x16, place), row, token + t, min(ROWS, p.rows - row))
                    continue
                result = load(f32, place)
                if row + ROWS <= p.rows:
                    store(pointer(p.out) + 4 * ((token + t) * p.out_stride + row), result)
                else:
                    write_rows(p, result, row, token + t)

    @inlined
    def tiled(p, panel, end, factors, trits, token, count, spare):
        floats, sums, before = spare, spare + _SUMS, spare + 2 * _SUMS
        scales = registers(f32, PANELS)
        groups = (p.columns + group - 1) // group
        x, x_tile = pointer(p.placed) + token * p.placed_stride, SIDE * p.placed_stride
        steps, far = _steps_of(p, token), groups * LINE
        for i in range(tokens * PANELS):
            store(floats + i * LINE, full(f32, 0.0))
        # Where results will be written is asked for, some tokens' in each turn.
        place = pointer(p.out) + 4 * (token * p.out_stride + panel * ROWS)
        asked = (count + groups - 1) // groups
        block = 0  # the next one to be unpacked
        for number in range(groups + 2):
            here, line = x + number * lines * _TILE, trits + number * lines * (PANELS * _TILE)
            if is_once:
                line = trits + (number * lines & (kept - 1)) * (PANELS * _TILE)
                while block * size < min(min(groups, number + 1) * group, p.columns):
                    for k in range(PANELS):
                        decode(p, min(panel + k, end - 1), block, block + 1, trits + k * _TILE)
                    block += 1
            ready = number - 2  # the group whose sums are in memory
            for k in range(0 if is_whole else PANELS):
                scales[k] = load(f32, factors + (max(0, ready) * PANELS + k) * LINE)
            own = steps + ready * LINE
            if number == 0:
                unit(here, x_tile, line, True, False, scales, sums, before, own, far, floats)
            elif number < groups and ready < 0:
                unit(here, x_tile, line, False, False, scales, sums, before, own, far, floats)
            elif number < groups:
                for t in range(ready * asked, min(count, ready * asked + asked)):
                    for k in range(PANELS):
                        prefetch(place + (4 * p.out_stride * t + k * LINE))
                unit(here, x_tile, line, False, True, scales, sums, before, own, far, floats)
            else:
                if number == groups:
                    _store_sums(sums, down)
                if ready >= 0:
                    fold(0, tokens, scales, before, own, far, floats)
            sums, before = before, sums
        write(p, panel, end, token, count, floats)

    return tiled


def make_gemm(encoding: Panels, group: int):
    """The product with several tokens."""
    size = encoding.block
    decode = make_decode(encoding, make_place(1 << 32), is_signed=True)
    pair = make_tiled(encoding, group, 2, is_once=False)
    pair_once, single_once = (make_tiled(encoding, group, n, is_once=True) for n in (2, 1))

    @inlined
    def gemm(operands, first, last, thread):
        """Rows [first, last) of a product; first is that of a panel."""
        p = record_at(Operands, operands)
        spare = pointer(p.scratch) + thread * p.scratch_stride
        open_tiles(spare)
        groups = p.columns >> p.group_bits
        factors = spare + _ROOM
        trits = factors + groups * (PANELS * LINE)
        end = (last + ROWS - 1) >> 4
        step = max(1, min(p.tokens, p.token_block))
        for number in range((p.tokens + step - 1) // step):
            start, stop = number * step, min(p.tokens, number * step + step)
            for panel in range(first >> 4, end, PANELS):
                for k in range(PANELS):  # the last one again, where there is no other
                    own = min(panel + k, end - 1)
                    scales = factors_of(p, own * ROWS)
                    for g in range(groups):
                        store(factors + (g * PANELS + k) * LINE, scales_of(p, scales, g))
                count = stop - start
                if count <= SIDE:
                    single_once(p, panel, end, factors, trits, start, count, spare + LINE)
                elif count <= TOKENS:
                    pair_once(p, panel, end, factors, trits, start, count, spare + LINE)
                else:
                    for k in range(PANELS):
                        own = min(panel + k, end - 1)
                        decode(p, own, 0, p.columns // size + 1, trits + k * _TILE)
                    for token in range(start, stop, TOKENS):
                        count = min(TOKENS, stop - token)
                        pair(p, panel, end, factors, trits, token, count, spare + LINE)
        close_tiles()

    return gemm


@cache
def grouped_tiles(name: str, group: int) -> RowsKernel:
    """The product with many tokens, for groups of 64 columns and more, and for whole rows (0)."""
    return RowsKernel(make_gemm(panels_of(name, False), group), f"grouped_tiles_{name}_{group}")
