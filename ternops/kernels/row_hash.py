"""A hash of each row of a matrix, which tells whether somebody has written to it.

Layout: rows of whole cache lines. Trick: a polynomial in each of 16 lanes of 32 bits, whose factor
is odd, so that one word that changes always changes the hash. Bound: memory.
"""

import numpy as np

from ternops.simd import (
    TeamJob,
    constant,
    full,
    i32x16,
    inlined,
    load,
    pointer,
    record_at,
    record_type,
    reduce_add,
    store,
)
from ternops.team import share

FACTOR = 16777619  #: as FNV-1a has it
LANES = 16
#: Rows of `stride` bytes, a multiple of 64; hashes: int32 (rows,).
ROW_HASHES = np.dtype([(name, np.intp) for name in ("weights", "rows", "stride", "hashes")])
_RowHashes = record_type(ROW_HASHES)
_weights_of_lanes = constant(i32x16, range(1, 2 * LANES, 2))


@inlined
def _hash(row, stride):
    sums = full(i32x16, 0)
    for offset in range(0, stride, 4 * LANES):
        sums = sums * FACTOR + load(i32x16, row + offset)
    return reduce_add(sums * _weights_of_lanes())


@TeamJob
def row_hashes(record, team, thread, threads):
    """The hashes of all rows of a ROW_HASHES record."""
    p = record_at(_RowHashes, record)
    first, last = share(p.rows, LANES, thread, threads)
    for row in range(first, last):
        store(pointer(p.hashes) + 4 * row, _hash(pointer(p.weights) + row * p.stride, p.stride))
