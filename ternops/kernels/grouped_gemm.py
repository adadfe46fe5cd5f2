"""Products of several tokens with matrices that have a scale a group of columns.

Layout: the codes of some panels, a byte each, four columns of a row a lane, for all columns. Trick:
a line of codes meets four activations of each token of a tile, so that sums need no adding up
across lanes; where there are tile registers, 16 lines are an operand as they are. Groups follow one
another, and their sums are turned into floats while the next ones are computed.
Bound: the dot instruction, or AMX's product of two tiles.
"""

from functools import cache

from ternops.encodings import ENCODINGS
from ternops.encodings.blocks import BLOCK_BYTES, Blocks
from ternops.encodings.panels import LINE, ROWS
from ternops.isa import (
    BYTES,
    PARTIAL,
    REGISTERS,
    WIDE,
    close_sums,
    dot_lanes,
    i32,
    open_sums,
    tile_dot_signed,
    tile_load,
    tile_store,
    tile_zero,
    u8,
)
from ternops.kernels.amx import close_tiles, open_tiles
from ternops.kernels.grouped import add_group, columns_of, scales_of, write_rows
from ternops.kernels.operands import Operands
from ternops.simd import (
    RowsKernel,
    f32,
    full,
    i32x16,
    inlined,
    load,
    pointer,
    record_at,
    registers,
    store,
)

_DWORD = 4
#: Vectors of a line, and panels that are unpacked together: at least two vectors.
_PARTS = LINE // BYTES
PANELS = 2 if _PARTS == 1 else 1
_VECTORS = PANELS * _PARTS
_STRIDE = PANELS * LINE
#: Tokens whose sums fit the registers, beside a line of codes and what passes by.
TOKENS = (REGISTERS - _VECTORS - 2) // _VECTORS // 2 * 2
#: Tokens of two tiles, which need groups of whole operands, and so many of them to be worth it.
TILED = 32
MIN_TILED, MIN_TILED_GROUP = 16, 64
_MOST = max(TOKENS, TILED)
#: Of the floats and of twice the sums of a tile of tokens, and before that of the configuration.
_SUMS_BYTES = _MOST * _STRIDE
SPARE_BYTES = 3 * _SUMS_BYTES + LINE
#: Columns that a last, shorter block may write behind those of a row.
_SLACK = 64


def codes_bytes(columns: int) -> int:
    """Of scratch for the codes of PANELS panels."""
    return (columns + _SLACK) // _DWORD * _STRIDE


def make_decode(encoding: Blocks):
    """A function that writes the codes of panel number `panel` of W as one of those in `codes`."""
    fields, size = encoding.fields, encoding.block
    holds, opens, hold, open_fields, codes_of, _, _ = encoding.make_unpack(1, WIDE)

    @inlined
    def decode(p, panel, codes):
        opened = registers(u8, opens)
        held = registers(u8, holds)
        hold(held)
        weights = pointer(p.weights) + panel * ROWS * p.stride
        whole = p.columns // size
        for number in range(whole + 1):
            # Lines of the block: those of the last one, of which there may be none, are fewer.
            stride = BLOCK_BYTES if number < whole else p.stride - whole * BLOCK_BYTES
            lines = stride >> 2
            first = number * (size // _DWORD)
            for i in range(lines):
                line = weights + (number * (BLOCK_BYTES // _DWORD) + i) * LINE
                for part in range(0, LINE, BYTES):
                    open_fields(load(u8, line + part), opened, held)
                    for field in range(fields):
                        at = codes + (first + field * lines + i) * _STRIDE + part
                        store(at, codes_of(opened, held, field))

    return decode


def make_fold(value_step: int):
    """A function that adds the sums of a group to the floats of some tokens."""

    @inlined
    def fold(p, panel, group, token, count, sums, floats):
        """sums, floats: (tokens, panels, 16)."""
        groups = p.columns >> p.group_bits
        for k in range(PANELS):
            number = min(panel + k, (p.rows - 1) >> 4)
            factors = pointer(p.scales) + number * (groups * ROWS * p.scale_step)
            scales = scales_of(p, factors, group)
            for t in range(count):
                at = t * _STRIDE + k * LINE
                total = load(i32x16, sums + at)
                if value_step > 1:
                    total = total * value_step
                sums_at = 4 * ((token + t) * groups + group)
                result = load(f32, floats + at)
                store(floats + at, add_group(p, total, scales, sums_at, result))

    return fold


@inlined
def _clear(floats, count):
    for i in range(count * PANELS):
        store(floats + i * LINE, full(f32, 0.0))


@inlined
def _write(p, panel, token, count, floats):
    for k in range(PANELS):
        row = min(panel + k, (p.rows - 1) >> 4) * ROWS
        for t in range(count):
            write_rows(p, load(f32, floats + (t * _STRIDE + k * LINE)), row, token + t)


def make_product(value_step: int, tokens: int):
    """A function for the panels in `codes` times `tokens` tokens, by the dot instruction."""
    count = _VECTORS * tokens
    fold = make_fold(value_step)

    @inlined
    def product(p, panel, codes, token, spare):
        floats, room = spare, spare + _SUMS_BYTES
        weights = registers(u8, _VECTORS)
        sums = registers(i32, count)
        partial = registers(PARTIAL, count)
        lines = 1 << (p.group_bits - 2)
        x_step = p.placed_stride
        x = pointer(p.placed) + token * x_step
        _clear(floats, tokens)
        for group in range(p.columns >> p.group_bits):
            for i in range(count):
                sums[i] = full(i32, 0)
            into = open_sums(sums, partial, count)
            for i in range(lines):
                line = codes + (group * lines + i) * _STRIDE
                near = x + (group * lines + i) * _DWORD
                for v in range(_VECTORS):
                    weights[v] = load(u8, line + v * BYTES)
                for t in range(tokens):
                    activations = columns_of(near + t * x_step)
                    for v in range(_VECTORS):
                        own = t * _VECTORS + v
                        into[own] = dot_lanes(into[own], weights[v], activations)
            close_sums(sums, partial, count)
            for i in range(count):
                store(room + i * BYTES, sums[i])
            fold(p, panel, group, token, tokens, room, floats)
        _write(p, panel, token, tokens, floats)

    return product


def make_tiled(value_step: int):
    """A function for the panels in `codes` times up to TILED tokens, by tiles."""
    fold = make_fold(value_step)

    @inlined
    def products(p, codes, x, group):
        """The sums of a group, 16 tokens and 16 rows a tile."""
        tile_zero(0)
        tile_zero(1)
        tile_zero(2)
        tile_zero(3)
        later = 16 * p.placed_stride
        steps = 1 << (p.group_bits - 6)
        for i in range(steps):
            line = codes + (group * steps + i) * (16 * _STRIDE)
            near = x + (group * steps + i) * BLOCK_BYTES
            tile_load(4, near, p.placed_stride)
            tile_load(6, line, _STRIDE)
            tile_dot_signed(0, 4, 6)
            tile_load(7, line + LINE, _STRIDE)
            tile_dot_signed(1, 4, 7)
            tile_load(5, near + later, p.placed_stride)
            tile_dot_signed(2, 5, 6)
            tile_dot_signed(3, 5, 7)

    @inlined
    def tiled(p, panel, codes, token, count, spare):
        floats, sums, before = spare, spare + _SUMS_BYTES, spare + 2 * _SUMS_BYTES
        x = pointer(p.placed) + token * p.placed_stride
        _clear(floats, count)
        groups = p.columns >> p.group_bits
        for group in range(groups):
            products(p, codes, x, group)
            if group > 0:  # the sums before these, while the tiles are busy
                fold(p, panel, group - 1, token, count, before, floats)
            tile_store(0, sums, _STRIDE)
            tile_store(1, sums + LINE, _STRIDE)
            tile_store(2, sums + 16 * _STRIDE, _STRIDE)
            tile_store(3, sums + (16 * _STRIDE + LINE), _STRIDE)
            sums, before = before, sums
        fold(p, panel, groups - 1, token, count, before, floats)
        _write(p, panel, token, count, floats)

    return tiled


def make_gemm(encoding: Blocks, is_tiled: bool):
    """The product with several tokens."""
    decode = make_decode(encoding)
    if is_tiled:
        tiled = make_tiled(encoding.step)
    else:
        whole, four, two, one = (make_product(encoding.step, n) for n in (TOKENS, 4, 2, 1))

    @inlined
    def multiply(p, panel, codes, start, end, spare):
        """The panels in `codes` times tokens [start, end)."""
        if is_tiled:
            for token in range(start, end, TILED):
                tiled(p, panel, codes, token, min(TILED, end - token), spare)
        else:
            token = start
            while end - token >= TOKENS:
                whole(p, panel, codes, token, spare)
                token += TOKENS
            while end - token >= 4:
                four(p, panel, codes, token, spare)
                token += 4
            if end - token >= 2:
                two(p, panel, codes, token, spare)
                token += 2
            if end > token:
                one(p, panel, codes, token, spare)

    @inlined
    def gemm(operands, first, last, thread):
        """Rows [first, last) of a product; first is that of a panel."""
        p = record_at(Operands, operands)
        spare = pointer(p.scratch) + thread * p.scratch_stride
        if is_tiled:
            open_tiles(spare)
        codes = spare + SPARE_BYTES
        end = (last + ROWS - 1) >> 4
        step = max(1, min(p.tokens, p.token_block))
        for number in range((p.tokens + step - 1) // step):
            start = number * step
            for panel in range(first >> 4, end, PANELS):
                for k in range(PANELS):  # the last one twice, where there is no other
                    decode(p, min(panel + k, end - 1), codes + k * LINE)
                multiply(p, panel, codes, start, min(p.tokens, start + step), spare)
        if is_tiled:
            close_tiles()

    return gemm


@cache
def grouped_gemm(name: str, is_tiled: bool) -> RowsKernel:
    """The product with several tokens. is_tiled: by tile registers, for groups of 64 and more."""
    encoding = ENCODINGS[name]
    assert isinstance(encoding, Blocks)
    what = "tiles" if is_tiled else "gemm"
    return RowsKernel(make_gemm(encoding, is_tiled), f"grouped_{what}_{name}")
