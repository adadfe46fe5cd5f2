"""Products of a few tokens with matrices that have a scale a group of columns, on AVX-512.

Layout: as for one token. Trick: the codes of a block stay packed and are opened for some tokens at
a time, whose sums of all fields fit the registers; meanwhile the block is in the first-level cache.
Bound: the dot instruction, and an AND for each of its codes.
"""

from functools import cache

from ternops.encodings.blocks import BLOCK_BYTES
from ternops.encodings.panels import LINE, ROWS, Panels
from ternops.isa import BYTES, REGISTERS, i32, u8
from ternops.kernels.grouped import (
    SCALES_AHEAD,
    factors_of,
    kernel_name,
    make_blocks,
    make_panels,
    make_tail_stride,
    panel_tile,
    panels_of,
    scratch_bytes,
    slots_of,
    write_result,
)
from ternops.kernels.operands import Operands
from ternops.simd import (
    RowsKernel,
    f32,
    full,
    inlined,
    pointer,
    prefetch,
    record_at,
    registers,
    store,
)

#: Whether sums of some tokens fit the registers beside what opens bytes.
IS_WORTH_IT = BYTES == LINE and REGISTERS >= 32
#: Tokens that a block is used for before the next one.
TOGETHER = 16
_MOST = 4


def few_bytes(encoding: Panels, unit: int) -> int:
    """Of scratch."""
    return scratch_bytes(encoding, unit, 1, TOGETHER)


def most_tokens(encoding: Panels) -> int:
    """Tokens whose sums are in registers at once."""
    return min(_MOST, (REGISTERS - 8) // encoding.fields)


def make_piece(encoding: Panels, unit: int, tokens: int):
    """Functions that multiply a block, and what is left of the rows, with so many tokens."""
    tile = panel_tile(encoding, "")._replace(streams=1)
    holds, opens, hold, block, tail, settle = make_blocks(encoding, unit, tile, tokens)

    @inlined
    def piece(p, line, x, column, stride, factors, done, complete, sums_at, totals, floats):
        """stride: BLOCK_BYTES, or less where the block is a shorter one."""
        opened = registers(u8, opens)
        held = registers(u8, holds)
        hold(held, p.levels)
        if stride == BLOCK_BYTES:
            block(p, line, 0, x, column, totals, opened, held)
        else:
            tail(p, line, x, column, stride, totals, opened, held)
        settle(p, factors, done, complete, sums_at, totals, floats)

    return piece


@cache
def grouped_few(name: str, unit: int, is_wide: bool = False) -> RowsKernel:
    """The product with some tokens. unit: as of `grouped_gemv`."""
    encoding = panels_of(name, is_wide)
    size, most = encoding.block, most_tokens(encoding)
    block_bytes, tail_stride = encoding.block_bytes, make_tail_stride(encoding)
    token_bytes = slots_of(encoding, unit) * LINE
    # Two leave room for the sums of another panel: two streams bring more from memory.
    streams = max(1, min(2, (REGISTERS - 8) // (2 * encoding.fields)))
    pair = make_panels(encoding, unit, panel_tile(encoding, "")._replace(streams=streams), 2)
    one, two, three, four = (make_piece(encoding, unit, min(n, most)) for n in (1, 2, 3, 4))

    @inlined
    def panel(p, row, token, count, totals, floats):
        """The panel of `row` for tokens [token, token + count)."""
        weights, factors = pointer(p.weights) + row * p.stride, factors_of(p, row)
        groups, whole = p.columns >> p.group_bits, p.columns // size
        last_stride = tail_stride(p, whole)
        each = (size >> p.group_bits) * ROWS * p.scale_step
        for i in range(count):
            store(floats + i * LINE, full(f32, 0.0))
        # Pieces of about equal numbers of tokens.
        pieces = (count + most - 1) // most
        least, larger = count // pieces, count % pieces
        done = 0
        for number in range(whole + (1 if last_stride > 0 else 0)):
            stride = BLOCK_BYTES if number < whole else last_stride
            complete = (number + 1) * size >> p.group_bits if number < whole else groups
            line = weights + number * (ROWS * block_bytes)
            for at in range(0, each, LINE):
                prefetch(factors + (done * ROWS * p.scale_step + at + SCALES_AHEAD * each))
            at = 0
            for i in range(pieces):
                n = least + (1 if i < larger else 0)
                x = pointer(p.placed) + (token + at) * p.placed_stride
                sums_at = 4 * (token + at) * groups
                own, near = totals + at * token_bytes, floats + at * LINE
                column = number * size
                if n == 4:
                    four(
                        p, line, x, column, stride, factors, done, complete, sums_at, own, near
                    )  # fmt: skip
                elif n == 3:
                    three(
                        p, line, x, column, stride, factors, done, complete, sums_at, own, near
                    )  # fmt: skip
                elif n == 2:
                    two(p, line, x, column, stride, factors, done, complete, sums_at, own, near)
                else:
                    one(p, line, x, column, stride, factors, done, complete, sums_at, own, near)
                at += n
            done = complete
        for i in range(count):
            write_result(p, totals + i * token_bytes, floats + i * LINE, row, token + i)

    @inlined
    def few(operands, first, last, thread):
        """Rows [first, last) of a product; first is that of a panel."""
        p = record_at(Operands, operands)
        totals = pointer(p.scratch) + thread * p.scratch_stride
        if p.tokens == 2 and last - first > ROWS:
            pair(p, first >> 4, (last + ROWS - 1) >> 4, totals)
            return
        floats = totals + TOGETHER * token_bytes
        for at in range(0, TOGETHER * token_bytes, BYTES):
            store(totals + at, full(i32, 0))
        for token in range(0, p.tokens, TOGETHER):
            count = min(TOGETHER, p.tokens - token)
            for row in range(first, last, ROWS):
                panel(p, row, token, count, totals, floats)

    return RowsKernel(few, kernel_name("grouped_few", name, is_wide, unit))
