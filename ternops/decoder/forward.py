"""One pass of some tokens through the whole decoder, as one job of a team.

Layout: a record of addresses and counts for the model, one for each layer and one for each token.
Trick: rows of a product are shared out; what one token needs before a product (norm, quantisation)
every thread does for itself, which saves a barrier each; several tokens are shared out instead.
Bound: for few tokens memory, the bytes of the packed weights and the head; for many the products.
"""

import numpy as np

from ternops.decoder.adapted import add_beside
from ternops.decoder.architectures import LINEAR
from ternops.decoder.exchange import FFN, HIDDEN, LOGITS, PEAKS, QUERIES, gather
from ternops.decoder.feed_forward import add_rows, down_and_add, up_and_gate
from ternops.decoder.inputs import mine, place, place_if_other, prefetch_matrix, use_type
from ternops.decoder.low_activations import TO_ATTENTION, TO_DOWN, TO_FFN, TO_O
from ternops.decoder.records import (
    LAYER_BYTES,
    PARTS,
    TOKEN_BYTES,
    LayerRecord,
    ModelRecord,
    TokenRecord,
)
from ternops.kernels.elementwise import add, rms_norm, scale_row
from ternops.kernels.fp16 import half_row
from ternops.kernels.linear import multiply_rows, prepare_rows
from ternops.kernels.operands import Operands
from ternops.kernels.screen import find_all_peaks, rescore_all
from ternops.simd import (
    TeamJob,
    address_of,
    atomic_add,
    call_layer_kernel,
    call_rows_kernel,
    inlined,
    load,
    nanoseconds,
    pointer,
    record_at,
    store,
)
from ternops.team import barrier, share, share_between

_Q, _K, _V, _O, _GATE = (tuple(LINEAR).index(name) for name in ("q", "k", "v", "o", "gate"))
_PREPARE, _PRODUCTS, _ATTENTION, _WAIT, _HEAD = range(len(PARTS))


@inlined
def _add_time(p, thread, part, since):
    """Add the time since `since` to a part; returns the time now."""
    now = since
    if p.profile != 0 and thread == 0:
        now = nanoseconds()
        counter = pointer(p.profile) + 8 * part
        store(counter, load(np.int64, counter) + (now - since))
    return now


@inlined
def _timed_barrier(p, team, thread, threads, part, since):
    """The barrier, with the time before it added to `part`."""
    since = _add_time(p, thread, part, since)
    barrier(team, threads)
    return _add_time(p, thread, _WAIT, since)


@inlined
def _gathered(p, kind, buffer, team, thread, threads, since):
    """What other processes have computed, behind a barrier; the time counts as waiting."""
    gather(p, kind, buffer, team, thread, threads)
    return _add_time(p, thread, _WAIT, since)


@inlined
def _prepare(p, own, x, norm, inner, count, placed_stride, role, team, thread, threads, time):
    """Norm and place what every thread then reads."""
    place(p, own, x, norm, inner, count, placed_stride, role, thread, threads)
    if p.tokens > 1:
        return _timed_barrier(p, team, thread, threads, _PREPARE, time)
    return _add_time(p, thread, _PREPARE, time)


@inlined
def _add_bias(p, bias, rows, first, last, out):
    """out[:, first:last] += bias, if the layer has one."""
    if bias != 0:
        for token in range(p.tokens):
            add(pointer(out) + 4 * token * rows, pointer(bias), first, last)


@inlined
def _layer(p, at, own, team, thread, threads, time):
    m = record_at(LayerRecord, p.layer_table + at * LAYER_BYTES)
    x = pointer(p.x)

    t = use_type(p, own, m.q_type)
    inner = m.q_input_norm
    time = _prepare(
        p, own, x, m.input_norm, inner, p.hidden, t.placed_hidden, TO_ATTENTION, team, thread,
        threads, time,
    )  # fmt: skip
    f, n = share_between(m.q_first, m.q_last, p.row_step, thread, threads)
    multiply_rows(own, m.q, m.q_stride, m.q_scale, m.q_scale_step, m.q_rows, f, n, p.q)
    add_beside(p, at, _Q, m.q_rows, f, n, p.q, thread)
    _add_bias(p, m.q_bias, m.q_rows, f, n, p.q)
    inner = place_if_other(
        p, own, m.q_type, m.k_type, m.input_norm, m.k_input_norm, inner, team, thread, threads
    )
    f, n = share_between(m.k_first, m.k_last, p.row_step, thread, threads)
    multiply_rows(own, m.k, m.k_stride, m.k_scale, m.k_scale_step, m.k_rows, f, n, p.k)
    add_beside(p, at, _K, m.k_rows, f, n, p.k, thread)
    _add_bias(p, m.k_bias, m.k_rows, f, n, p.k)
    if m.v_rows != 0:
        place_if_other(
            p, own, m.k_type, m.v_type, m.input_norm, m.v_input_norm, inner, team, thread, threads
        )
        multiply_rows(own, m.v, m.v_stride, m.v_scale, m.v_scale_step, m.v_rows, f, n, p.v)
        add_beside(p, at, _V, m.v_rows, f, n, p.v, thread)
        _add_bias(p, m.v_bias, m.v_rows, f, n, p.v)
    prefetch_matrix(
        p, m.o_type, m.o, m.o_stride, p.hidden_first, p.hidden_last, thread, threads
    )  # fmt: skip
    time = _timed_barrier(p, team, thread, threads, _PRODUCTS, time)

    first_job, then_job = p.append, p.attend
    if m.taps != 0:
        first_job, then_job = p.delta_inputs, p.delta_rule
    call_layer_kernel(first_job, address_of(p), at, thread, threads)
    if p.tokens > 1 or m.taps != 0:
        time = _timed_barrier(p, team, thread, threads, _ATTENTION, time)
    call_layer_kernel(then_job, address_of(p), at, thread, threads)
    time = _timed_barrier(p, team, thread, threads, _ATTENTION, time)
    time = _gathered(p, QUERIES, p.attention, team, thread, threads, time)

    t = use_type(p, own, m.o_type)
    mixed, placed = p.heads * p.head_dim, t.placed_queries
    if m.taps != 0:
        mixed, placed = p.delta_values, t.placed_values
    time = _prepare(
        p, own, pointer(p.attention), m.attention_norm, m.o_input_norm, mixed, placed, TO_O, team,
        thread, threads, time,
    )  # fmt: skip
    f, n = share_between(p.hidden_first, p.hidden_last, p.row_step, thread, threads)
    multiply_rows(own, m.o, m.o_stride, m.o_scale, m.o_scale_step, p.hidden, f, n, p.y)
    add_beside(p, at, _O, p.hidden, f, n, p.y, thread)
    add_rows(p, own, m.o_output_norm, f, n, team, thread, threads)
    f, n = p.ffn_first, p.ffn_last
    prefetch_matrix(p, m.gate_type, m.gate, m.gate_stride, f, n, thread, threads)
    if p.most_rows == 0:
        prefetch_matrix(p, m.up_type, m.up, m.up_stride, f, n, thread, threads)
    time = _timed_barrier(p, team, thread, threads, _PRODUCTS, time)
    if m.o_output_norm == 0:
        time = _gathered(p, HIDDEN, p.x, team, thread, threads, time)

    t = use_type(p, own, m.gate_type)
    inner = m.gate_input_norm
    time = _prepare(
        p, own, x, m.post_norm, inner, p.hidden, t.placed_hidden, TO_FFN, team, thread, threads,
        time,
    )  # fmt: skip
    f, n = share_between(f, n, p.row_step, thread, threads)
    multiply_rows(own, m.gate, m.gate_stride, m.gate_scale, m.gate_scale_step, p.ffn, f, n, p.gate)
    add_beside(p, at, _GATE, p.ffn, f, n, p.gate, thread)
    place_if_other(
        p, own, m.gate_type, m.up_type, m.post_norm, m.up_input_norm, inner, team, thread, threads
    )
    up_and_gate(p, m, at, own, f, n, thread)
    if p.most_columns == 0:
        prefetch_matrix(
            p, m.down_type, m.down, m.down_stride, p.hidden_first, p.hidden_last, thread, threads
        )  # fmt: skip
    time = _timed_barrier(p, team, thread, threads, _PRODUCTS, time)
    time = _gathered(p, FFN, p.gate, team, thread, threads, time)

    t = use_type(p, own, m.down_type)
    time = _prepare(
        p, own, pointer(p.gate), m.ffn_norm, m.down_input_norm, p.ffn, t.placed_ffn, TO_DOWN, team,
        thread, threads, time,
    )  # fmt: skip
    down_and_add(p, m, at, own, team, thread, threads)
    if at + 1 < p.layers:
        a = record_at(LayerRecord, p.layer_table + (at + 1) * LAYER_BYTES)
        prefetch_matrix(p, a.q_type, a.q, a.q_stride, a.q_first, a.q_last, thread, threads)
        prefetch_matrix(p, a.k_type, a.k, a.k_stride, a.k_first, a.k_last, thread, threads)
        if a.v_rows != 0:
            prefetch_matrix(p, a.v_type, a.v, a.v_stride, a.k_first, a.k_last, thread, threads)
    time = _timed_barrier(p, team, thread, threads, _PRODUCTS, time)
    if m.down_output_norm == 0:
        time = _gathered(p, HIDDEN, p.x, team, thread, threads, time)
    return time


@inlined
def _screen(p, head, team, thread, threads, first, last):
    """Make exact what may be among the `exact_top` largest logits of each output, the rest -inf."""
    operands = record_at(Operands, address_of(head))
    find_all_peaks(p, operands.placed, operands.placed_stride, first, last)
    barrier(team, threads)
    gather(p, PEAKS, p.peaks, team, thread, threads)
    near = np.float32(0)
    computed = rescore_all(p, operands.placed, operands.placed_stride, near, first, last)
    atomic_add(pointer(p.computed), computed)


@inlined
def _head(p, own, team, thread, threads, time):
    """logits = head . norm(x) of the tokens whose logits are computed."""
    head = own + p.own_head
    first, last = mine(p.outputs, thread, threads)
    normed = pointer(p.normed)
    if p.outputs == 1:
        normed = own + p.own_floats
    for output in range(first, last):
        token = load(np.int64, pointer(p.output_table) + 8 * output)
        x = pointer(p.x) + 4 * token * p.hidden
        rms_norm(x, pointer(p.norm), p.hidden, p.epsilon, normed + 4 * output * p.hidden)
    operands = record_at(Operands, address_of(head))
    prepare_rows(head, normed, p.hidden, operands.placed_stride, p.outputs, first, last)
    if p.outputs > 1:
        barrier(team, threads)
    first, last = share_between(p.head_first, p.head_last, p.head_step, thread, threads)
    call_rows_kernel(operands.multiply, address_of(head), first, last, 0)
    if p.screened:
        _screen(p, head, team, thread, threads, first, last)
    time = _timed_barrier(p, team, thread, threads, _HEAD, time)
    _gathered(p, LOGITS, p.logits, team, thread, threads, time)


@inlined
def _states(p, thread, threads):
    """normed = norm(x) of the tokens whose hidden states are wanted, one after another."""
    first, last = share(p.states, 1, thread, threads)
    for at in range(first, last):
        token = load(np.int64, pointer(p.output_table) + 8 * at)
        x = pointer(p.x) + 4 * token * p.hidden
        target = pointer(p.normed) + 4 * at * p.hidden
        rms_norm(x, pointer(p.state_norm), p.hidden, p.epsilon, target)


@inlined
def _embed(p, thread, threads):
    """x = embedding[tokens]."""
    first, last = share(p.tokens, 1, thread, threads)
    for token in range(first, last):
        t = record_at(TokenRecord, p.token_table + token * TOKEN_BYTES)
        x = pointer(p.x) + 4 * token * p.hidden
        if p.embedding_row != 0:
            call_rows_kernel(p.embedding_row, p.embedding, t.id, address_of(x), thread)
        else:
            table = pointer(p.embedding)
            half_row(p.embedding_is_bf16, table, p.embedding_stride, t.id, p.hidden, x)
        if p.embedding_scale != 1:
            scale_row(x, p.hidden, np.float32(p.embedding_scale))


@TeamJob
def forward(record, team, thread, threads):
    """x = embedding[tokens]; every layer; logits = head . norm(x) of the outputs, or norm(x).

    Of several processes each may have some of this alone.
    """
    p = record_at(ModelRecord, record)
    own = pointer(p.own) + thread * p.own_bytes
    time = nanoseconds() if p.profile != 0 else 0
    if p.embeds != 0:
        _embed(p, thread, threads)
        time = _timed_barrier(p, team, thread, threads, _PREPARE, time)
    for at in range(p.layers):
        time = _layer(p, at, own, team, thread, threads, time)
    if p.outputs > 0:
        _head(p, own, team, thread, threads, time)
    if p.states > 0:
        _states(p, thread, threads)
