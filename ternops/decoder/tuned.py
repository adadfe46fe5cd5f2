"""What a pass adds to products with the base where tokens have deltas, each its own.

Layout: runs of neighbouring tokens that share a delta, and a table of the signs of its layers,
whose products are those of any matrix. Trick: all tokens pass by the base's weights together, and a
run by its own signs right after, while its part of the results is in a cache. Bound: memory, one
bit a weight of each delta.
"""

from ternops.decoder.records import (
    RUN_BYTES,
    SIGNS_BYTES,
    ModelRecord,
    RunRecord,
    SignsRecord,
)
from ternops.kernels.elementwise import add
from ternops.kernels.linear import choose_matrix, prepare_rows
from ternops.kernels.operands import Operands
from ternops.simd import address_of, call_rows_kernel, kernel, pointer, record_at


@kernel
def prepare_tuned(record, x, count, first, last, thread):
    """Place rows [first, last) of x, float32 (tokens, count), for products with signs."""
    p = record_at(ModelRecord, record)
    own = pointer(p.tuned) + thread * p.tuned_bytes
    o = record_at(Operands, address_of(own))
    o.prepare = p.tuned_prepare
    stride = (count + p.tuned_block - 1) // p.tuned_block * p.tuned_block
    prepare_rows(own, x, count, stride, p.tokens, first, last)


@kernel
def add_tuned(record, at, slot, rows, first, last, out, thread):
    """out[:, first:last] += what the signs in a slot of layer `at` give, float32 (tokens, rows)."""
    p = record_at(ModelRecord, record)
    own = pointer(p.tuned) + thread * p.tuned_bytes
    o = record_at(Operands, address_of(own))
    placed, offsets, steps = o.placed, o.offsets, o.steps
    # Results of these rows alone, since others may be at the next product already.
    stride = last - first
    results = own + (p.tuned_out - 4 * first)
    for number in range(p.runs):
        run = record_at(RunRecord, p.run_table + number * RUN_BYTES)
        signs = record_at(SignsRecord, run.signs + (at * p.tuned_slots + slot) * SIGNS_BYTES)
        o.placed = placed + run.first * o.placed_stride
        o.offsets, o.steps = offsets + 4 * run.first, steps + 4 * run.first
        o.tokens, o.rows, o.out_stride = run.count, rows, stride
        choose_matrix(own, signs.weights, signs.stride, signs.scale, 0, address_of(results))
        call_rows_kernel(run.multiply, address_of(own), first, last, 0)
        for token in range(run.count):
            row = 4 * (run.first + token) * rows
            add(pointer(out) + row, results + 4 * token * stride, first, last)
    o.placed, o.offsets, o.steps = placed, offsets, steps
