"""Products with one or a few tokens, on block encodings: int8 activations, exact int32 sums.

Layout: blocks of 64 bytes, in each of which a field of every byte makes 64 neighbouring weights.
Trick: codes are at least 0, and what they exceed the values by is subtracted once a row; fields
that are left where they are in the byte get a sum each, and the sums are shifted instead.
Bound: memory, the bits of a weight; in cache the dot instruction.
"""

from functools import cache
from typing import Any, NamedTuple

from ternops.encodings import ENCODINGS
from ternops.encodings.blocks import BLOCK_BYTES, Blocks, GemvTile
from ternops.isa import LANES, NARROW, PARTIAL, TIER, WIDE, close_sums, open_sums
from ternops.isa import i32 as wide_i32
from ternops.isa.tier import BatchTile
from ternops.kernels.operands import Operands, finish
from ternops.kernels.tiles import kernel_name
from ternops.kernels.tuning import PREFETCH_AHEAD, panel_step, stream_step
from ternops.simd import (
    RowsKernel,
    full,
    inlined,
    load,
    pointer,
    prefetch,
    record_at,
    registers,
    sum_lanes,
    widen,
)

#: A code left in place is a byte of at most 192 (code 3 times 64): 192 * 128 * 4 a lane and step,
#: which stays within int32 for 21,845 steps. Longer rows use shifted fields, whose sums may wrap
#: around: the total is right modulo 2**32, and it fits.
MAX_STEPS_APART = (1 << 31) // (192 * 128 * 4)


class Rows(NamedTuple):
    """Where the rows of a group lie, in kernel code.

    first(p, row): a place, from which `step(p, count)` bytes lead to that of the count-th row
    behind it. line(p, place): a pointer to that row's weights. ahead(p, place): to what is read
    soon after them. run: lines of a row that are read before the next row's.
    """

    first: Any
    step: Any
    line: Any
    ahead: Any
    run: int = 1


def neighbours(ahead: int, run: int = 1) -> Rows:
    """Rows one behind the other, prefetched `ahead` bytes ahead."""

    @inlined
    def first(p, row):
        return pointer(p.weights) + row * p.stride

    @inlined
    def step(p, count):
        return count * p.stride

    @inlined
    def line(p, place):
        return place

    @inlined
    def further(p, place):
        return place + ahead

    return Rows(first, step, line, further, run)


def make_group(encoding: Blocks, rows, tokens, apart, where: Rows, width=WIDE):
    """A function that computes a group of rows, for constant counts: their loops unroll.

    rows x tokens: the tile that is kept in registers. apart: how many of a byte's fields are left
    in place, with a sum each.
    """
    place_of, bytes_of, line_of, ahead_of, run = where
    fields = encoding.fields
    unpack = encoding.make_unpack(apart, width)
    holds, opens, hold, open_fields, codes, shift, factor = unpack
    extra = factor != 0  # the last field has a factor, and a sum of its own
    inverse = unpack.last_inverse
    each = apart + extra
    count = rows * tokens * each
    # Partial sums have room for one block.
    assert run == 1 or TIER.close is None
    size, u8, i8, i32, dot = width

    @inlined
    def field_sum(sums, i):
        """One sum of all fields. Exact: each lane is a multiple of what it is divided by."""
        total = sums[i]
        for k in range(1, apart):
            total = total + (sums[i + k] >> shift * k)
        if extra:
            total = total + sums[i + apart] * inverse  # modulo 2**32
        return total

    @inlined
    def tile(p, blocks, place, step, x, x_step, row_sums, at):
        """Sums of rows and tokens whose places lie step and x_step bytes apart, into row_sums.

        One vector each, at row_sums[at], [at + LANES], ...; its lanes are still to be added up.
        """
        sums = registers(i32, count)
        partial = registers(PARTIAL, count)
        opened = registers(u8, opens)
        held = registers(u8, holds)
        hold(held, p.levels)
        for i in range(count):
            sums[i] = full(i32, 0)
        for start in range(0, blocks, run):
            into = open_sums(sums, partial, count)
            for part in range(0, BLOCK_BYTES, size):
                for r in range(rows):
                    here = place + r * step
                    for block in range(start, start + 1 if run == 1 else min(start + run, blocks)):
                        if part == 0:
                            prefetch(ahead_of(p, here) + block * BLOCK_BYTES)
                        line = line_of(p, here) + (block * BLOCK_BYTES + part)
                        opened[0] = load(u8, line)
                        open_fields(opened, held)
                        for field in range(fields):
                            code = codes(opened, held, field)
                            near = x + ((block * fields + field) * BLOCK_BYTES + part)
                            own = apart if extra and field == fields - 1 else field % apart
                            for t in range(tokens):
                                i = (r * tokens + t) * each + own
                                into[i] = dot(into[i], code, load(i8, near + t * x_step))
            close_sums(sums, partial, count)
        for i in range(rows * tokens):
            row_sums[at + i * LANES] = widen(wide_i32, field_sum(sums, i * each))

    @inlined
    def group(p, blocks, row, n, step, token, row_sums):
        """Rows [row, row + n), and those that lie step, 2 * step, ... behind, of some tokens.

        n: at most LANES, whose sums are added up together.
        """
        x = pointer(p.placed) + token * p.placed_stride
        x_step = p.placed_stride
        for i in range(n):
            tile(p, blocks, place_of(p, row + i), bytes_of(p, step), x, x_step, row_sums, i)
        present = 1 if tokens == 1 else min(tokens, p.tokens - token)
        for r in range(rows):
            for t in range(present):
                total = sum_lanes(row_sums, (r * tokens + t) * LANES)
                finish(p, total, row + r * step, token + t, n)

    return group


def make_streams(encoding: Blocks, tile: GemvTile, where: Rows | None = None):
    """A function that computes rows as `tile.rows` streams of equal length, for one token.

    There must be at least as many rows as streams. The rows of a tile lie far apart: each is then a
    long stream of its own to the prefetchers, which brings more of the memory's bandwidth than
    neighbouring rows do.
    """
    rows, block = tile.rows, encoding.block
    panel = 0 if where else tile.panel  # rows of a list lie apart in any case
    width = NARROW if tile.is_narrow else WIDE
    group = make_group(
        encoding, rows, 1, tile.apart, where or neighbours(tile.ahead, tile.run), width
    )
    most_sums = rows * LANES

    @inlined
    def streams(p, first, last):
        blocks = (p.columns + block - 1) // block
        row_sums = registers(wide_i32, most_sums)
        while first < last:
            step = max(1, panel_step(last - first, rows, p.stride, panel))
            # Where fewer rows than streams are left, some are computed once more.
            first = min(first, last - step * rows)
            for row in range(first, first + step, LANES):
                group(p, blocks, row, min(LANES, first + step - row), step, 0, row_sums)
            first += step * rows

    return streams


def make_gemv(encoding: Blocks, tile: GemvTile, where: Rows | None = None):
    """The product with one token."""
    rows, apart = tile.rows, tile.apart
    streams = make_streams(encoding, tile, where)
    single = make_streams(encoding, GemvTile(1, 1, ahead=PREFETCH_AHEAD), where)
    width = NARROW if tile.is_narrow else WIDE
    most_columns = MAX_STEPS_APART * width.bytes * encoding.fields

    @inlined
    def gemv(operands, first, last, thread):
        """Rows [first, last) of a product with one token."""
        p = record_at(Operands, operands)
        if last - first >= rows and (apart == 1 or p.columns <= most_columns):
            streams(p, first, last)
        else:
            single(p, first, last)

    return gemv


def make_batch(encoding: Blocks, tile: BatchTile):
    """The product with several tokens: while a group's weights are in a cache, all pass by."""
    rows, tokens, block = tile.rows, tile.tokens, encoding.block
    where = neighbours(PREFETCH_AHEAD // rows)
    group = make_group(encoding, rows, tokens, 1, where)
    # For the tokens that are left over, of which the last may not exist,
    pair = make_group(encoding, rows, 2, TIER.pick(encoding.pair_apart), where)
    # and for fewer rows than the tile has.
    single = make_group(encoding, 1, 1, 1, neighbours(PREFETCH_AHEAD))
    most_sums = rows * tokens * LANES

    @inlined
    def batch(operands, first, last, thread):
        """Rows [first, last) of a product with some tokens."""
        p = record_at(Operands, operands)
        blocks = (p.columns + block - 1) // block
        row_sums = registers(wide_i32, most_sums)
        whole = p.tokens // tokens * tokens
        if last - first < rows:
            for token in range(p.tokens):
                single(p, blocks, first, last - first, 0, token, row_sums)
            return
        while first < last:
            step = max(1, stream_step(last - first, rows))
            first = min(first, last - step * rows)  # as in `streams`
            for row in range(first, first + step, LANES):
                n = min(LANES, first + step - row)
                for token in range(0, whole, tokens):
                    group(p, blocks, row, n, step, token, row_sums)
                for token in range(whole, p.tokens, 2):
                    pair(p, blocks, row, n, step, token, row_sums)
            first += step * rows

    return batch


@cache
def blocks_kernel(name: str, tile: GemvTile | BatchTile) -> RowsKernel:
    """Of one token or of a few, by the tile, for a block encoding."""
    encoding = ENCODINGS[name]
    assert isinstance(encoding, Blocks)
    if isinstance(tile, BatchTile):
        made = make_batch(encoding, tile)
    else:
        made = make_gemv(encoding, tile)
    return RowsKernel(made, kernel_name(encoding, tile, TIER))
