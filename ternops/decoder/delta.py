"""The jobs of a layer with a gated delta net, in place of those of attention: convolve queries,
keys and values and find out how much each head keeps and writes; then the heads' states."""

import numpy as np

from ternops.decoder.architectures import TAPS
from ternops.decoder.attention import together, turns
from ternops.decoder.config import Config
from ternops.decoder.records import (
    LAYER_BYTES,
    TOKEN_BYTES,
    LayerRecord,
    ModelRecord,
    TokenRecord,
)
from ternops.kernels.delta import GATED, convolve, delta_steps, gates, unit
from ternops.kernels.elementwise import gate_silu, rms_norm
from ternops.simd import LayerKernel, inlined, pointer, record_at

_LANES = 16
_BEFORE = TAPS - 1


@inlined
def _whole(count):
    """Floats in whole vectors."""
    return (count + _LANES - 1) // _LANES * _LANES


@inlined
def _convolve(p, m, item):
    """One head of the queries, the keys or the values, of all tokens; those of the first two get
    a length."""
    keys = 2 * p.delta_key_heads
    first, size = item * p.delta_key_dim, p.delta_key_dim
    if item >= keys:
        first = keys * p.delta_key_dim + (item - keys) * p.delta_value_dim
        size = p.delta_value_dim
    token = 0
    while token < p.tokens:
        t = record_at(TokenRecord, p.token_table + token * TOKEN_BYTES)
        count = together(p, t, token, p.tokens)
        rows, before = pointer(p.q) + 4 * token * p.delta_mixed, pointer(t.states) + m.place
        convolve(rows, p.delta_mixed, count, before, pointer(m.taps), first, first + size)
        token += count
    if item < keys:
        scale = np.float32(1)
        if item < p.delta_key_heads:
            scale = np.float32(1) / np.sqrt(np.float32(p.delta_key_dim))
        for each in range(p.tokens):
            row = pointer(p.q) + 4 * (each * p.delta_mixed + first)
            unit(row, size, scale, row)


@inlined
def _gates(p, m, item, normed):
    """How much of its state one head keeps, and how much of a value it writes, for some tokens."""
    head, first = item % p.delta_heads, item // p.delta_heads * GATED
    row, at = 4 * head * p.hidden, 4 * (first * p.delta_heads + head)
    gates(
        normed + 4 * first * p.hidden, p.hidden, min(GATED, p.tokens - first),
        pointer(m.forget) + row, pointer(m.write) + row, pointer(m.forget_bias) + 4 * head,
        pointer(m.forget_rate) + 4 * head, pointer(p.kept) + at, pointer(p.written) + at,
        p.delta_heads,
    )  # fmt: skip


@LayerKernel
def delta_inputs(record, layer, thread, threads):
    """What the states of all heads need, dealt out by heads, and by some tokens as well."""
    p = record_at(ModelRecord, record)
    m = record_at(LayerRecord, p.layer_table + layer * LAYER_BYTES)
    for turn in range(turns(2 * p.delta_key_heads + p.delta_heads, thread, threads)):
        _convolve(p, m, thread + turn * threads)
    normed = pointer(p.normed)
    if p.tokens == 1:
        normed = pointer(p.own) + (thread * p.own_bytes + p.own_floats)
    items = (p.tokens + GATED - 1) // GATED * p.delta_heads
    for turn in range(turns(items, thread, threads)):
        _gates(p, m, thread + turn * threads, normed)


@inlined
def _head(p, m, states, head, first, count):
    """One head of some tokens of a sequence: its state, the norm and the gate of what it gives."""
    if p.delta_tiled:
        key_head = head % p.delta_key_heads
    else:
        key_head = head // (p.delta_heads // p.delta_key_heads)
    keys, size = p.delta_key_heads * p.delta_key_dim, _whole(p.delta_value_dim)
    state = states + 4 * (_whole(_BEFORE * p.delta_mixed) + head * p.delta_key_dim * size)
    query = pointer(p.q) + 4 * (first * p.delta_mixed + key_head * p.delta_key_dim)
    value = pointer(p.q) + 4 * (first * p.delta_mixed + 2 * keys + head * p.delta_value_dim)
    gate, out = (
        4 * (first * p.delta_heads + head),
        first * p.delta_values + head * p.delta_value_dim,
    )
    delta_steps(
        state, p.delta_key_dim, p.delta_value_dim, query, query + 4 * keys, value, p.delta_mixed,
        pointer(p.kept) + gate, pointer(p.written) + gate, p.delta_heads, count,
        pointer(p.attention) + 4 * out, p.delta_values,
    )  # fmt: skip
    for token in range(count):
        at = 4 * (out + token * p.delta_values)
        found = pointer(p.attention) + at
        rms_norm(found, pointer(m.delta_norm), p.delta_value_dim, p.epsilon, found)
        gate_silu(pointer(p.k) + at, found, 0, p.delta_value_dim, found)


@LayerKernel
def delta_rule(record, layer, thread, threads):
    """The states of all sequences, their heads dealt out, token after token."""
    p = record_at(ModelRecord, record)
    m = record_at(LayerRecord, p.layer_table + layer * LAYER_BYTES)
    first = number = 0
    while first < p.tokens:
        t = record_at(TokenRecord, p.token_table + first * TOKEN_BYTES)
        count = together(p, t, first, p.tokens)
        for head in range(p.delta_heads):
            if (number + head) % threads == thread:
                _head(p, m, pointer(t.states) + m.place, head, first, count)
        number += p.delta_heads
        first += count


def delta_fields(config: Config) -> dict[str, int]:
    """Of the record, where a layer has a delta net."""
    if not any(config.delta_layers):
        return {}
    names = ("delta_heads", "delta_key_heads", "delta_key_dim", "delta_value_dim", "delta_tiled")
    return {
        **{name: getattr(config, name) for name in names},
        **{name: config.sizes[name] for name in ("delta_mixed", "delta_values")},
        "delta_inputs": delta_inputs.address, "delta_rule": delta_rule.address,
    }  # fmt: skip
