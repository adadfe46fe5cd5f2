"""One token through the whole decoder, as one job of a team: four barriers a layer.

Layout: a record of addresses and counts for the model, one more for each layer. Trick: rows of a
product are shared out; norms and quantisation, which are short, are done by every thread for
itself, which saves a barrier each. Bound: memory, the bytes of the packed weights and the head.
"""

import numba
import numpy as np

from ternops.kernels.attention import attend, rotate
from ternops.kernels.elementwise import (
    add,
    copy_floats,
    gate_relu2,
    gate_silu,
    rms_norm,
)
from ternops.kernels.half import LINE, gemv_half, half_row
from ternops.kernels.operands import Operands
from ternops.simd import (
    Job,
    address_of,
    call_job,
    f32,
    full,
    inlined,
    kernel,
    load,
    nanoseconds,
    pointer,
    record_at,
    store,
)
from ternops.team import barrier, share

_COUNTS = "hidden ffn layers heads kv_heads head_dim padded vocabulary context"
_FLAGS = "ternary relu2 embedding_is_bf16 head_is_bf16"
_WEIGHTS = "layer_table embedding head norm cosine sine keys values"
_SHARED = "x y q k v rotated attention gate up logits"
_OWN = "own own_bytes own_floats own_scores score_stride row_step"
_CALL = "token position wants_logits laps"
_INTEGERS = " ".join((_COUNTS, _FLAGS, _WEIGHTS, _SHARED, _OWN, _CALL)).split()
#: The model: counts, flags, addresses of weights, of buffers that threads share, of each thread's
#: own (`own`, own_bytes each: an OPERANDS record, prepared activations, floats, scores), and this
#: call's token. laps:
#: 0, or the address of int64 nanoseconds that thread 0 adds to, one for each of PARTS.
MODEL = np.dtype([(name, np.intp) for name in _INTEGERS] + [("epsilon", np.float64)])
#: Where token, position and wants_logits lie in a MODEL seen as int64.
CALL = slice(_INTEGERS.index("token"), _INTEGERS.index("laps"))

_MATRICES = ("q", "k", "v", "o", "gate", "up", "down")
_NORMS = ("input_norm", "attention_norm", "post_norm", "ffn_norm")
#: A layer: the address, row bytes and scale of each matrix, the address of each norm (0: none).
LAYER = np.dtype(
    [(f"{name}{part}", np.intp) for name in _MATRICES for part in ("", "_stride", "_scale")]
    + [(name, np.intp) for name in _NORMS]
)
LAYER_BYTES = LAYER.itemsize
_Model, _Layer = numba.from_dtype(MODEL), numba.from_dtype(LAYER)


#: What the time of a token is spent on.
PARTS = ("norm and quantise", "ternary products", "attention", "waiting", "head")
_PREPARE, _PRODUCTS, _ATTENTION, _WAIT, _HEAD = range(5)


@inlined
def _lap(p, thread, part, since):
    """Add the time since `since` to a part; gives the time now."""
    now = since
    if p.laps != 0 and thread == 0:
        now = nanoseconds()
        lap = pointer(p.laps) + 8 * part
        store(lap, load(np.int64, lap) + (now - since))
    return now


@inlined
def _meet(p, team, thread, threads, part, since):
    """The barrier, with the time before it added to `part`."""
    since = _lap(p, thread, part, since)
    barrier(team, threads)
    return _lap(p, thread, _WAIT, since)


@inlined
def _clear_padding(x, count):
    """Zero what a longer row may have left in the line behind `count` floats."""
    for i in range(0, LINE, 16):
        store(x + 4 * (count + i), full(f32, 0.0))


@inlined
def _prepare(p, own, x, norm, count):
    """Norm (unless 0) and, for ternary weights, quantise; gives the floats."""
    source = x
    if norm != 0:
        source = own + p.own_floats
        rms_norm(x, pointer(norm), count, p.epsilon, source)
        _clear_padding(source, count)
    if p.ternary:
        operands = record_at(Operands, address_of(own))
        operands.columns = count
        operands.x = address_of(source)
        call_job(operands.prepare, address_of(own), 0, 1, 0)
    return source


@kernel
def _multiply(ternary, weights, stride, scale, rows, own, x, first, last, out):
    """out[first:last] = rows of one matrix times what `_prepare` left."""
    if ternary:
        operands = record_at(Operands, address_of(own))
        operands.weights = weights
        operands.stride = stride
        operands.rows = rows
        operands.scales = scale
        operands.out = address_of(out)
        call_job(operands.multiply, address_of(own), first, last, 0)
    else:
        gemv_half(False, pointer(weights), stride // 2, first, last, x, out)


@inlined
def _attention(p, at, position, own, thread, threads):
    """Rotate, extend the cache and attend, for this thread's key/value heads of a layer."""
    group = p.heads // p.kv_heads
    row = p.padded * 4
    first, last = share(p.kv_heads, 1, thread, threads)
    cosine = pointer(p.cosine) + position * (p.head_dim // 2) * 4
    sine = pointer(p.sine) + position * (p.head_dim // 2) * 4
    for head in range(first, last):
        start = (at * p.kv_heads + head) * p.context * row
        keys, values = pointer(p.keys) + start, pointer(p.values) + start
        # The padding, here and in the queries, was zeroed once and is never written.
        rotate(
            pointer(p.k) + head * p.head_dim * 4, cosine, sine, p.head_dim, keys + position * row
        )
        v = pointer(p.v) + head * p.head_dim * 4
        copy_floats(v, p.head_dim, values + position * row)
        queries = pointer(p.rotated) + head * group * p.padded * 4
        for each in range(group):
            query = pointer(p.q) + (head * group + each) * p.head_dim * 4
            rotate(query, cosine, sine, p.head_dim, queries + each * p.padded * 4)
        attend(
            queries, group, keys, values, p.padded, p.head_dim, position + 1,
            np.float32(1) / np.sqrt(np.float32(p.head_dim)), own + p.own_scores, p.score_stride,
            pointer(p.attention) + head * group * p.head_dim * 4,
        )  # fmt: skip


@inlined
def _layer(p, at, own, team, thread, threads, time):
    m = record_at(_Layer, p.layer_table + at * LAYER_BYTES)
    x, y = pointer(p.x), pointer(p.y)
    heads, keys = p.heads * p.head_dim, p.kv_heads * p.head_dim

    s = _prepare(p, own, x, m.input_norm, p.hidden)
    time = _lap(p, thread, _PREPARE, time)
    f, n = share(heads, p.row_step, thread, threads)
    _multiply(p.ternary, m.q, m.q_stride, m.q_scale, heads, own, s, f, n, pointer(p.q))
    f, n = share(keys, p.row_step, thread, threads)
    _multiply(p.ternary, m.k, m.k_stride, m.k_scale, keys, own, s, f, n, pointer(p.k))
    _multiply(p.ternary, m.v, m.v_stride, m.v_scale, keys, own, s, f, n, pointer(p.v))
    time = _meet(p, team, thread, threads, _PRODUCTS, time)

    _attention(p, at, p.position, own, thread, threads)
    time = _meet(p, team, thread, threads, _ATTENTION, time)

    s = _prepare(p, own, pointer(p.attention), m.attention_norm, heads)
    time = _lap(p, thread, _PREPARE, time)
    f, n = share(p.hidden, p.row_step, thread, threads)
    _multiply(p.ternary, m.o, m.o_stride, m.o_scale, p.hidden, own, s, f, n, y)
    add(x, y, f, n)
    time = _meet(p, team, thread, threads, _PRODUCTS, time)

    s = _prepare(p, own, x, m.post_norm, p.hidden)
    time = _lap(p, thread, _PREPARE, time)
    gate, up = pointer(p.gate), pointer(p.up)
    f, n = share(p.ffn, p.row_step, thread, threads)
    _multiply(p.ternary, m.gate, m.gate_stride, m.gate_scale, p.ffn, own, s, f, n, gate)
    _multiply(p.ternary, m.up, m.up_stride, m.up_scale, p.ffn, own, s, f, n, up)
    if p.relu2:
        gate_relu2(gate, up, f, n, gate)
    else:
        gate_silu(gate, up, f, n, gate)
    time = _meet(p, team, thread, threads, _PRODUCTS, time)

    s = _prepare(p, own, gate, m.ffn_norm, p.ffn)
    time = _lap(p, thread, _PREPARE, time)
    f, n = share(p.hidden, p.row_step, thread, threads)
    _multiply(p.ternary, m.down, m.down_stride, m.down_scale, p.hidden, own, s, f, n, y)
    add(x, y, f, n)
    return _meet(p, team, thread, threads, _PRODUCTS, time)


@Job
def decode(record, team, thread, threads):
    """x = embedding[token]; every layer; logits = head . norm(x) if wanted."""
    p = record_at(_Model, record)
    own = pointer(p.own) + thread * p.own_bytes
    hidden = (p.hidden + LINE - 1) // LINE * LINE
    time = nanoseconds() if p.laps != 0 else 0
    if thread == 0:
        half_row(p.embedding_is_bf16, pointer(p.embedding), hidden, p.token, pointer(p.x))
    time = _meet(p, team, thread, threads, _PREPARE, time)
    for at in range(p.layers):
        time = _layer(p, at, own, team, thread, threads, time)
    if p.wants_logits:
        source = own + p.own_floats
        rms_norm(pointer(p.x), pointer(p.norm), p.hidden, p.epsilon, source)
        _clear_padding(source, p.hidden)
        first, last = share(p.vocabulary, p.row_step, thread, threads)
        gemv_half(p.head_is_bf16, pointer(p.head), hidden, first, last, source, pointer(p.logits))
        _meet(p, team, thread, threads, _HEAD, time)
