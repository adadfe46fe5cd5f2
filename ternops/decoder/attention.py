"""The jobs of a layer's attention, for each kind of cache: append keys and values, then attend."""

from typing import NamedTuple

import numpy as np

from ternops.decoder.records import (
    LAYER_BYTES,
    TOKEN_BYTES,
    LayerRecord,
    ModelRecord,
    TokenRecord,
)
from ternops.kernels.attention import (
    CHUNK,
    FP16,
    FP32,
    INT8,
    POSITIONS,
    Elements,
    append_fp16,
    append_fp32,
    append_i8,
    attend_fp16,
    attend_fp32,
    attend_i8,
    make_parts,
    page_of,
    prefetch_page,
    rotate,
)
from ternops.kernels.elementwise import gate_sigmoid, rms_norm
from ternops.kernels.three_bit_cache import INT3, append_i3, attend_i3
from ternops.simd import LayerKernel, inlined, pointer, record_at

# The last layer's weights have evicted keys and values from the CPU's caches, so that they are
# prefetched; those of this many sequences fit the second-level cache.
_MAX_PREFETCHED = 8


@inlined
def _angles(p, m, position):
    """The cosines and sines of a position."""
    offset = position * (p.rotated // 2) * 4
    return pointer(m.cosine) + offset, pointer(m.sine) + offset


@inlined
def _head(p, m, head, head_bytes):
    """Where in a page the keys of one head of a layer begin, of those that it has."""
    return m.place * p.layer_step + head * head_bytes


@inlined
def _since(m, t):
    """The position from which on a token reads keys and values, the first of a page."""
    return max(0, t.position + 1 - m.window) // POSITIONS * POSITIONS


@inlined
def _norm(p, head, weight):
    """Norm one head of a query or a key where it lies, if the layer has a weight for it."""
    if weight != 0:
        rms_norm(head, pointer(weight), p.head_dim, p.epsilon, head)


@inlined
def together(p, t, first, end):
    """How many of the tokens from `first` to `end` are of the sequence of the first one."""
    count = 1
    while first + count < end:
        other = record_at(TokenRecord, p.token_table + (first + count) * TOKEN_BYTES)
        if other.pages != t.pages:
            break
        count += 1
    return count


@inlined
def turns(count, thread, threads):
    """How many of `count` items that are dealt out in turn a thread gets.

    A range() with a variable step could raise an exception, which kernels may not.
    """
    return (count - thread + threads - 1) // threads


def _make_append(append, elements):
    key_bytes_of, head_bytes_of = make_parts(elements)[:2]
    chunk_bytes = elements.chunk_bytes

    @inlined
    def append_keys(record, layer, thread, threads):
        """Norm and rotate the keys of this pass, and append keys and values."""
        p = record_at(ModelRecord, record)
        m = record_at(LayerRecord, p.layer_table + layer * LAYER_BYTES)
        spare = pointer(p.own) + thread * p.own_bytes + p.own_floats
        rotated = spare + 4 * p.head_dim + 128
        key_bytes, head_bytes = key_bytes_of(p.head_dim), head_bytes_of(p.head_dim)
        chunks = (p.head_dim + CHUNK - 1) // CHUNK
        here = p.kv_last - p.kv_first
        if p.tile_tokens == 1 and p.tokens <= _MAX_PREFETCHED:
            for turn in range(turns(p.tokens * here, thread, threads)):
                item = thread + turn * threads
                t = record_at(TokenRecord, p.token_table + item // here * TOKEN_BYTES)
                since = _since(m, t)
                seen, at = t.position + 1 - since, _head(p, m, item % here, head_bytes)
                keys = page_of(pointer(t.pages), since) + at
                prefetch_page(keys, key_bytes, chunk_bytes, chunks, min(seen, POSITIONS))
        # With one token the thread that writes a head's keys is the one that reads them.
        for turn in range(turns(p.tokens * here, thread, threads)):
            item = thread + turn * threads
            token, head = item // here, item % here
            t = record_at(TokenRecord, p.token_table + token * TOKEN_BYTES)
            keys = page_of(pointer(t.pages), t.position) + _head(p, m, head, head_bytes)
            offset = (token * p.kv_heads + p.kv_first + head) * p.head_dim * 4
            cosine, sine = _angles(p, m, t.position)
            _norm(p, pointer(p.k) + offset, m.k_norm)
            rotate(pointer(p.k) + offset, cosine, sine, p.rotated, p.head_dim, rotated)
            append(
                rotated, pointer(p.v) + offset, p.head_dim, t.position % POSITIONS, keys, spare,
            )  # fmt: skip

    return append_keys


def _make_attend(attend, elements):
    head_bytes_of = make_parts(elements).head_bytes

    @inlined
    def attend_all(record, layer, thread, threads):
        """Norm and rotate the queries of this pass; attention over the cache, and its gate.

        Where there are gates, q has that of each head behind its query.
        """
        p = record_at(ModelRecord, record)
        m = record_at(LayerRecord, p.layer_table + layer * LAYER_BYTES)
        own = pointer(p.own) + thread * p.own_bytes
        queries, scores = own + p.own_queries, own + p.own_scores
        shared, width = p.heads // p.kv_heads, p.heads * p.head_dim
        gated = m.q_rows > width
        step = 2 * p.head_dim if gated else p.head_dim
        head_bytes = head_bytes_of(p.head_dim)
        tiles = (p.tokens + p.tile_tokens - 1) // p.tile_tokens
        # In turn, because later tokens see more positions.
        here = p.kv_last - p.kv_first
        for turn in range(turns(tiles * here, thread, threads)):
            item = thread + turn * threads
            first, head = item // here * p.tile_tokens, item % here
            # Another process may have others of the queries that share a key.
            start = max((p.kv_first + head) * shared, p.queries_first)
            group = min((p.kv_first + head + 1) * shared, p.queries_last) - start
            end = min(first + p.tile_tokens, p.tokens)
            while first < end:
                t = record_at(TokenRecord, p.token_table + first * TOKEN_BYTES)
                count = together(p, t, first, end)
                for token in range(count):
                    cosine, sine = _angles(p, m, t.position + token)
                    for each in range(group):
                        at = (first + token) * m.q_rows + (start + each) * step
                        target = queries + 4 * (token * group + each) * p.head_dim
                        _norm(p, pointer(p.q) + 4 * at, m.q_norm)
                        rotate(pointer(p.q) + 4 * at, cosine, sine, p.rotated, p.head_dim, target)
                since = _since(m, t)
                pages = pointer(t.pages) + since // POSITIONS * 8
                out = pointer(p.attention) + 4 * (first * width + start * p.head_dim)
                attend(
                    queries, group, t.position - since, count, m.window, np.float32(p.score_scale),
                    pages, _head(p, m, head, head_bytes), p.head_dim, scores, p.score_stride, out,
                    width,
                )  # fmt: skip
                if gated:
                    for token in range(count):
                        for each in range(group):
                            at = (first + token) * m.q_rows + (start + each) * step
                            gate = pointer(p.q) + 4 * (at + p.head_dim)
                            place = 4 * (token * width + each * p.head_dim)
                            gate_sigmoid(gate, out + place, p.head_dim)
                first += count

    return attend_all


class CacheKind(NamedTuple):
    """How keys and values are kept: their elements, and the jobs of a layer."""

    elements: Elements
    append: LayerKernel
    attend: LayerKernel


def _kind(name, elements, append, attend):
    return CacheKind(
        elements,
        LayerKernel(_make_append(append, elements), f"append_keys_{name}"),
        LayerKernel(_make_attend(attend, elements), f"attention_{name}"),
    )


CACHES = {
    "fp16": _kind("fp16", FP16, append_fp16, attend_fp16),
    "fp32": _kind("fp32", FP32, append_fp32, attend_fp32),
    "int8": _kind("i8", INT8, append_i8, attend_i8),
    "int3": _kind("i3", INT3, append_i3, attend_i3),
}
