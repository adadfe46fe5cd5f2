"""Rows of floats: norms, activations, softmax, and their quantisation to int8.

Layout: contiguous rows in memory, of any length. Trick: 16 lanes at a time, the remainder by a
masked load whose other lanes are zero. Bound: cache latency; a row is read two or three times.
Each equals its namesake in `reference` bit for bit.
"""

import numpy as np

from ternops.kernels.reference import (
    EXP_COEFFICIENTS,
    EXP_MIN,
    GELU_CUBIC,
    GELU_LINEAR,
    LN2_HIGH,
    LN2_LOW,
    LOG2_E,
    ROUNDER,
)
from ternops.simd import (
    bitcast,
    convert,
    f32,
    fma,
    full,
    i8x16,
    i32x16,
    inlined,
    kernel,
    lane,
    load,
    load_first,
    maximum_i32,
    reduce_add,
    reduce_max,
    select_greater,
    store,
    store_first,
    tree_max,
    tree_sum,
)

_MAGNITUDE_BITS = 0x7FFFFFFF
_ROUNDER_BITS = int(ROUNDER.view(np.int32))
_C0, _C1, _C2, _C3, _C4, _C5, _C6, _C7 = EXP_COEFFICIENTS


@inlined
def read(source, i, count):
    """16 floats from element i on, zeros from element `count` on."""
    if count - i >= 16:
        return load(f32, source + 4 * i)
    return load_first(f32, source + 4 * i, count - i)


@inlined
def write(target, i, count, value):
    """Write 16 floats from element i on, none from element `count` on."""
    if count - i >= 16:
        store(target + 4 * i, value)
    else:
        store_first(target + 4 * i, value, count - i)


@inlined
def largest_magnitude(x, count):
    """max|x| of float32 (count,), with infinity and NaN on top.

    Magnitudes are compared as integers, which orders floats so.
    """
    largest = full(i32x16, 0)
    for i in range(0, count, 16):
        largest = maximum_i32(largest, bitcast(i32x16, read(x, i, count)) & _MAGNITUDE_BITS)
    return lane(bitcast(f32, full(i32x16, reduce_max(largest))), 0)


@kernel
def quantize_row(x, count, floor, target):
    """float32 (count,) -> int8 (count,) at `target`; returns (step float32, sum of the int8).

    As `reference.quantize_rows`. Adding ROUNDER leaves the rounded value in the low bits.
    """
    largest = largest_magnitude(x, count)
    absmax = largest
    if not absmax >= floor:
        absmax = np.float32(floor)
    factor = full(f32, np.float32(127) / absmax)
    total = full(i32x16, 0)
    for i in range(0, count, 16):
        rounded = read(x, i, count) * factor + ROUNDER
        quantized = bitcast(i32x16, rounded) - _ROUNDER_BITS
        total = total + quantized
        if count - i >= 16:
            store(target + i, convert(i8x16, quantized))
        else:
            store_first(target + i, convert(i8x16, quantized), count - i)
    step = absmax / np.float32(127)
    if not largest < np.inf:
        step = np.float32(np.nan)
    return step, reduce_add(total)


@kernel
def copy_row(x, count, target):
    """int8 (count,) to `target`; returns the sum."""
    total = full(i32x16, 0)
    for i in range(0, count, 16):
        if count - i >= 16:
            chunk = load(i8x16, x + i)
            store(target + i, chunk)
        else:
            chunk = load_first(i8x16, x + i, count - i)
            store_first(target + i, chunk, count - i)
        total = total + convert(i32x16, chunk)
    return reduce_add(total)


@kernel
def rms_norm(x, weight, count, epsilon, target):
    """float32 (count,), as `reference.rms_norm`."""
    squares = full(f32, 0.0)
    for i in range(0, count, 16):
        chunk = read(x, i, count)
        squares = fma(chunk, chunk, squares)
    mean = tree_sum(squares) / np.float32(count)
    factor = full(f32, np.float32(1) / np.sqrt(mean + np.float32(epsilon)))
    for i in range(0, count, 16):
        write(target, i, count, read(x, i, count) * factor * read(weight, i, count))


@inlined
def exp(x):
    """16 float32, as `reference.exp`."""
    n = fma(x, full(f32, LOG2_E), full(f32, ROUNDER))
    power = bitcast(f32, (bitcast(i32x16, n) - _ROUNDER_BITS + 127) << 23)
    n = n - ROUNDER
    r = fma(n, full(f32, -LN2_LOW), fma(n, full(f32, -LN2_HIGH), x))
    p = fma(full(f32, _C0), r, full(f32, _C1))
    p = fma(p, r, full(f32, _C2))
    p = fma(p, r, full(f32, _C3))
    p = fma(p, r, full(f32, _C4))
    p = fma(p, r, full(f32, _C5))
    p = fma(p, r, full(f32, _C6))
    p = fma(p, r, full(f32, _C7))
    return select_greater(x, full(f32, EXP_MIN), p * power, full(f32, 0.0))


@kernel
def softmax(x, count):
    """float32 (count,) in place, as `reference.softmax`; needs room for 16 floats more."""
    store(x + 4 * count, full(f32, -np.inf))
    largest = full(f32, -np.inf)
    for i in range(0, count, 16):
        chunk = load(f32, x + 4 * i)
        largest = select_greater(chunk, largest, chunk, largest)
    peak = tree_max(largest)
    total = full(f32, 0.0)
    for i in range(0, count, 16):
        e = exp(load(f32, x + 4 * i) - peak)
        total = fma(e, full(f32, 1.0), total)
        store(x + 4 * i, e)
    factor = full(f32, np.float32(1) / tree_sum(total))
    for i in range(0, count, 16):
        store(x + 4 * i, load(f32, x + 4 * i) * factor)


@kernel
def gate_relu2(gate, up, first, last, target):
    """float32 max(gate, 0)^2 * up, elements first to last."""
    for i in range(first, last, 16):
        g = read(gate, i, last)
        g = select_greater(g, full(f32, 0.0), g, full(f32, 0.0))
        write(target, i, last, g * g * read(up, i, last))


@inlined
def _exp_and_one(x):
    """exp(x) + 1 of 16 float32, finite for any x."""
    limit = full(f32, 87.0)
    return exp(select_greater(limit, x, x, limit)) + full(f32, 1.0)


@inlined
def silu(x):
    """16 float32, as `reference.silu`."""
    return x / _exp_and_one(x * np.float32(-1))


@inlined
def sigmoid(x):
    """16 float32, as `reference.sigmoid`."""
    return full(f32, 1.0) / _exp_and_one(x * np.float32(-1))


@kernel
def gate_silu(gate, up, first, last, target):
    """float32 silu(gate) * up, elements first to last."""
    for i in range(first, last, 16):
        write(target, i, last, silu(read(gate, i, last)) * read(up, i, last))


@kernel
def gate_sigmoid(gate, x, count):
    """x *= sigmoid(gate) in float32."""
    for i in range(0, count, 16):
        write(x, i, count, read(x, i, count) * sigmoid(read(gate, i, count)))


@kernel
def gate_gelu_tanh(gate, up, first, last, target):
    """float32 gelu_tanh(gate) * up, elements first to last."""
    cubic, linear = full(f32, GELU_CUBIC), full(f32, GELU_LINEAR)
    for i in range(first, last, 16):
        g = read(gate, i, last)
        negated = fma(g * g, cubic, linear) * g * np.float32(-1)
        write(target, i, last, g / _exp_and_one(negated) * read(up, i, last))


@kernel
def scatter_relu2(gate, first, last, up, listed, count):
    """As `gate_relu2` in place, where `up` has those of the `count` elements of a list alone and
    makes all others 0."""
    for k in range(count):
        g = load(np.float32, gate + 4 * load(np.int32, listed + 4 * k))
        store(up + 4 * k, g * g * load(np.float32, up + 4 * k))
    for i in range(first, last, 16):
        write(gate, i, last, full(f32, 0.0))
    for k in range(count):
        store(gate + 4 * load(np.int32, listed + 4 * k), load(np.float32, up + 4 * k))


@kernel
def add_i32(x, y, count):
    """x += y in int32; count: a multiple of 16."""
    for i in range(0, count, 16):
        store(x + 4 * i, load(i32x16, x + 4 * i) + load(i32x16, y + 4 * i))


@kernel
def add(x, y, first, last):
    """x += y in float32, elements first to last."""
    for i in range(first, last, 16):
        write(x, i, last, read(x, i, last) + read(y, i, last))


@kernel
def add_scaled(x, y, scale, first, last):
    """x += scale * y in float32, rounded once, elements first to last; with 1 as `add`."""
    factor = full(f32, scale)
    for i in range(first, last, 16):
        write(x, i, last, fma(read(y, i, last), factor, read(x, i, last)))


@kernel
def scale_row(x, count, scale):
    """x *= scale in float32."""
    factor = full(f32, scale)
    for i in range(0, count, 16):
        write(x, i, count, read(x, i, count) * factor)
