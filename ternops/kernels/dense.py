"""GEMV on float16, bfloat16 and int8 weights: the baseline of every speed-up, and the output head.

Layout: rows of weights, padded with zeros to whole cache lines; float32 activations, padded alike.
Trick: one conversion and one fused multiply-add for 16 weights, some rows at a time, far apart;
several tokens pass by while those are in the nearest cache. Bound: memory, 8 or 16 bits a weight.
"""

import numpy as np

from ternops.kernels.elementwise import read, write
from ternops.kernels.operands import Operands
from ternops.kernels.table import PREFETCH_AHEAD, stream_step
from ternops.simd import (
    NARROW_FLOATS,
    WIDE,
    WIDE_FLOATS,
    Job,
    concatenate,
    f32,
    full,
    inlined,
    kernel,
    load,
    load_bf16,
    load_f16,
    pointer,
    prefetch,
    record_at,
    registers,
    store,
    tree_sum,
)

LINE_BYTES = 64  #: rows are padded to a multiple of it
_LANES = 16
# Rows and tokens of a tile: 16 sums in 32 registers, 4 of two registers each in 16.
_SIDE = 4 if WIDE.bytes == 64 else 2


def make_dot(floats, load_weights, size, rows, tokens):
    """A function that multiplies some rows with some tokens.

    floats: the vectors to do it with. load_weights: one of weights of `size` bytes as float32.
    """
    count, lanes, f32, fma = rows * tokens, floats.lanes, floats.f32, floats.fma
    parts = _LANES // lanes

    @inlined
    def dot(weights, stride, step, x, x_stride, sums):
        """sums[(r * tokens + t) * parts + i] = lanes of row r times token t, as `reference.dot`,
        before its last tree.

        The rows lie step * stride bytes apart, the tokens x_stride.
        """
        xs = registers(f32, tokens)
        for i in range(count * parts):
            sums[i] = full(f32, 0.0)
        for offset in range(0, stride, LINE_BYTES):
            for r in range(rows):
                # With many tokens the row is in the cache by then for most of them: the next one.
                ahead = PREFETCH_AHEAD // rows if tokens == 1 else stride
                prefetch(weights + (r * step * stride + offset + ahead))
            for part in range(LINE_BYTES // (lanes * size)):
                at = part * lanes * size
                for t in range(tokens):
                    xs[t] = load(f32, x + (t * x_stride + (offset + at) // size * 4))
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


def make_tile(floats, load_weights, size, scaled, rows, tokens):
    """A function that computes and writes rows x tokens of a product."""
    dot, total_of = make_dot(floats, load_weights, size, rows, tokens), make_total(floats)
    f32, count = floats.f32, rows * tokens * (_LANES // floats.lanes)

    @inlined
    def tile(p, row, step, token):
        sums = registers(f32, count)
        weights = pointer(p.weights) + row * p.stride
        x = pointer(p.placed) + token * p.placed_stride
        dot(weights, p.stride, step, x, p.placed_stride, sums)
        for r in range(rows):
            at = row + r * step
            for t in range(tokens):
                total = total_of(sums, r * tokens + t)
                if scaled:
                    total = total * load(np.float32, pointer(p.scales) + 4 * at)
                store(pointer(p.out) + 4 * ((token + t) * p.out_stride + at), total)

    return tile


def make_rows(floats, load_weights, size, scaled, rows, most):
    """A function that computes some rows for all tokens, at most `most` of these at a time."""
    several, pair, one = (
        make_tile(floats, load_weights, size, scaled, rows, n) for n in (most, 2, 1)
    )

    @inlined
    def all_tokens(p, row, step):
        whole = p.tokens // most * most
        for token in range(0, whole, most):
            several(p, row, step, token)
        pairs = whole + (p.tokens - whole) // 2 * 2
        for token in range(whole, pairs, 2):
            pair(p, row, step, token)
        for token in range(pairs, p.tokens):
            one(p, row, step, token)

    return all_tokens


def make_streams(floats, load_weights, size, scaled, rows, most):
    """A function for rows [first, last), `rows` streams of them."""
    together, alone = (make_rows(floats, load_weights, size, scaled, n, most) for n in (rows, 1))

    @inlined
    def streams(p, first, last):
        step = stream_step(last - first, rows)
        for row in range(first, first + step):
            together(p, row, step)
        for row in range(first + step * rows, last):
            alone(p, row, 1)

    return streams


def make_gemv(load_name, size, scaled, rows):
    """The product of all tokens with rows [first, last). rows: the streams for one token."""
    # One token waits for the memory, which narrow vectors leave more to do; several are computed.
    narrow, wide = (getattr(each, load_name) for each in (NARROW_FLOATS, WIDE_FLOATS))
    one = make_streams(NARROW_FLOATS, narrow, size, scaled, rows, 1)
    several = make_streams(WIDE_FLOATS, wide, size, scaled, _SIDE, _SIDE)

    @inlined
    def gemv(operands, first, last):
        p = record_at(Operands, operands)
        if p.tokens == 1:
            one(p, first, last)
        else:
            several(p, first, last)

    return gemv


# Two streams were measured best for two bytes a weight. With one byte a line takes each sum through
# twice as many additions, one after the other: four rows hide that.
_gemv_f16 = make_gemv("load_f16", 2, False, 2)
_gemv_bf16 = make_gemv("load_bf16", 2, False, 2)
_gemv_i8 = make_gemv("load_i8", 1, True, 4)


@Job
def gemv_f16(operands, first, last, thread):
    """Rows [first, last) of a product, float16."""
    _gemv_f16(operands, first, last)


@Job
def gemv_bf16(operands, first, last, thread):
    """Rows [first, last) of a product, bfloat16."""
    _gemv_bf16(operands, first, last)


@Job
def gemv_i8(operands, first, last, thread):
    """Rows [first, last) of a product, int8 times a scale a row."""
    _gemv_i8(operands, first, last)


@Job
def place_floats(operands, first, last, thread):
    """Copy tokens [first, last), each with zeros behind it up to the end of its place."""
    p = record_at(Operands, operands)
    for token in range(first, last):
        x = pointer(p.x) + 4 * token * p.columns
        placed = pointer(p.placed) + token * p.placed_stride
        whole = (p.columns + _LANES - 1) // _LANES * _LANES
        for i in range(0, whole, _LANES):
            store(placed + 4 * i, read(x, i, p.columns))
        for i in range(whole, p.placed_stride // 4, _LANES):
            store(placed + 4 * i, full(f32, 0.0))


@kernel
def half_row(is_bf16, weights, stride, row, count, out):
    """out = the first `count` of row `row` of W, rows of `stride` bytes, as float32."""
    at = weights + row * stride
    for i in range(0, count, _LANES):
        if is_bf16:
            write(out, i, count, load_bf16(at + 2 * i))
        else:
            write(out, i, count, load_f16(at + 2 * i))
