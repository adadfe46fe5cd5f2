"""What the inputs of linear layers become in a model with the activations of BitNet a4.8.

Layout: that of `forward`; a row of int8 codes a token. Trick: codes of 4 bits and of what is left
of a sparse row are int8 all the same, so that every product has its kernels, and its step is
written where a float token's would be. Bound: as for the norms, some operations an element.
"""

import numpy as np

from ternops.decoder.records import ModelRecord
from ternops.kernels.elementwise import quantize_row
from ternops.kernels.linear import prepare_rows
from ternops.kernels.low_activations import (
    count_codes,
    count_positive,
    keep_largest,
    quantize_absmean,
)
from ternops.kernels.operands import Operands
from ternops.simd import address_of, inlined, kernel, load, pointer, record_at, store

#: Whose inputs these are, and which of COUNTS counts them.
TO_ATTENTION, TO_O, TO_FFN, TO_DOWN, _UP = range(5)
#: int64 of each thread behind those of sparsity: codes that are not 0 of the inputs of q, k and v,
#: of o, of gate and up, and of down; and the weights of `up` that such a code and a gate above 0
#: make count.
COUNTS = 5
_FIRST_COUNT = 2


@inlined
def _count(p, own, at, count):
    place = own + p.own_counts + 8 * (_FIRST_COUNT + at)
    store(place, load(np.int64, place) + count)


@kernel
def prepare_low(record, own, x, role, count, placed_stride, first, last, thread):
    """As `linear.prepare_rows`, of x, float32 (tokens, count), rounded as its role asks for: to 4
    bits by absmean, or to 8, of o the larger half alone."""
    p = record_at(ModelRecord, record)
    operands = record_at(Operands, address_of(own))
    operands.is_float = 0
    codes, sparse = pointer(p.codes), pointer(p.normed)
    if p.tokens == 1:  # each thread has its own, where the norm has left the row
        codes = sparse = own + p.own_floats
    steps, active, total = pointer(p.low_steps), pointer(p.active), 0
    for token in range(first, last):
        row, target = x + 4 * token * count, codes + token * count
        if role % 2 == 0:  # TO_ATTENTION, TO_FFN
            step = quantize_absmean(row, count, operands.floor, target)
        else:
            if role == TO_O:
                keep_largest(row, count, (count + 1) // 2, sparse + 4 * token * count)
                row = sparse + 4 * token * count
            step, _ = quantize_row(row, count, operands.floor, target)
        store(steps + 4 * token, step)
        found = count_codes(target, count)
        store(active + 8 * token, np.int64(found))
        total += found
    if p.tokens > 1 or thread == 0:
        _count(p, own, role, total)
    prepare_rows(own, codes, count, placed_stride, p.tokens, first, last)
    for token in range(first, last):
        store(pointer(operands.steps) + 4 * token, load(np.float32, steps + 4 * token))


@kernel
def count_up(record, own, first, last):
    """Count the weights of rows [first, last) of `up` that matter; the gates are those before the
    activation."""
    p = record_at(ModelRecord, record)
    total = 0
    for token in range(p.tokens):
        rows = count_positive(pointer(p.gate) + 4 * token * p.ffn, first, last)
        total += rows * load(np.int64, pointer(p.active) + 8 * token)
    _count(p, own, _UP, total)
