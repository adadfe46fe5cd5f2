"""A product with two low-rank matrices (LoRA, arXiv 2106.09685) that is added to another: B (A x).

Layout: A float32 (rank, columns), and B turned, float32 (rank, rows), so that both are read along
their rows. Trick: four rows of A share each read of x, and lanes of B's sums are outputs, so that
no sum runs across them. Bound: memory, four bytes a weight of both.
"""

import numpy as np

from ternops.kernels.elementwise import read, write
from ternops.simd import f32, fma, full, inlined, kernel, load, registers, store, tree_sum

_LANES = 16
#: Rows of A at a time, whose sums are registers; A has a multiple of so many.
RANKS = 4


@kernel
def project(x, columns, a, ranks, scale, z):
    """z = scale * (A x), as `reference.low_rank`: float32 (ranks,), a multiple of RANKS."""
    step = 4 * columns
    sums = registers(f32, RANKS)
    for first in range(0, ranks, RANKS):
        rows = a + first * step
        for j in range(RANKS):
            sums[j] = full(f32, 0.0)
        for i in range(0, columns, _LANES):
            chunk = read(x, i, columns)
            for j in range(RANKS):
                sums[j] = fma(read(rows + j * step, i, columns), chunk, sums[j])
        for j in range(RANKS):
            store(z + 4 * (first + j), tree_sum(sums[j]) * np.float32(scale))


@inlined
def _sum(z, ranks, b, stride, i, last):
    total = full(f32, 0.0)
    for j in range(ranks):
        factor = full(f32, load(np.float32, z + 4 * j))
        total = fma(factor, read(b + 4 * j * stride, i, last), total)
    return total


@kernel
def expand(z, ranks, b, stride, first, last, out):
    """out[first:last] += B z, float32 (ranks,), where a row of B turned has `stride` floats."""
    for i in range(first, last, _LANES):
        write(out, i, last, read(out, i, last) + _sum(z, ranks, b, stride, i, last))
