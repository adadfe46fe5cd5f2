"""GEMV and small-batch GEMM on the two_bit encoding: int8 activations, exact int32 sums.

Layout: ternops.encodings.two_bit; 64 bytes hold 256 weights, one mask takes 64 of them out.
Trick: the codes stand for w + 1, so sum(a) is subtracted once a row; and the four fields need no
shift where they get an accumulator each: the four sums are shifted instead.
Bound: memory, 2 bits a weight; in cache the dot instruction, one for 4 * BYTES weights and tokens.
"""

from typing import Any, NamedTuple

import numpy as np

from ternops.encodings.two_bit import BLOCK, BLOCK_BYTES, FIELDS
from ternops.kernels.table import PREFETCH_AHEAD, stream_step, tiles
from ternops.simd import (
    BYTES,
    dot,
    full,
    i8,
    i32,
    inlined,
    kernel,
    load,
    prefetch,
    reduce_add,
    registers,
    store,
    u8,
)

_GEMV, _GEMM = tiles("two_bit")
_MOST_SUMS = max(tile.rows * tile.tokens * tile.fields_apart for tile in (_GEMV, _GEMM))
# A field left in place counts up to 64 times its value: 2 * 64 * 128 * 4 a lane and step, which
# stays within int32 for 2**15 steps. Longer rows use shifted fields, whose sums may wrap around:
# the total is right modulo 2**32, and it fits.
_MOST_BLOCKS_APART = (1 << 14) * BYTES // BLOCK_BYTES


class Operands(NamedTuple):
    """One product of W (n, k) and the tokens x (m, k): out (m, n), row-major.

    weights: packed rows, `stride` bytes each, of `blocks` blocks. x: placed int8 tokens, x_stride
    bytes each; offsets: the int32 sum of each; steps: the float32 step of each. scales: float32,
    scale_step bytes from row to row (0: one for all); a negative scale_step stores int32 sums,
    else float32 (sum * scale) * step. out_stride counts elements. All but the counts are Pointers.
    """

    weights: Any
    stride: int
    blocks: int
    x: Any
    x_stride: int
    offsets: Any
    steps: Any
    scales: Any
    scale_step: int
    out: Any
    out_stride: int


@inlined
def _store_result(p, sums, row, token):
    total = np.int32(reduce_add(sums) - load(np.int32, p.offsets + 4 * token))
    place = p.out + 4 * (token * p.out_stride + row)
    if p.scale_step >= 0:
        scale = load(np.float32, p.scales + row * p.scale_step)
        store(place, np.float32(total) * scale * load(np.float32, p.steps + 4 * token))
    else:
        store(place, total)


@inlined
def _tile(rows, step, tokens, apart, p, row, token):
    """Outputs row, row + step, ... (`rows` of them) of the tokens [token : token + tokens]."""
    sums = registers(i32, _MOST_SUMS)
    for i in range(rows * tokens * apart):
        sums[i] = full(i32, 0)
    w = p.weights + row * p.stride
    a = p.x + token * p.x_stride
    for block in range(p.blocks):
        for part in range(0, BLOCK_BYTES, BYTES):
            for r in range(rows):
                at = w + (r * step * p.stride + block * BLOCK_BYTES + part)
                if part == 0:
                    prefetch(at + PREFETCH_AHEAD // rows)
                packed = load(u8, at)
                for field in range(FIELDS):
                    if apart == FIELDS:
                        codes = packed & (3 << 2 * field)
                    else:
                        codes = (packed >> 2 * field) & 3
                    near = a + (block * BLOCK + field * BLOCK_BYTES + part)
                    for t in range(tokens):
                        i = (r * tokens + t) * apart + field % apart
                        sums[i] = dot(sums[i], codes, load(i8, near + t * p.x_stride))
    for r in range(rows):
        for t in range(tokens):
            i = (r * tokens + t) * apart
            total = sums[i]
            if apart == FIELDS:
                # Exact: each lane is a multiple of the power of two that it is divided by.
                total = total + (sums[i + 1] >> 2) + (sums[i + 2] >> 4) + (sums[i + 3] >> 6)
            _store_result(p, total, row + r * step, token + t)


@inlined
def _gemv(rows, apart, p, first, last):
    step = stream_step(last - first, rows)
    for row in range(first, first + step):
        _tile(rows, step, 1, apart, p, row, 0)
    for row in range(first + step * rows, last):
        _tile(1, 1, 1, apart, p, row, 0)


@kernel
def gemv(p, first, last):
    """Rows [first, last) of the product of `Operands` p, which has one token.

    The rows of a tile lie far apart: each is then a long stream of its own to the prefetchers,
    which brings more of the memory's bandwidth than neighbouring rows do.
    """
    if p.blocks <= _MOST_BLOCKS_APART:
        _gemv(_GEMV.rows, _GEMV.fields_apart, p, first, last)
    else:
        _gemv(1, 1, p, first, last)


@kernel
def gemm(p, first, last, tokens):
    """Rows [first, last) of the product of `Operands` p for all its tokens.

    A tile's weights stay in the first-level cache while all tokens pass by.
    """
    whole = tokens // _GEMM.tokens * _GEMM.tokens
    step = stream_step(last - first, _GEMM.rows)
    for row in range(first, first + step):
        for token in range(0, whole, _GEMM.tokens):
            _tile(_GEMM.rows, step, _GEMM.tokens, _GEMM.fields_apart, p, row, token)
        for token in range(whole, tokens):
            _tile(_GEMM.rows, step, 1, _GEMM.fields_apart, p, row, token)
    for row in range(first + step * _GEMM.rows, last):
        for token in range(tokens):
            _tile(1, 1, 1, _GEMM.fields_apart, p, row, token)
