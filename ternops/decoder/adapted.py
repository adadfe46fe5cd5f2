"""What stands beside products with the base: the deltas of some tokens, and an adapter of all.

Layout: a table of the low-rank matrices of each linear layer, and for each thread where the inputs
of the product at hand are, and room for what the first matrix makes of a token. Trick: every
thread computes that for itself, which saves a barrier, and a few of its own rows with it. Bound:
memory, four bytes a weight of the adapter.
"""

import numpy as np

from ternops.decoder.architectures import LINEAR
from ternops.decoder.records import LOW_RANK_BYTES, LowRankRecord, ModelRecord
from ternops.decoder.tuned import add_tuned, prepare_tuned
from ternops.kernels.low_rank import expand, project
from ternops.simd import address_of, inlined, kernel, load, pointer, record_at, store

_SLOTS = len(LINEAR)
#: In a thread's memory: the address of the inputs, how many a token has, and what A makes of one.
_COLUMNS, PROJECTED = 8, 64


@kernel
def _keep_inputs(record, x, count, thread):
    p = record_at(ModelRecord, record)
    own = pointer(p.adapter_own) + thread * p.adapter_bytes
    store(own, np.int64(address_of(x)))
    store(own + _COLUMNS, np.int64(count))


@kernel
def _add_adapter(record, at, slot, rows, first, last, out, thread):
    p = record_at(ModelRecord, record)
    m = record_at(LowRankRecord, p.adapter + (at * _SLOTS + slot) * LOW_RANK_BYTES)
    if m.ranks == 0 or first >= last:
        return
    own = pointer(p.adapter_own) + thread * p.adapter_bytes
    x, columns = pointer(load(np.int64, own)), load(np.int64, own + _COLUMNS)
    for token in range(p.tokens):
        project(x + 4 * token * columns, columns, pointer(m.a), m.ranks, m.scale, own + PROJECTED)
        row = pointer(out) + 4 * token * rows
        expand(own + PROJECTED, m.ranks, pointer(m.b), rows, first, last, row)


@inlined
def prepare_beside(p, x, count, first, last, thread):
    """Rows [first, last) of x, float32 (tokens, count), are this thread's; all of them are there
    when products are computed."""
    if p.runs > 0:
        prepare_tuned(address_of(p), x, count, first, last, thread)
    if p.adapter != 0:
        _keep_inputs(address_of(p), x, count, thread)


@inlined
def add_beside(p, at, slot, rows, first, last, out, thread):
    """Add to rows [first, last) of a product of layer `at`, float32 (tokens, rows)."""
    if p.runs > 0:
        add_tuned(address_of(p), at, slot, rows, first, last, out, thread)
    if p.adapter != 0:
        _add_adapter(address_of(p), at, slot, rows, first, last, out, thread)
