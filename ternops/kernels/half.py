"""GEMV on float16 and bfloat16 weights: the baseline of every speed-up, and the output head.

Layout: rows of 2-byte weights, padded with zeros to whole cache lines; float32 activations.
Trick: one conversion and one fused multiply-add for 16 weights, two rows at a time, far apart.
Bound: memory, 16 bits a weight.
"""

from ternops.kernels.table import PREFETCH_AHEAD, stream_step
from ternops.simd import (
    f32,
    fma,
    full,
    inlined,
    kernel,
    load,
    load_bf16,
    load_f16,
    prefetch,
    registers,
    store,
    tree_sum,
)

LINE = 32  #: weights of a cache line; rows are padded to a multiple of it
_ROWS = 2


@inlined
def _tile(rows, step, is_bf16, weights, columns, x, row, out):
    sums = registers(f32, _ROWS)
    for r in range(rows):
        sums[r] = full(f32, 0.0)
    at = weights + row * columns * 2
    for column in range(0, columns, LINE):
        for r in range(rows):
            near = at + (r * step * columns + column) * 2
            prefetch(near + PREFETCH_AHEAD // rows)
            for part in range(0, LINE, 16):
                w = load_bf16(near + 2 * part) if is_bf16 else load_f16(near + 2 * part)
                sums[r] = fma(w, load(f32, x + 4 * (column + part)), sums[r])
    for r in range(rows):
        store(out + 4 * (row + r * step), tree_sum(sums[r]))


@inlined
def _rows(is_bf16, weights, columns, first, last, x, out):
    # Far apart, as in two_bit: each row of a tile is a stream of its own. Two were measured best.
    step = stream_step(last - first, _ROWS)
    for row in range(first, first + step):
        _tile(_ROWS, step, is_bf16, weights, columns, x, row, out)
    for row in range(first + step * _ROWS, last):
        _tile(1, 1, is_bf16, weights, columns, x, row, out)


@kernel
def gemv_half(is_bf16, weights, columns, first, last, x, out):
    """out[first:last] = rows [first, last) of W times x, as `reference.dot` computes it.

    weights: Pointer to rows of `columns` weights, a multiple of LINE; x: Pointer to as many
    float32, zeros where the weights are padding; out: Pointer to float32.
    """
    if is_bf16:
        _rows(True, weights, columns, first, last, x, out)
    else:
        _rows(False, weights, columns, first, last, x, out)


@kernel
def half_row(is_bf16, weights, columns, row, out):
    """out = row `row` of W as float32, padding included."""
    at = weights + row * columns * 2
    for column in range(0, columns, 16):
        if is_bf16:
            store(out + 4 * column, load_bf16(at + 2 * column))
        else:
            store(out + 4 * column, load_f16(at + 2 * column))
