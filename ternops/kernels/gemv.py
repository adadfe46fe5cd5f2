"""Products with one or a few tokens, on two_bit and base3: int8 activations, exact int32 sums.

Layout: blocks of 64 bytes, in each of which a field of every byte makes 64 neighbouring weights.
Trick: the codes stand for w + 1, so sum(a) is subtracted once a row; fields that are left where
they are in the byte get a sum each, and the sums are shifted instead.
Bound: memory, 2.0 or 1.6 bits a weight; in cache the dot instruction.
"""

import numpy as np

from ternops.encodings.blocks import BLOCK_BYTES
from ternops.isa import LANES, NARROW, PARTIAL, TIER, WIDE, close_sums, open_sums
from ternops.isa import i32 as wide_i32
from ternops.kernels import base3
from ternops.kernels.fields import BASE3, MAX_HELD, MAX_OPEN, TWO_BIT, make_fields
from ternops.kernels.operands import Operands, finish
from ternops.kernels.tuning import PREFETCH_AHEAD, gemv_tile, stream_step
from ternops.simd import (
    Job,
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

# A field left in place counts up to 64 times its value: 2 * 64 * 128 * 4 a lane and step, which
# stays within int32 for 2**15 steps. Longer rows use shifted fields, whose sums may wrap around:
# the total is right modulo 2**32, and it fits.
_MAX_STEPS_APART = 1 << 15
_INVERSE_FIFTH = int(np.uint32(pow(base3.FIFTH, -1, 1 << 32)).view(np.int32))


def make_group(fields, rows, tokens, apart, width=WIDE):
    """A function that computes a group of rows, for constant counts: their loops unroll.

    fields: weights of a byte. rows x tokens: the tile that is kept in registers. apart: how many
    of a byte's fields are left in place, with a sum each.
    """
    extra = fields == BASE3 and apart > 1  # the fifth field has a factor, and a sum of its own
    each = apart + extra
    count = rows * tokens * each
    size, u8, i8, i32, dot = width
    hold, open_fields, codes = make_fields(fields, apart, width)

    @inlined
    def field_sum(sums, i):
        """One sum of all fields. Exact: each lane is a multiple of what it is divided by."""
        total = sums[i]
        if apart > 1:
            total = total + (sums[i + 1] >> 2)
        if apart > 2:
            total = total + (sums[i + 2] >> 4)
        if apart > 3:
            total = total + (sums[i + 3] >> 6)
        if extra:
            total = total + sums[i + apart] * _INVERSE_FIFTH  # modulo 2**32
        return total

    @inlined
    def tile(blocks, weights, step, x, x_step, row_sums, at):
        """Sums of rows and tokens that lie step and x_step bytes apart, into row_sums.

        One vector each, at row_sums[at], [at + LANES], ...; its lanes are still to be added up.
        """
        sums = registers(i32, count)
        partial = registers(PARTIAL, count)
        opened = registers(u8, MAX_OPEN)
        held = registers(u8, MAX_HELD)
        hold(held)
        for i in range(count):
            sums[i] = full(i32, 0)
        for block in range(blocks):
            into = open_sums(sums, partial, count)
            for part in range(0, BLOCK_BYTES, size):
                for r in range(rows):
                    line = weights + (r * step + block * BLOCK_BYTES + part)
                    if part == 0:
                        prefetch(line + PREFETCH_AHEAD // rows)
                    open_fields(load(u8, line), opened, held)
                    for field in range(fields):
                        code = codes(opened, held, field)
                        near = x + ((block * fields + field) * BLOCK_BYTES + part)
                        own = apart if field == 4 and apart > 1 else field % apart
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
        x_step, stride = p.placed_stride, p.stride
        for i in range(n):
            weights = pointer(p.weights) + (row + i) * stride
            tile(blocks, weights, step * stride, x, x_step, row_sums, i)
        present = 1 if tokens == 1 else min(tokens, p.tokens - token)
        for r in range(rows):
            for t in range(present):
                total = sum_lanes(row_sums, (r * tokens + t) * LANES)
                finish(p, total, row + r * step, token + t, n)

    return group


def make_streams(fields, rows, apart, width=WIDE):
    """A function that computes the rows which `rows` streams of equal length cover, for one token.

    It gives the first row that it leaves. The rows of a tile lie far apart: each is then a long
    stream of its own to the prefetchers, which brings more of the memory's bandwidth than
    neighbouring rows do.
    """
    group = make_group(fields, rows, 1, apart, width)
    most_sums = rows * LANES

    @inlined
    def streams(p, first, last):
        blocks = (p.columns + fields * BLOCK_BYTES - 1) // (fields * BLOCK_BYTES)
        row_sums = registers(wide_i32, most_sums)
        step = stream_step(last - first, rows)
        for row in range(first, first + step, LANES):
            group(p, blocks, row, min(LANES, first + step - row), step, 0, row_sums)
        return first + step * rows

    return streams


def make_gemv(fields, tile, width):
    """The product with one token."""
    streams = make_streams(fields, tile.rows, tile.apart, width)
    single = make_streams(fields, 1, 1)
    most_columns = _MAX_STEPS_APART * width.bytes * fields

    @inlined
    def gemv(operands, first, last, thread):
        """Rows [first, last) of a product with one token."""
        p = record_at(Operands, operands)
        if tile.apart == 1 or p.columns <= most_columns:
            first = streams(p, first, last)
        single(p, first, last)

    return gemv


def make_batch(fields, tile):
    """The product with several tokens: while a group's weights are in a cache, all pass by."""
    rows, tokens = tile.rows, tile.tokens
    if fields == BASE3:
        rows = tile.base3_rows or rows
    group = make_group(fields, rows, tokens, 1)
    # For the tokens that are left over, the last of which may be none,
    pair = make_group(fields, rows, 2, 2 if fields == TWO_BIT or base3.LOOKS_UP else 1)
    # and for the rows that streams of equal length leave; a single stream leaves none.
    single = make_group(fields, 1, 1, 1)
    most_sums = rows * tokens * LANES

    @inlined
    def batch(operands, first, last, thread):
        """Rows [first, last) of a product with some tokens."""
        p = record_at(Operands, operands)
        blocks = (p.columns + fields * BLOCK_BYTES - 1) // (fields * BLOCK_BYTES)
        row_sums = registers(wide_i32, most_sums)
        step = stream_step(last - first, rows)
        whole = p.tokens // tokens * tokens
        for row in range(first, first + step, LANES):
            n = min(LANES, first + step - row)
            for token in range(0, whole, tokens):
                group(p, blocks, row, n, step, token, row_sums)
            for token in range(whole, p.tokens, 2):
                pair(p, blocks, row, n, step, token, row_sums)
        row = first + step * rows
        if rows > 1 and row < last:
            for token in range(p.tokens):
                single(p, blocks, row, last - row, 0, token, row_sums)

    return batch


gemv_two_bit = Job(make_gemv(TWO_BIT, gemv_tile("two_bit"), WIDE), "gemv_two_bit")
#: `gemv_two_bit` for weights that come from memory.
stream_two_bit = Job(make_gemv(TWO_BIT, gemv_tile("two_bit"), NARROW), "stream_two_bit")
gemv_base3 = Job(make_gemv(BASE3, gemv_tile("base3"), WIDE), "gemv_base3")
batch_two_bit = Job(make_batch(TWO_BIT, TIER.batch), "batch_two_bit")
batch_base3 = Job(make_batch(BASE3, TIER.batch), "batch_base3")
