"""Products of several tokens with matrices that have a scale a group of columns.

Layout: the codes of some panels, a byte each, four columns of a row a lane, for all columns. Trick:
a line of codes meets four activations of each token of a tile, so that sums need no adding up
across lanes. Groups follow one another, and their sums are turned into floats.
Bound: the dot instruction.
"""

from functools import cache

from ternops.encodings.blocks import BLOCK_BYTES
from ternops.encodings.panels import LINE, ROWS, Panels
from ternops.isa import BYTES, REGISTERS, TIER, WIDE, i32, u8
from ternops.kernels.grouped import (
    Dots,
    add_group,
    columns_of,
    dots_of,
    factors_of,
    kernel_name,
    make_open_line,
    make_tail_stride,
    panels_of,
    scales_of,
    write_rows,
    write_sums,
)
from ternops.kernels.operands import Operands
from ternops.simd import (
    RowsKernel,
    f32,
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
#: Vectors of a line, and panels that are unpacked together: at least two vectors.
_PARTS = LINE // BYTES
PANELS = 2 if _PARTS == 1 else 1
_VECTORS = PANELS * _PARTS
_STRIDE = PANELS * LINE
#: Tokens whose sums fit the registers, beside a line of codes and what passes by.
TOKENS = (REGISTERS - _VECTORS - 2) // _VECTORS // 2 * 2
#: Of the floats and of the sums of a tile of tokens.
_SUMS_BYTES = TOKENS * _STRIDE
SPARE_BYTES = 2 * _SUMS_BYTES
#: Columns that a last, shorter block may write behind those of a row: less than 4 a field.
_SLACK = 64


def codes_bytes(columns: int) -> int:
    """Of scratch for the codes of PANELS panels."""
    return (columns + _SLACK) // _DWORD * _STRIDE


def make_decode(encoding: Panels, place_of, is_signed=False, ahead=0):
    """A function that writes the codes of blocks [first, last) of panel `panel` of W, a line for
    four columns.

    place_of(at): where the line number `at` is in what it is written to. is_signed: levels, as
    int8, instead. ahead: panels to the one whose block is asked for, 0 for none.
    """
    fields, planes, size = encoding.fields, encoding.planes, encoding.block
    tail_stride, steps = make_tail_stride(encoding), BLOCK_BYTES // _DWORD
    holds, opens, hold, open_fields, codes_of, _, _ = encoding.make_unpack(1, WIDE, is_signed)
    open_line = make_open_line(planes, open_fields)

    @inlined
    def block(p, weights, number, codes, opened, held):
        whole = p.columns // size
        # Lines of the block: those of the last one, of which there may be none, are fewer.
        stride = BLOCK_BYTES if number < whole else tail_stride(p, whole)
        lines = stride >> 2
        first = number * (size // _DWORD)
        for i in range(lines):
            line = weights + (number * steps + i) * (planes * LINE)
            if ahead > 0:
                for plane in range(planes):
                    prefetch(line + (plane * LINE + ahead * ROWS * p.stride))
            for part in range(0, LINE, BYTES):
                open_line(line, part, opened, held)
                for field in range(fields):
                    code = codes_of(opened, held, field)
                    store(codes + (place_of(first + field * lines + i) + part), code)

    @inlined
    def decode(p, panel, first, last, codes):
        opened = registers(u8, opens)
        held = registers(u8, holds)
        hold(held, p.levels)
        weights = pointer(p.weights) + panel * ROWS * p.stride
        for number in range(first, last):
            block(p, weights, number, codes, opened, held)

    return decode


@inlined
def _fold(p, panel, group, token, count, sums, floats):
    """Add the sums of a group to the floats of some tokens; both: (tokens, panels, 16)."""
    groups = p.columns >> p.group_bits
    for k in range(PANELS):
        number = min(panel + k, (p.rows - 1) >> 4)
        scales = scales_of(p, factors_of(p, number * ROWS), group)
        for t in range(count):
            at = t * _STRIDE + k * LINE
            total = load(i32x16, sums + at)
            sums_at = 4 * ((token + t) * groups + group)
            result = load(f32, floats + at)
            store(floats + at, add_group(p, total, scales, sums_at, result))


@inlined
def _clear(floats, count):
    for i in range(count * PANELS):
        store(floats + i * LINE, full(f32, 0.0))


@inlined
def _write(p, panel, token, count, sums, floats):
    """The floats of some tokens, or their sums where all columns share a scale."""
    for k in range(PANELS):
        row = min(panel + k, (p.rows - 1) >> 4) * ROWS
        for t in range(count):
            at = t * _STRIDE + k * LINE
            if p.columns >> p.group_bits == 0:
                write_sums(p, sums + at, row, token + t)
            else:
                write_rows(p, load(f32, floats + at), row, token + t)


def make_product(dots: Dots, tokens: int):
    """A function for the panels in `codes` times `tokens` tokens, by the dot instruction."""
    count = _VECTORS * tokens
    kind, open_dots, close_dots, dot, most_columns = dots
    most = most_columns // _DWORD

    @inlined
    def product(p, panel, codes, token, spare):
        floats, room = spare, spare + _SUMS_BYTES
        weights = registers(u8, _VECTORS)
        sums = registers(i32, count)
        partial = registers(kind, count)
        groups = p.columns >> p.group_bits
        lines = min((p.columns + _DWORD - 1) >> 2, 1 << (p.group_bits - 2))
        x_step = p.placed_stride
        x = pointer(p.placed) + token * x_step
        _clear(floats, tokens)
        for group in range(max(1, groups)):
            for i in range(count):
                sums[i] = full(i32, 0)
            for start in range(0, lines, most):
                into = open_dots(sums, partial, count)
                for i in range(start, min(lines, start + most)):
                    line = codes + (group * lines + i) * _STRIDE
                    near = x + (group * lines + i) * _DWORD
                    for v in range(_VECTORS):
                        weights[v] = load(u8, line + v * BYTES)
                    for t in range(tokens):
                        activations = columns_of(near + t * x_step)
                        for v in range(_VECTORS):
                            own = t * _VECTORS + v
                            into[own] = dot(into[own], weights[v], activations)
                close_dots(sums, partial, count)
            for i in range(count):
                store(room + i * BYTES, sums[i])
            if groups > 0:
                _fold(p, panel, group, token, tokens, room, floats)
        _write(p, panel, token, tokens, room, floats)

    return product


@inlined
def _line_of(at):
    return at * _STRIDE


def make_gemm(encoding: Panels):
    """The product with several tokens."""
    size = encoding.block
    decode = make_decode(encoding, _line_of)
    dots = dots_of(encoding)
    # Sums of int16 have room for trits alone: others are closed, or widened, in between, which
    # takes registers.
    most = 2 if TIER.close is not None and encoding.greatest > 2 else TOKENS
    whole, four, two, one = (make_product(dots, n) for n in (most, min(4, most), 2, 1))

    @inlined
    def multiply(p, panel, codes, start, end, spare):
        """The panels in `codes` times tokens [start, end)."""
        token = start
        while end - token >= most:
            whole(p, panel, codes, token, spare)
            token += most
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
        codes = spare + SPARE_BYTES
        end = (last + ROWS - 1) >> 4
        step = max(1, min(p.tokens, p.token_block))
        for number in range((p.tokens + step - 1) // step):
            start = number * step
            for panel in range(first >> 4, end, PANELS):
                for k in range(PANELS):  # the last one twice, where there is no other
                    own = min(panel + k, end - 1)
                    decode(p, own, 0, p.columns // size + 1, codes + k * LINE)
                multiply(p, panel, codes, start, min(p.tokens, start + step), spare)

    return gemm


@cache
def grouped_gemm(name: str, is_wide: bool = False) -> RowsKernel:
    """The product with several tokens."""
    made = make_gemm(panels_of(name, is_wide))
    return RowsKernel(made, kernel_name("grouped_gemm", name, is_wide))
