"""The products around the gate of a layer, and what ReLU^2 allows to leave out, bit for bit.

Layout: that of `forward`. Trick: for one token a gate of at most 0 makes a row of `up` useless, and
an activation that is quantised to 0 a column of `down`, which is kept by columns as well: neither
is read. Bound: memory, the bytes of the rows and columns that are left.
"""

import numpy as np

from ternops.decoder.adapted import add_beside
from ternops.decoder.architectures import ACTIVATIONS, LINEAR
from ternops.decoder.exchange import HIDDEN, gather
from ternops.decoder.low_activations import count_up
from ternops.decoder.records import ModelRecord
from ternops.encodings.blocks import BLOCK_BYTES
from ternops.kernels.elementwise import (
    add_i32,
    add_scaled,
    gate_gelu_tanh,
    gate_relu2,
    gate_silu,
    rms_norm,
    scatter_relu2,
)
from ternops.kernels.linear import choose_matrix, multiply_rows
from ternops.kernels.lists import list_codes, list_positive
from ternops.kernels.operands import Operands
from ternops.simd import (
    address_of,
    call_rows_kernel,
    inlined,
    kernel,
    load,
    pointer,
    record_at,
    store,
)
from ternops.team import barrier, share, share_between

_RELU2, _GELU = (ACTIVATIONS.index(name) for name in ("relu2", "gelu_tanh"))
_UP, _DOWN = (tuple(LINEAR).index(name) for name in ("up", "down"))
_ALL = 1024
# Of float32, with room for rounding.
_LARGEST = np.float64(1e38)
# Of the least bytes that are to be saved, where several threads add up their sums.
_BARRIER = 6
# What a product of an int8 activation and a code's value can reach.
_MOST = 256


@kernel
def _add_normed(record, own, norm, first, last, team, thread, threads):
    """As `add_rows`, of y with this norm, which needs all of a token's columns."""
    p = record_at(ModelRecord, record)
    x, y, scale = pointer(p.x), pointer(p.y), np.float32(p.residual_scale)
    barrier(team, threads)
    if p.gather != 0:
        gather(p, HIDDEN, p.y, team, thread, threads)
        first, last = share(p.hidden, p.row_step, thread, threads)
    if p.tokens == 1:
        normed = own + p.own_floats
        rms_norm(y, pointer(norm), p.hidden, p.epsilon, normed)
        add_scaled(x, normed, scale, first, last)
        return
    first, last = share(p.tokens, 1, thread, threads)
    for token in range(first, last):
        row = 4 * token * p.hidden
        rms_norm(y + row, pointer(norm), p.hidden, p.epsilon, y + row)
        add_scaled(x + row, y + row, scale, 0, p.hidden)


@inlined
def add_rows(p, own, norm, first, last, team, thread, threads):
    """x += y, columns [first, last) of every token, or, with a norm, as many of some tokens.

    Of several processes each then has its own columns of x, or, with a norm, all.
    """
    if norm != 0:
        _add_normed(address_of(p), own, norm, first, last, team, thread, threads)
        return
    for token in range(p.tokens):
        row = 4 * token * p.hidden
        scale = np.float32(p.residual_scale)
        add_scaled(pointer(p.x) + row, pointer(p.y) + row, scale, first, last)


@inlined
def _count(own, p, at, count):
    place = own + p.own_counts + 8 * at
    store(place, load(np.int64, place) + count)


@inlined
def _is_finite(p, m, operands):
    """Whether no result of `up` can exceed float32, so that 0 times it is 0."""
    step, scale = load(np.float32, pointer(operands.steps)), load(np.float32, pointer(m.up_scale))
    return np.float64(step) * abs(np.float64(scale)) * np.float64(_MOST * p.hidden) < _LARGEST


@inlined
def _listed_up(p, m, own, first, last):
    """gate = max(gate, 0)^2 * up, rows [first, last), by a list of those that are not 0.

    Gives False where it left that to others.
    """
    listed, operands = own + p.own_listed, record_at(Operands, address_of(own))
    count = list_positive(pointer(p.gate), first, last, listed)
    saved = (last - first - count) * m.up_stride
    if count * _ALL > (last - first) * p.most_rows or saved < p.least_saved:
        return False
    if not _is_finite(p, m, operands):
        return False
    results = own + p.own_floats
    choose_matrix(own, m.up, m.up_stride, m.up_scale, 0, address_of(results))
    operands.listed = address_of(listed)
    call_rows_kernel(p.listed_multiply, address_of(own), 0, count, 0)
    scatter_relu2(pointer(p.gate), first, last, results, listed, count)
    _count(own, p, 0, count)
    return True


@inlined
def up_and_gate(p, m, at, own, first, last, thread):
    """gate = activation(gate) * up, rows [first, last) of every token."""
    if p.low != 0:
        count_up(address_of(p), own, first, last)
    if p.most_rows > 0 and _listed_up(p, m, own, first, last):
        return
    multiply_rows(own, m.up, m.up_stride, m.up_scale, m.up_scale_step, p.ffn, first, last, p.up)
    add_beside(p, at, _UP, p.ffn, first, last, p.up, thread)
    for token in range(p.tokens):
        gate, up = pointer(p.gate) + 4 * token * p.ffn, pointer(p.up) + 4 * token * p.ffn
        if p.activation == _RELU2:
            gate_relu2(gate, up, first, last, gate)
        elif p.activation == _GELU:
            gate_gelu_tanh(gate, up, first, last, gate)
        else:
            gate_silu(gate, up, first, last, gate)
    if p.most_rows > 0:
        _count(own, p, 0, last - first)


@inlined
def _listed_down(p, m, own, team, thread, threads):
    """x += down times what is prepared, by a list of the columns whose activation is not 0.

    Gives False where it left that to others: all threads agree on it, because each makes the list.
    """
    listed, codes = own + p.own_listed, own + p.own_codes
    operands = record_at(Operands, address_of(own))
    most = p.ffn * p.most_columns // _ALL
    # Lists of columns take longer than those of rows, and so does a barrier more.
    least = p.least_saved * (2 if threads == 1 else _BARRIER * threads)
    if (p.ffn - 1) * m.columns_stride < least:
        return False
    placed = pointer(operands.placed)
    count = list_codes(placed, m.down_stride, operands.fields, most, listed, codes)
    if count > most or (p.ffn - count) * m.columns_stride < least:
        return False
    columns = own + p.own_columns
    # The columns have those weights alone whose rows are here.
    here = p.hidden_first
    scale, out = m.down_scale + here * m.down_scale_step, p.y + 4 * here
    o = choose_matrix(columns, m.columns, m.columns_stride, scale, m.down_scale_step, out)
    o.columns = p.hidden_last - here
    first, last = share(count, 8, thread, threads)
    call_rows_kernel(p.columns_multiply, address_of(columns), first, last, 0)
    barrier(team, threads)
    # Each thread adds up the others' sums of some lines to its own.
    block = o.fields * BLOCK_BYTES
    lines = (m.columns_stride + BLOCK_BYTES - 1) // BLOCK_BYTES
    first, last = share(lines, 1, thread, threads)
    line = 4 * block
    sums = own + p.own_sums + first * line
    for other in range(threads):
        if other != thread:
            theirs = pointer(p.own) + other * p.own_bytes + p.own_sums + first * line
            add_i32(sums, theirs, (last - first) * block)
    call_rows_kernel(p.columns_close, address_of(columns), first, last, 0)
    first, last = here + first * block, min(here + last * block, p.hidden_last)
    add_rows(p, own, m.down_output_norm, first, last, team, thread, threads)
    if thread == 0:
        _count(own, p, 1, count)
    return True


@inlined
def down_and_add(p, m, at, own, team, thread, threads):
    """x += down times what is prepared."""
    if p.most_columns > 0 and _listed_down(p, m, own, team, thread, threads):
        return
    first, last = share_between(p.hidden_first, p.hidden_last, p.row_step, thread, threads)
    multiply_rows(
        own, m.down, m.down_stride, m.down_scale, m.down_scale_step, p.hidden, first, last, p.y
    )
    add_beside(p, at, _DOWN, p.hidden, first, last, p.y, thread)
    add_rows(p, own, m.down_output_norm, first, last, team, thread, threads)
    if p.most_columns > 0 and thread == 0:
        _count(own, p, 1, p.ffn)
