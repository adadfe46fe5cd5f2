"""What products of a layer are given: normed tokens, prepared for the weights' type.

Layout: that of `forward`; a TYPE record for each encoding, group and set of levels that a model's
matrices have. Trick: products whose weights are of one type read the same prepared tokens; others
prepare them anew. Bound: arithmetic on one row of activations, little beside a product's bytes.
"""

from ternops.decoder.adapted import prepare_beside
from ternops.decoder.low_activations import TO_ATTENTION, prepare_low
from ternops.decoder.records import TYPE_BYTES, ModelRecord, TypeRecord
from ternops.kernels.elementwise import rms_norm
from ternops.kernels.linear import prefetch_rows, prepare_rows
from ternops.kernels.operands import Operands
from ternops.simd import address_of, inlined, kernel, pointer, record_at
from ternops.team import barrier, share


@inlined
def mine(count, thread, threads):
    """The tokens that this thread prepares: a single one is prepared by all."""
    if count == 1:
        return 0, 1
    return share(count, 1, thread, threads)


@inlined
def use_type(p, own, number):
    """Let a thread's record be for weights of a type; gives what is known of it."""
    t = record_at(TypeRecord, p.type_table + number * TYPE_BYTES)
    o = record_at(Operands, address_of(own))
    o.floor, o.prepare, o.multiply = t.floor, t.prepare, t.multiply
    o.fields, o.bias, o.token_block = t.fields, t.bias, t.token_block
    o.group_bits, o.is_blocked, o.levels, o.shift = t.group_bits, t.is_blocked, t.levels, t.shift
    return t


@inlined
def place(p, own, x, norm, inner, count, placed_stride, role, thread, threads):
    """Norm, with each of two weights that is not 0, and place this thread's tokens.

    role: for which layers, as `low_activations` has it.
    """
    first, last = mine(p.tokens, thread, threads)
    normed = pointer(p.normed)
    if p.tokens == 1:
        normed = own + p.own_floats
    if norm != 0:
        for token in range(first, last):
            row = 4 * token * count
            rms_norm(x + row, pointer(norm), count, p.epsilon, normed + row)
        x = normed
    if inner != 0:
        for token in range(first, last):
            row = 4 * token * count
            rms_norm(x + row, pointer(inner), count, p.inner_epsilon, normed + row)
        x = normed
    if p.low != 0:
        prepare_low(address_of(p), own, x, role, count, placed_stride, first, last, thread)
    else:
        prepare_rows(own, x, count, placed_stride, p.tokens, first, last)
    prepare_beside(p, x, count, first, last, thread)


@kernel
def place_again(record, own, number, x, norm, inner, team, thread, threads):
    """Place hidden rows with another inner norm than the product before had, or for weights of
    another type, while threads that are behind read those that were placed."""
    p = record_at(ModelRecord, record)
    if p.tokens > 1:
        barrier(team, threads)
    t = use_type(p, own, number)
    # Where activations are those of a4.8 there are neither inner norms nor several types.
    place(p, own, x, norm, inner, p.hidden, t.placed_hidden, TO_ATTENTION, thread, threads)
    if p.tokens > 1:
        barrier(team, threads)


@inlined
def place_if_other(p, own, before, number, norm, inner, last, team, thread, threads):
    """Place hidden rows again, if the next product has an inner norm, or weights of another type
    than the one before; gives the inner norm that they have now, of which `last` was that before.
    """
    if inner != 0 or number != before:
        last = inner if inner != 0 else last
        place_again(address_of(p), own, number, pointer(p.x), norm, last, team, thread, threads)
    return last


@inlined
def prefetch_matrix(p, number, weights, stride, start, end, thread, threads):
    """Prefetch where this thread will begin to read rows [start, end) of a matrix."""
    t = record_at(TypeRecord, p.type_table + number * TYPE_BYTES)
    prefetch_rows(
        weights, stride, start, end, p.row_step, t.streams, t.panel, t.unit, thread, threads
    )  # fmt: skip
