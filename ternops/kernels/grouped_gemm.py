"""Products of several tokens with matrices that have a scale a group of columns.

Layout: the codes of some panels, a byte each, four columns of a row a lane, for all columns. Trick:
a line of codes meets four activations of each token of a tile, so that sums need no adding up
across lanes. Groups follow one another, and their sums are turned into floats.
Bound: the dot instruction.
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
    u8,
)
from ternops.kernels.grouped import add_group, columns_of, factors_of, scales_of, write_rows
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
#: Columns that a last, shorter block may write behind those of a row.
_SLACK = 64


def codes_bytes(columns: int) -> int:
    """Of scratch for the codes of PANELS panels."""
    return (columns + _SLACK) // _DWORD * _STRIDE


def make_decode(encoding: Blocks, place_of, is_signed=False, ahead=0):
    """A function that writes the codes of blocks [first, last) of panel `panel` of W, a line for
    four columns.

    place_of(at): where the line number `at` is in what it is written to. is_signed: values instead.
    ahead: panels to the one whose block is asked for, 0 for none.
    """
    fields, size, least, step = encoding.fields, encoding.block, encoding.values[0], encoding.step
    holds, opens, hold, open_fields, codes_of, _, _ = encoding.make_unpack(1, WIDE)

    @inlined
    def block(p, weights, number, codes, opened, held):
        whole = p.columns // size
        # Lines of the block: those of the last one, of which there may be none, are fewer.
        stride = BLOCK_BYTES if number < whole else p.stride - whole * BLOCK_BYTES
        lines = stride >> 2
        first = number * (size // _DWORD)
        for i in range(lines):
            line = weights + (number * (BLOCK_BYTES // _DWORD) + i) * LINE
            if ahead > 0:
                prefetch(line + ahead * ROWS * p.stride)
            for part in range(0, LINE, BYTES):
                open_fields(load(u8, line + part), opened, held)
                for field in range(fields):
                    code = codes_of(opened, held, field)
                    if is_signed:
                        code = (code + code if step == 2 else code) + least
                    store(codes + (place_of(first + field * lines + i) + part), code)

    @inlined
    def decode(p, panel, first, last, codes):
        opened = registers(u8, opens)
        held = registers(u8, holds)
        hold(held)
        weights = pointer(p.weights) + panel * ROWS * p.stride
        for number in range(first, last):
            block(p, weights, number, codes, opened, held)

    return decode


def make_fold(value_step: int):
    """A function that adds the sums of a group to the floats of some tokens."""

    @inlined
    def fold(p, panel, group, token, count, sums, floats):
        """sums, floats: (tokens, panels, 16)."""
        groups = p.columns >> p.group_bits
        for k in range(PANELS):
            number = min(panel + k, (p.rows - 1) >> 4)
            scales = scales_of(p, factors_of(p, number * ROWS), group)
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


@inlined
def _line_of(at):
    return at * _STRIDE


def make_gemm(encoding: Blocks):
    """The product with several tokens."""
    size = encoding.block
    decode = make_decode(encoding, _line_of)
    whole, four, two, one = (make_product(encoding.step, n) for n in (TOKENS, 4, 2, 1))

    @inlined
    def multiply(p, panel, codes, start, end, spare):
        """The panels in `codes` times tokens [start, end)."""
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
def grouped_gemm(name: str) -> RowsKernel:
    """The product with several tokens."""
    encoding = ENCODINGS[name]
    assert isinstance(encoding, Blocks)
    return RowsKernel(make_gemm(encoding), f"grouped_gemm_{name}")
