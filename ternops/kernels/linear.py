"""One whole product as a team's job: prepare the tokens, meet at the barrier, multiply.

Layout: a record of addresses and counts, which every thread reads. Trick: each thread prepares
some tokens and then computes some rows. Bound: that of the GEMV or GEMM inside.
"""

import numba
import numpy as np

from ternops.encodings.two_bit import BLOCK, BLOCK_BYTES, FIELDS
from ternops.kernels.elementwise import copy_row, quantize_row
from ternops.kernels.two_bit import Operands, gemm, gemv
from ternops.quantize import LEAST_ABSMAX
from ternops.simd import Job, inlined, kernel, load, pointer, record_at, store
from ternops.team import barrier, share

_FIELDS = "weights stride rows columns scales scale_step x is_float tokens placed steps offsets out"
#: All intp: addresses of arrays, counts, and is_float (1: x is float32, 0: int8).
RECORD = np.dtype([(name, np.intp) for name in _FIELDS.split()])
_Record = numba.from_dtype(RECORD)


@inlined
def blocks_of(columns):
    """How many blocks a row of `columns` weights has, the shorter last one included."""
    return (columns + BLOCK - 1) // BLOCK


@kernel
def place_tail(row, columns):
    """Move the last activations of an int8 row to where two_bit's last, shorter block has them.

    As `ternops.encodings.two_bit.place`, within the last 256 bytes of the placed row; from the
    last one downwards, because each moves up.
    """
    rest = columns % BLOCK
    if rest == 0:
        return
    tail = row + (columns - rest)
    stride = (rest + FIELDS - 1) // FIELDS
    for field in range(FIELDS - 1, -1, -1):
        for i in range(BLOCK_BYTES - 1, -1, -1):
            source = field * stride + i
            value = np.int8(0)
            if i < stride and source < rest:
                value = load(np.int8, tail + source)
            store(tail + (field * BLOCK_BYTES + i), value)


@inlined
def place_floats(x, columns, floor, placed, offset, step):
    """Quantise one token at x to int8 in placed order; its sum and step go to two Pointers."""
    unit, total = quantize_row(x, columns, floor, placed)
    place_tail(placed, columns)
    store(offset, total)
    store(step, unit)


@Job
def linear(record, team, thread, threads):
    p = record_at(_Record, record)
    blocks = blocks_of(p.columns)
    x, placed = pointer(p.x), pointer(p.placed)
    offsets, steps = pointer(p.offsets), pointer(p.steps)
    first, last = share(p.tokens, 1, thread, threads)
    for token in range(first, last):
        target = placed + token * blocks * BLOCK
        if p.is_float:
            source = x + 4 * token * p.columns
            place_floats(
                source, p.columns, LEAST_ABSMAX, target, offsets + 4 * token, steps + 4 * token
            )
        else:
            total = copy_row(x + token * p.columns, p.columns, target)
            place_tail(target, p.columns)
            store(offsets + 4 * token, total)
            store(steps + 4 * token, np.float32(1))
    barrier(team, threads)
    operands = Operands(
        pointer(p.weights), p.stride, blocks, placed, blocks * BLOCK, offsets, steps,
        pointer(p.scales), p.scale_step, pointer(p.out), p.rows,
    )  # fmt: skip
    first, last = share(p.rows, 4, thread, threads)
    if p.tokens == 1:
        gemv(operands, first, last)
    else:
        gemm(operands, first, last, p.tokens)
