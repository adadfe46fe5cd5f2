"""Rotary embedding and attention of one token over the cache, a key/value head at a time.

Layout: keys, values and queries in float32, [head][position][head_dim padded with zeros].
Trick: a key is read once for all query heads that share it.
Bound: cache latency at short contexts, memory (8 bytes a position and element) at long ones.
"""

import numpy as np

from ternops.kernels.elementwise import read, softmax, write
from ternops.simd import (
    f32,
    fma,
    full,
    inlined,
    kernel,
    load,
    registers,
    store,
    tree_sum,
)

PAD = 32  #: head_dim is padded to a multiple of it


@kernel
def rotate(x, cosine, sine, head_dim, target):
    """target = rotary embedding of one head (RoFormer, arXiv 2104.09864), halves apart.

    x, target: float32 (head_dim,); cosine, sine: float32 (head_dim / 2,) of this position.
    """
    half = head_dim // 2
    upper, target_upper = x + 4 * half, target + 4 * half
    for i in range(0, half, 16):
        a, b = read(x, i, half), read(upper, i, half)
        c, s = read(cosine, i, half), read(sine, i, half)
        write(target, i, half, a * c - b * s)
        write(target_upper, i, half, b * c + a * s)


@inlined
def _scores(queries, group, keys, padded, positions, scale, scores, stride):
    for position in range(positions):
        key = keys + position * padded * 4
        for head in range(group):
            query = queries + head * padded * 4
            total = full(f32, 0.0)
            for i in range(0, padded, 16):
                total = fma(load(f32, key + 4 * i), load(f32, query + 4 * i), total)
            store(scores + (head * stride + position) * 4, tree_sum(total) * scale)


@inlined
def _weighted_values(weights, values, padded, positions, head_dim, out):
    for i in range(0, padded, PAD):
        sums = registers(f32, 2)
        sums[0] = full(f32, 0.0)
        sums[1] = full(f32, 0.0)
        for position in range(positions):
            weight = full(f32, load(np.float32, weights + 4 * position))
            value = values + (position * padded + i) * 4
            sums[0] = fma(weight, load(f32, value), sums[0])
            sums[1] = fma(weight, load(f32, value + 64), sums[1])
        if i < head_dim:
            write(out, i, head_dim, sums[0])
        if i + 16 < head_dim:
            write(out, i + 16, head_dim, sums[1])


@kernel
def attend(queries, group, keys, values, padded, head_dim, positions, scale, scores, stride, out):
    """out (group, head_dim) = softmax(queries . keys * scale) . values, for one key/value head.

    queries: float32 (group, padded); keys, values: float32 (positions, padded); scores: room for
    `group` rows of `stride` >= positions + 16 float32. As `reference.softmax` and
    `reference.weighted_sum`.
    """
    _scores(queries, group, keys, padded, positions, scale, scores, stride)
    for head in range(group):
        weights = scores + head * stride * 4
        softmax(weights, positions)
        target = out + head * head_dim * 4
        _weighted_values(weights, values, padded, positions, head_dim, target)
