"""Products on float16, bfloat16 and eight-bit float weights: baselines, and the output head.

Layout: rows of weights, padded with zeros to whole cache lines; float32 activations, padded alike.
Trick: one conversion and one fused multiply-add for 16 weights, some rows at a time, for one token
far apart. For several, a panel of rows stays in a cache while all pass by. Bound: memory, 16 bits a
weight or 8; with many tokens the multiply-add.
"""

from functools import partial
from typing import NamedTuple

import numpy as np

from ternops.isa import NARROW_FLOATS, TIER, WIDE, WIDE_FLOATS, load_fp16
from ternops.isa.detect import FAMILY
from ternops.kernels.elementwise import read, write
from ternops.kernels.operands import Operands
from ternops.kernels.tuning import PREFETCH_AHEAD, stream_step
from ternops.simd import (
    RowsKernel,
    concatenate,
    f32,
    full,
    inlined,
    kernel,
    load,
    load_bf16,
    pointer,
    prefetch,
    record_at,
    registers,
    store,
    tree_sum,
)

LINE_BYTES = 64  #: rows are padded to a multiple of it
_LANES = 16
_PANEL_BYTES = 1 << 18  # of rows: what a second-level cache has room for beside the tokens
# Rows and tokens of a tile: 16 sums in 32 registers, 4 of two registers each in 16.
_SIDE = 4 if WIDE.bytes == 64 else 2
# A tile of all of so few tokens never lets the memory idle. Sapphire Rapids, 2 threads, from DRAM,
# 8 tokens: 4 x 4 126 ms, 2 x 8 99, 3 x 8 91, and one token 64; 16 tokens: 171, 169, 169.
_LARGE = (3, 8) if WIDE.bytes == 64 else None


class Kind(NamedTuple):
    """A type of weights. load: the name of what loads them in `Floats`. factor: what sums are
    multiplied by before their row's scale; None where there is no scale."""

    load: str
    itemsize: int
    factor: float | None = None


KINDS = {
    "fp16": Kind("load_fp16", 2),
    "bf16": Kind("load_bf16", 2),
    "e4m3": Kind("load_e4m3", 1, 256.0),
    "e5m2": Kind("load_e5m2", 1, 1.0),
}


def make_dot(floats, kind, rows, tokens):
    """A function that multiplies some rows with some tokens.

    floats: the vectors to do it with.
    """
    count, lanes, f32, fma = rows * tokens, floats.lanes, floats.f32, floats.fma
    parts, itemsize, load_weights = _LANES // lanes, kind.itemsize, getattr(floats, kind.load)
    wider = 4 // itemsize  # than a weight an activation is
    # Whichever are fewer stay in registers beside the sums: weights, or what they meet.
    holds_weights = rows < tokens

    @inlined
    def dot(weights, stride, step, x, x_stride, sums):
        """sums[(r * tokens + t) * parts + i] = lanes of row r times token t, as `reference.dot`,
        before its last tree.

        The rows lie step * stride bytes apart, the tokens x_stride.
        """
        xs, ws = registers(f32, tokens), registers(f32, rows)
        for i in range(count * parts):
            sums[i] = full(f32, 0.0)
        for offset in range(0, stride, LINE_BYTES):
            for r in range(rows):
                # Several tokens pass by neighbouring rows: those of the next tile.
                ahead = PREFETCH_AHEAD // rows if tokens == 1 else rows * stride
                prefetch(weights + (r * step * stride + offset + ahead))
            for part in range(LINE_BYTES // (itemsize * lanes)):
                at = part * itemsize * lanes
                if holds_weights:
                    for r in range(rows):
                        ws[r] = load_weights(weights + (r * step * stride + offset + at))
                    for t in range(tokens):
                        near = load(f32, x + (t * x_stride + wider * (offset + at)))
                        for r in range(rows):
                            i = (r * tokens + t) * parts + part % parts
                            sums[i] = fma(ws[r], near, sums[i])
                    continue
                for t in range(tokens):
                    xs[t] = load(f32, x + (t * x_stride + wider * (offset + at)))
                for r in range(rows):
                    w = load_weights(weights + (r * step * stride + offset + at))
                    for t in range(tokens):
                        i = (r * tokens + t) * parts + part % parts
                        sums[i] = fma(w, xs[t], sums[i])

    return dot


def make_total(floats):
    """A function for the sum of what `make_dot` left of one row and token."""
    parts = _LANES // floats.lanes

    @inlined
    def total(sums, i):
        if parts == 1:
            return tree_sum(sums[i])
        return tree_sum(concatenate(sums[2 * i], sums[2 * i + 1]))

    return total


def make_scaled(kind):
    """A function for what is written of a row's sum."""
    if kind.factor is None:
        return inlined(lambda p, row, total: total)
    factor = np.float32(kind.factor)

    @inlined
    def scaled(p, row, total):
        scale = load(np.float32, pointer(p.scales) + p.scale_step * row)
        return total * factor * scale

    return scaled


def make_tile(floats, kind, rows, tokens):
    """A function that computes and writes rows x tokens of a product."""
    dot, total_of = make_dot(floats, kind, rows, tokens), make_total(floats)
    scaled = make_scaled(kind)
    f32, count = floats.f32, rows * tokens * (_LANES // floats.lanes)

    @inlined
    def tile(p, row, step, token):
        sums = registers(f32, count)
        weights = pointer(p.weights) + row * p.stride
        x = pointer(p.placed) + token * p.placed_stride
        dot(weights, p.stride, step, x, p.placed_stride, sums)
        for r in range(rows):
            for t in range(tokens):
                here = row + r * step
                place = pointer(p.out) + 4 * ((token + t) * p.out_stride + here)
                store(place, scaled(p, here, total_of(sums, r * tokens + t)))

    return tile


def make_streams(tile_of, rows):
    """A function for rows [first, last) and one token, `rows` streams of them.

    tile_of: makes the function for a tile of rows and tokens, as `make_tile`.
    """
    together, alone = (tile_of(n, 1) for n in (rows, 1))

    @inlined
    def streams(p, first, last):
        step = stream_step(last - first, rows)
        for row in range(first, first + step):
            together(p, row, step, 0)
        for row in range(first + step * rows, last):
            alone(p, row, 1, 0)

    return streams


def make_rows(tile_of, rows, tokens):
    """A function for rows [first, last) and a tile of tokens."""
    together, alone = (tile_of(n, tokens) for n in (rows, 1))

    @inlined
    def all_rows(p, first, last, token):
        whole = first + (last - first) // rows * rows
        for row in range(first, whole, rows):
            together(p, row, 1, token)
        for row in range(whole, last):
            alone(p, row, 1, token)

    return all_rows


def make_panels(tile_of, rows, most, large=None):
    """A function for rows [first, last) and several tokens, at most `most` of these at a time.

    A panel of rows stays in the second-level cache while all tokens pass by, and a few tokens in
    the nearest one while the panel does. large: rows and tokens of another tile, which is used once
    where it leaves fewer tokens than it has.
    """
    several, pair, one = (make_rows(tile_of, rows, n) for n in (most, 2, 1))
    has_large, (large_rows, large_most) = large is not None, large or (rows, most)
    many = make_rows(tile_of, large_rows, large_most)

    @inlined
    def panels(p, first, last):
        step = max(1, _PANEL_BYTES // (p.stride * rows)) * rows
        begin = large_most if has_large and large_most <= p.tokens < 2 * large_most else 0
        whole = begin + (p.tokens - begin) // most * most
        pairs = whole + (p.tokens - whole) // 2 * 2
        for start in range(first, last, step):
            end = min(start + step, last)
            if begin > 0:
                many(p, start, end, 0)
            for token in range(begin, whole, most):
                several(p, start, end, token)
            for token in range(whole, pairs, 2):
                pair(p, start, end, token)
            for token in range(pairs, p.tokens):
                one(p, start, end, token)

    return panels


def make_gemv(narrow_of, wide_of, streams, side, large=None):
    """The product of all tokens with rows [first, last).

    One token waits for the memory, which narrow vectors leave more to do: `streams` rows of it.
    Several are computed: rows x tokens of `side`, or of `large`, as in `make_panels`.
    """
    one = make_streams(narrow_of, streams)
    several = make_panels(wide_of, *side, large)

    @inlined
    def gemv(operands, first, last, thread):
        """Rows [first, last) of a product."""
        p = record_at(Operands, operands)
        if p.tokens == 1:
            one(p, first, last)
        else:
            several(p, first, last)

    return gemv


class Streams(NamedTuple):
    """How one token's product reads its rows: as so many streams, in which vectors."""

    rows: int
    is_narrow: bool


#: What comes nearest to the read bandwidth, by tier and family of CPUs.
STREAMS = {
    "generic": Streams(2, is_narrow=True),
    # Sapphire Rapids, of a probe, 1 and 2 threads: 2 narrow 96 to 98%, 4 narrow 100 to 101, 2 wide
    # 100 to 102, 4 wide 103 to 106, 6 wide 101 to 103, 8 wide 102 to 104.
    "avx512vnni": Streams(4, is_narrow=False),
    "avx512vnni@zen": Streams(2, is_narrow=True),
}


def gemv_for(name: str, family: str) -> RowsKernel:
    """The kernel of one of KINDS for a family of CPUs: what differs from the tier's own is in its
    name."""
    streams, usual = (TIER.pick(STREAMS, each) for each in (family, ""))
    one_of, several_of = (
        partial(make_tile, floats, KINDS[name])
        for floats in (NARROW_FLOATS if streams.is_narrow else WIDE_FLOATS, WIDE_FLOATS)
    )
    # Widening bytes takes registers that the sums of another row would need.
    rows = 1 if WIDE.bytes == 16 and KINDS[name].itemsize == 1 else _SIDE
    made = make_gemv(one_of, several_of, streams.rows, (rows, _SIDE), _LARGE)
    suffix = "" if streams == usual else f"_{streams.rows}{'n' if streams.is_narrow else 'w'}"
    return RowsKernel(made, f"gemv_{name}{suffix}")


gemv_fp16, gemv_bf16, gemv_e4m3, gemv_e5m2 = (gemv_for(name, FAMILY) for name in KINDS)


@inlined
def place_row(x, columns, placed, padded):
    """Copy float32 (columns,), with zeros behind it up to (padded,)."""
    whole = (columns + _LANES - 1) // _LANES * _LANES
    for i in range(0, whole, _LANES):
        store(placed + 4 * i, read(x, i, columns))
    for i in range(whole, padded, _LANES):
        store(placed + 4 * i, full(f32, 0.0))


@RowsKernel
def place_floats(operands, first, last, thread):
    """Copy tokens [first, last), each with zeros behind it up to the end of its place."""
    p = record_at(Operands, operands)
    for token in range(first, last):
        placed = pointer(p.placed) + token * p.placed_stride
        place_row(pointer(p.x) + 4 * token * p.columns, p.columns, placed, p.placed_stride // 4)


@kernel
def half_row(is_bf16, weights, stride, row, count, out):
    """out = the first `count` of row `row` of W, rows of `stride` bytes, as float32."""
    at = weights + row * stride
    for i in range(0, count, _LANES):
        if is_bf16:
            write(out, i, count, load_bf16(at + 2 * i))
        else:
            write(out, i, count, load_fp16(at + 2 * i))
