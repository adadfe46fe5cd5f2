"""A gated delta net's own arithmetic (arXiv 2412.06464): a short convolution, how much a head keeps
and writes, and its state, token after token.

Layout: a head's state is a matrix with a row for each dimension of a key, kept in chunks of 16
columns. Trick: lanes are columns, so that no sum runs across them, and columns know nothing of one
another: as many as the nearest cache holds are taken through all tokens of a pass. Bound: for many
tokens arithmetic, for one memory: each state is read and written once.
"""

import numpy as np

from ternops.isa import WIDE
from ternops.kernels.elementwise import exp, read, sigmoid, silu, write
from ternops.kernels.reference import LOG_COEFFICIENTS, UNIT_EPSILON
from ternops.simd import (
    f32,
    fma,
    full,
    inlined,
    kernel,
    lane,
    load,
    registers,
    select_greater,
    store,
    tree_sum,
)

_LANES = 16
_L0, _L1, _L2, _L3, _L4, _L5, _L6, _L7 = LOG_COEFFICIENTS
# Columns of a state at a time, in vectors: their sums and what they change by stay in registers.
_TOGETHER = 4 if WIDE.bytes == 64 else 2


@kernel
def convolve(x, stride, tokens, before, taps, first, last):
    """Columns [first, last) of float32 rows in place, as `reference.convolve` with four taps.

    x: `tokens` rows, `stride` floats apart; before: three rows of `stride` floats, which become
    those before the next token; taps: four.
    """
    row = 4 * stride
    for i in range(first, last, _LANES):
        w0, w1 = read(taps, i, last), read(taps + row, i, last)
        w2, w3 = read(taps + 2 * row, i, last), read(taps + 3 * row, i, last)
        a, b = read(before, i, last), read(before + row, i, last)
        c = read(before + 2 * row, i, last)
        for token in range(tokens):
            at = x + token * row
            d = read(at, i, last)
            y = fma(d, w3, fma(c, w2, fma(b, w1, a * w0)))
            write(at, i, last, silu(y))
            a, b, c = b, c, d
        write(before, i, last, a)
        write(before + row, i, last, b)
        write(before + 2 * row, i, last, c)


@kernel
def unit(x, count, scale, target):
    """float32 (count,), as `reference.unit`."""
    squares = full(f32, 0.0)
    for i in range(0, count, _LANES):
        chunk = read(x, i, count)
        squares = fma(chunk, chunk, squares)
    length = np.sqrt(tree_sum(squares) + UNIT_EPSILON)
    factor = full(f32, np.float32(1) / length * np.float32(scale))
    for i in range(0, count, _LANES):
        write(target, i, count, read(x, i, count) * factor)


@inlined
def softplus(x):
    """16 float32, as `reference.softplus`."""
    negated = x * np.float32(-1)
    u = exp(select_greater(x, negated, negated, x))
    s = u / (u + full(f32, 2.0))
    z = s * s
    p = fma(full(f32, _L0), z, full(f32, _L1))
    p = fma(p, z, full(f32, _L2))
    p = fma(p, z, full(f32, _L3))
    p = fma(p, z, full(f32, _L4))
    p = fma(p, z, full(f32, _L5))
    p = fma(p, z, full(f32, _L6))
    p = fma(p, z, full(f32, _L7))
    positive = select_greater(x, full(f32, 0.0), x, full(f32, 0.0))
    return fma(s * np.float32(2), p, positive)


def _make_gates(tokens):
    """How much of its state a head keeps, exp(-rate * softplus(forget . x + bias)), and how much
    of a value it writes, sigmoid(write . x), for that many tokens."""
    count = 2 * tokens

    @inlined
    def gates(x, hidden, forget, write_row, bias, rate, kept, written, step):
        sums = registers(f32, count)
        for i in range(count):
            sums[i] = full(f32, 0.0)
        for i in range(0, hidden, _LANES):
            f, w = read(forget, i, hidden), read(write_row, i, hidden)
            for token in range(tokens):
                chunk = read(x + 4 * token * hidden, i, hidden)
                sums[token] = fma(f, chunk, sums[token])
                sums[tokens + token] = fma(w, chunk, sums[tokens + token])
        factor = load(np.float32, rate) * np.float32(-1)
        for token in range(tokens):
            inner = softplus(full(f32, tree_sum(sums[token]) + load(np.float32, bias)))
            store(kept + 4 * token * step, lane(exp(inner * factor), 0))
            part = sigmoid(full(f32, tree_sum(sums[tokens + token])))
            store(written + 4 * token * step, lane(part, 0))

    return gates


#: Tokens whose gates are computed together: they share the rows of weights, and their sums are
#: registers. With one at a time gates take 10 times as long for 512 tokens of 27B's layout.
GATED = 4 if WIDE.bytes == 64 else 2
_gates_together, _gates_alone = _make_gates(GATED), _make_gates(1)


@kernel
def gates(x, hidden, tokens, forget, write_row, bias, rate, kept, written, step):
    """What each of up to GATED tokens, rows of x, keeps and writes of one head.

    forget, write_row: float32 (hidden,); bias, rate: one float32; kept, written: one for the first
    token, and `step` floats on those of the next.
    """
    if tokens == GATED:
        _gates_together(x, hidden, forget, write_row, bias, rate, kept, written, step)
        return
    for token in range(tokens):
        to = 4 * token * step
        row = x + 4 * token * hidden
        _gates_alone(row, hidden, forget, write_row, bias, rate, kept + to, written + to, step)


def _make_columns(vectors):
    """All tokens of that many vectors of columns, which stay in the nearest cache."""

    @inlined
    def columns(
        state, key_dim, query, key, value, stride, keep, share, step, tokens, at, count, out,
        out_stride,
    ):  # fmt: skip
        sums, change = registers(f32, vectors), registers(f32, vectors)
        chunk = 4 * _LANES * key_dim
        state = state + at // _LANES * chunk
        for token in range(tokens):
            row, gate = 4 * token * stride, 4 * token * step
            factor = full(f32, load(np.float32, keep + gate))
            for v in range(vectors):
                sums[v] = full(f32, 0.0)
            for d in range(key_dim):
                k = full(f32, load(np.float32, key + row + 4 * d))
                for v in range(vectors):
                    sums[v] = fma(k, load(f32, state + v * chunk + 4 * _LANES * d), sums[v])
            part = full(f32, load(np.float32, share + gate))
            for v in range(vectors):
                right = read(value + row, at + v * _LANES, count)
                change[v] = (right - sums[v] * factor) * part
                sums[v] = full(f32, 0.0)
            for d in range(key_dim):
                k = full(f32, load(np.float32, key + row + 4 * d))
                q = full(f32, load(np.float32, query + row + 4 * d))
                for v in range(vectors):
                    place = state + v * chunk + 4 * _LANES * d
                    new = fma(k, change[v], load(f32, place) * factor)
                    store(place, new)
                    sums[v] = fma(q, new, sums[v])
            for v in range(vectors):
                write(out + 4 * token * out_stride, at + v * _LANES, count, sums[v])

    return columns


_columns_together, _columns_alone = _make_columns(_TOGETHER), _make_columns(1)


@kernel
def delta_steps(
    state, key_dim, count, query, key, value, stride, keep, share, step, tokens, out, out_stride
):
    """One head of `reference.delta_step`, for some tokens one after another.

    state: float32 (columns, key_dim, 16), chunks of columns filled up to whole vectors, changed;
    query, key, value: of the first token, (key_dim,) and (count,), and `stride` floats on that of
    the next; keep, share: a float32, and `step` floats on the next; out: (count,), and so on.
    """
    whole = (count + _LANES - 1) // _LANES * _LANES
    together = whole // (_TOGETHER * _LANES) * (_TOGETHER * _LANES)
    for at in range(0, together, _TOGETHER * _LANES):
        _columns_together(
            state, key_dim, query, key, value, stride, keep, share, step, tokens, at, count, out,
            out_stride,
        )  # fmt: skip
    for at in range(together, whole, _LANES):
        _columns_alone(
            state, key_dim, query, key, value, stride, keep, share, step, tokens, at, count, out,
            out_stride,
        )  # fmt: skip
