"""Products with many tokens, on block encodings: int8 activations, exact int32 sums.

Layout: a panel of rows is decoded once into bytes, a code each (four with AMX), as long as the
second-level cache holds it, and used for every token. Trick: rows x tokens of the product stay in
registers; each line of codes is loaded once for all tokens of a tile, and each line of activations
for all rows.
Where the dot takes pairs, a line has half as many columns of two rows, or of two tokens.
Bound: the dot instruction, or AMX's product of two tiles.
"""

from functools import cache
from math import gcd
from typing import Any

from ternops.encodings import ENCODINGS
from ternops.encodings.blocks import BLOCK_BYTES
from ternops.encodings.encoding import Encoding
from ternops.encodings.row_groups import ROWS as GROUP
from ternops.encodings.row_groups import RowGroups
from ternops.isa import (
    BYTES,
    HAS_TILES,
    LANES,
    PAIRED,
    PARTIAL,
    TIER,
    WIDE,
    close_sums,
    dot_lines,
    i8,
    i32,
    open_sums,
    u8,
)
from ternops.isa.tier import GemmTile
from ternops.kernels.amx import (
    FIELDS,
    close_tiles,
    make_store_packed,
    make_tiled,
    open_tiles,
    packed_bytes,
)
from ternops.kernels.operands import Operands, finish
from ternops.kernels.tiles import kernel_name
from ternops.simd import (
    RowsKernel,
    concatenate,
    full,
    i32x16,
    inlined,
    load,
    load_first,
    pointer,
    prefetch,
    record_at,
    registers,
    store,
    store_first,
    sum_lanes,
    take,
    transpose,
)

#: Codes of at most 2 can be added up over this many lines between `open_sums` and `close_sums`.
_LINES_OPEN = 64 * BYTES // BLOCK_BYTES
_HALF = BYTES // 2
#: Rows that are turned from lanes into lines, and bytes of these.
_SQUARE, _LINE = 16, 64


def _stride(tile: GemmTile) -> int:
    """Bytes from row to row of a panel: a multiple of 4 KB would have all of them compete for the
    same few places of the first-level cache."""
    return tile.depth + BLOCK_BYTES


def panel_bytes(tile: GemmTile) -> int:
    """Of a thread's panel."""
    return packed_bytes(tile) if HAS_TILES else tile.panel_rows * _stride(tile)


def _height(tile: GemmTile) -> int:
    """Rows whose sums are complete at the same time."""
    return max(tile.rows, LANES)


@inlined
def add_sums(p, total, row, token, count, depth, is_last):
    """Add the sums of one panel to those of the panels before, which wait in `out` as int32."""
    place = pointer(p.out) + 4 * (token * p.out_stride + row)
    if depth > 0:
        total = total + load_first(i32, place, count)
    if is_last:
        finish(p, total, row, token, count)
    else:
        store_first(place, total, count)


def _make_store_codes(tile):
    """A function that writes the codes of BYTES columns from `column` on to a panel's row."""
    if HAS_TILES:
        return make_store_packed(tile)
    stride = _stride(tile)

    @inlined
    def single(panel, row, column, codes):
        store(panel + (row * stride + column), codes)

    @inlined
    def paired(panel, row, column, codes):
        place = panel + (row // 2 * 2 * stride + row % 2 * _HALF + 2 * column)
        store(place, take(codes, 0, _HALF, 1))
        store(place + BYTES, take(codes, _HALF, _HALF, 1))

    return paired if PAIRED == 2 else single


def _make_total(height):
    """A function that gives the sums of LANES rows from `row` on, one of `height`, and a token."""

    @inlined
    def single(row_sums, row, token):
        return sum_lanes(row_sums, token * height + row)

    @inlined
    def paired(row_sums, row, token):
        at = (token // 2 * height + row) // 2
        both = concatenate(row_sums[at], row_sums[at + 1])
        return take(both, 1, LANES, 2) if token % 2 else take(both, 0, LANES, 2)

    return paired if PAIRED == 2 else single


def make_decode(encoding, tile):
    """A function that writes the codes of rows [row, row + n), blocks [first, last), to a panel."""
    fields, panel_rows, store_codes = encoding.fields, tile.panel_rows, _make_store_codes(tile)
    # Blocks after which codes share a line in the same way again: known where they are compiled.
    together = FIELDS // gcd(fields, FIELDS) if HAS_TILES else 1
    holds, opens, hold, open_fields, codes, _, _ = encoding.make_unpack(1, WIDE)

    @inlined
    def decode_block(p, line, block, panel, row, opened, held):
        for part in range(0, BLOCK_BYTES, BYTES):
            if not HAS_TILES:  # which have time for it between products
                # The same row of the next panel: this thread decodes it next.
                prefetch(line + (part + panel_rows * p.stride))
            opened[0] = load(u8, line + part)
            open_fields(opened, held)
            for field in range(fields):
                column = (block * fields + field) * BLOCK_BYTES + part
                store_codes(panel, row, column, codes(opened, held, field))

    @inlined
    def decode(p, row, n, first, last, panel):
        opened = registers(u8, opens)
        held = registers(u8, holds)
        hold(held, p.levels)
        count = last - first
        whole = count // together * together
        for r in range(n):
            weights = pointer(p.weights) + ((row + r) * p.stride + first * BLOCK_BYTES)
            for group in range(0, whole, together):
                for i in range(together):
                    block = group + i
                    decode_block(p, weights + block * BLOCK_BYTES, block, panel, r, opened, held)
            for block in range(whole, count):
                decode_block(p, weights + block * BLOCK_BYTES, block, panel, r, opened, held)

    return decode


def make_decode_groups(encoding, tile):
    """As `make_decode`, for row groups: 16 rows at a time, which tiles have side by side."""
    columns, size, vectors = encoding.columns, encoding.block, encoding.fields
    tiles_in, packed_lines = size // columns, encoding.lines
    unpack_tile, dwords = encoding.kernel_code.unpack_tile, columns // 4
    size_of_panel, store_codes = panel_bytes(tile), _make_store_codes(tile)

    @inlined
    def decode(p, row, n, first, last, panel):
        spare = panel + size_of_panel
        square = registers(i32x16, _SQUARE)
        tiles = (p.columns + columns - 1) // columns
        for top in range(0, n, _SQUARE):
            group = (row + top) // GROUP * GROUP
            width = min(GROUP, p.rows - group)
            weights = pointer(p.weights) + (group * tiles * packed_lines + row + top - group)
            for block in range(first, last):
                for t in range(tiles_in):
                    tile, target = block * tiles_in + t, spare + t * dwords * _LINE
                    if tile < tiles:
                        unpack_tile(weights + tile * packed_lines * width, width, target)
                    else:
                        for i in range(dwords):
                            store(target + i * _LINE, full(i32x16, 0))
                for v in range(vectors):
                    lanes = spare + v * _SQUARE * _LINE
                    for i in range(_SQUARE):
                        square[i] = load(i32x16, lanes + i * _LINE)
                    transpose(square)
                    for i in range(_SQUARE):
                        store(lanes + i * _LINE, square[i])
                    column = ((block - first) * vectors + v) * _LINE
                    for i in range(_SQUARE):
                        for part in range(0, _LINE, BYTES):
                            codes = load(u8, lanes + (i * _LINE + part))
                            store_codes(panel, top + i, column + part, codes)

    return decode


def make_panel(tile, add_up):
    """A function that multiplies a panel with all tokens by the dot instruction."""
    rows, tokens, stride, rows_together = tile.rows, tile.tokens, _stride(tile), _height(tile)
    total_of = _make_total(rows_together)
    down, across = rows // PAIRED, tokens // PAIRED
    count = down * across
    height = rows_together // PAIRED
    most_sums = height * across

    @inlined
    def product(panel, x, x_step, lines, row_sums, at):
        """`rows` rows from `panel` on times `tokens` tokens, into row_sums[at + r + height * t]."""
        sums = registers(i32, count)
        partial = registers(PARTIAL, count)
        for i in range(count):
            sums[i] = full(i32, 0)
        for start in range(0, lines, _LINES_OPEN):
            into = open_sums(sums, partial, count)
            for line in range(start, min(lines, start + _LINES_OPEN)):
                for part in range(0, PAIRED * BLOCK_BYTES, BYTES):
                    offset = line * PAIRED * BLOCK_BYTES + part
                    for t in range(across):
                        activations = load(i8, x + (t * PAIRED * x_step + offset))
                        for r in range(down):
                            code = load(u8, panel + (r * PAIRED * stride + offset))
                            i = r * across + t
                            into[i] = dot_lines(into[i], code, activations)
            close_sums(sums, partial, count)
        for t in range(across):
            for r in range(down):
                row_sums[at + r + height * t] = sums[r * across + t]

    @inlined
    def multiply(p, panel, spare, row, n, first, end, depth, lines, is_last):
        """Rows [row, row + n) and tokens [first, end), from column `depth` on.

        All of the panel's rows are computed.
        """
        row_sums = registers(i32, most_sums)
        x_step = p.placed_stride
        for token in range(first, end, tokens):
            x = pointer(p.placed) + (token * x_step + depth * PAIRED)
            for group in range(0, n, rows_together):
                for r in range(0, rows_together, rows):
                    codes = panel + (group + r) * stride
                    product(codes, x, x_step, lines, row_sums, r // PAIRED)
                for t in range(min(tokens, end - token)):
                    for r in range(0, min(rows_together, n - group), LANES):
                        at, left = row + group + r, min(LANES, n - group - r)
                        add_up(p, total_of(row_sums, r, t), at, token + t, left, depth, is_last)

    return multiply


@cache
def make_multiply(tile, add_up=add_sums):
    """What multiplies a panel with a block of tokens: the same for all encodings."""
    return make_tiled(tile, add_up) if HAS_TILES else make_panel(tile, add_up)


def make_gemm(encoding, tile, decode, multiply):
    """The product with many tokens, of what unpacks a panel and what multiplies it."""
    fields, block_size, panel_rows = encoding.fields, encoding.block, tile.panel_rows
    most_blocks, size_of_panel = tile.depth // block_size, panel_bytes(tile)

    @inlined
    def gemm(operands, first, last, thread):
        """Rows [first, last) of a product with many tokens."""
        p = record_at(Operands, operands)
        panel = pointer(p.scratch) + thread * p.scratch_stride
        spare = panel + size_of_panel
        if HAS_TILES:
            open_tiles(spare)
        blocks = (p.columns + block_size - 1) // block_size
        # Panels of equal depth: each costs a pass over the product's sums. At least an empty one.
        panels = max(1, (blocks + most_blocks - 1) // most_blocks)
        step = max(1, min(p.tokens, p.token_block))
        for number in range((p.tokens + step - 1) // step):
            token = number * step
            tokens_end = min(p.tokens, token + step)
            for row in range(first, last, panel_rows):
                n = min(panel_rows, last - row)
                for i in range(panels):
                    block, end = blocks * i // panels, blocks * (i + 1) // panels
                    decode(p, row, n, block, end, panel)
                    depth, lines = block * block_size, (end - block) * fields
                    is_last = end == blocks
                    multiply(p, panel, spare, row, n, token, tokens_end, depth, lines, is_last)
        if HAS_TILES:
            close_tiles()

    return gemm


def decode_of(encoding: Encoding, tile: GemmTile) -> Any:
    """A function that unpacks a panel of an encoding."""
    if isinstance(encoding, RowGroups):
        return make_decode_groups(encoding, tile)
    return make_decode(encoding, tile)


@cache
def gemm_kernel(name: str, tile: GemmTile) -> RowsKernel:
    """Of many tokens, by the tile. Its block of tokens is the caller's: see `make_plan`."""
    encoding = ENCODINGS[name]
    made = make_gemm(encoding, tile, decode_of(encoding, tile), make_multiply(tile))
    return RowsKernel(made, kernel_name(encoding, tile, TIER))
