"""The jobs of a layer's attention, for each kind of cache: write the tokens' keys, then attend."""

import numpy as np

from ternops.decoder.records import TOKEN_BYTES, Model, Token
from ternops.kernels.attention import (
    CHUNK,
    ask_for,
    attend_fp16,
    attend_i8,
    keep_fp16,
    keep_i8,
    rotate,
)
from ternops.simd import Job, inlined, pointer, record_at

# The last layer's weights have driven out all that was cached, so that it is asked for in advance;
# what so many sequences need of it fits the second-level cache.
_PREFETCH_BYTES = 8


@inlined
def _angles(p, position):
    """The cosines and sines of a position."""
    offset = position * (p.head_dim // 2) * 4
    return pointer(p.cosine) + offset, pointer(p.sine) + offset


@inlined
def _cache(p, t, layer, head, size):
    """Keys, values and their steps of one head of a layer of a token's sequence."""
    at = layer * p.kv_heads + head
    padded = (p.head_dim + CHUNK - 1) // CHUNK * CHUNK
    keys = pointer(t.keys) + at * p.context * p.head_dim * size
    values = pointer(t.values) + at * p.context * padded * size
    steps = at * p.context * 4
    return keys, values, pointer(t.key_steps) + steps, pointer(t.value_steps) + steps


def _make_write(keep, size):
    @inlined
    def write(record, layer, thread, threads):
        """Rotate the keys of this pass and write keys and values."""
        p = record_at(Model, record)
        spare = pointer(p.own) + thread * p.own_bytes + p.own_floats
        rotated = spare + 4 * p.head_dim + 128
        if p.together == 1 and p.tokens <= _PREFETCH_BYTES:
            for item in range(thread, p.tokens * p.kv_heads, threads):
                t = record_at(Token, p.token_table + item // p.kv_heads * TOKEN_BYTES)
                keys, values, _, _ = _cache(p, t, layer, item % p.kv_heads, size)
                ask_for(keys, values, p.head_dim, t.position + 1, p.context, size)
        # With one token the thread that writes a head's keys is the one that reads them.
        for item in range(thread, p.tokens * p.kv_heads, threads):
            token, head = item // p.kv_heads, item % p.kv_heads
            t = record_at(Token, p.token_table + token * TOKEN_BYTES)
            keys, values, key_steps, value_steps = _cache(p, t, layer, head, size)
            offset = (token * p.kv_heads + head) * p.head_dim * 4
            cosine, sine = _angles(p, t.position)
            rotate(pointer(p.k) + offset, cosine, sine, p.head_dim, rotated)
            keep(
                rotated, pointer(p.v) + offset, p.head_dim, t.position, p.context,
                keys, values, key_steps, value_steps, spare,
            )  # fmt: skip

    return write


def _make_read(attend, size):
    @inlined
    def read(record, layer, thread, threads):
        """Attention over the cache."""
        p = record_at(Model, record)
        own = pointer(p.own) + thread * p.own_bytes
        queries, scores = own + p.own_queries, own + p.own_scores
        group, width = p.heads // p.kv_heads, p.heads * p.head_dim
        tiles = (p.tokens + p.together - 1) // p.together
        # In turn, because later tokens see more positions.
        for item in range(thread, tiles * p.kv_heads, threads):
            first, head = item // p.kv_heads * p.together, item % p.kv_heads
            count = min(p.together, p.tokens - first)
            t = record_at(Token, p.token_table + first * TOKEN_BYTES)
            for token in range(count):
                cosine, sine = _angles(p, t.position + token)
                for each in range(group):
                    at = (first + token) * width + (head * group + each) * p.head_dim
                    target = queries + 4 * (token * group + each) * p.head_dim
                    rotate(pointer(p.q) + 4 * at, cosine, sine, p.head_dim, target)
            keys, values, key_steps, value_steps = _cache(p, t, layer, head, size)
            out = pointer(p.attention) + 4 * (first * width + head * group * p.head_dim)
            attend(
                queries, group, t.position, count, keys, values, key_steps, value_steps,
                p.head_dim, p.context, scores, p.score_stride, out, width,
            )  # fmt: skip

    return read


write_fp16, read_fp16 = (
    Job(_make_write(keep_fp16, 2), "write_fp16"), Job(_make_read(attend_fp16, 2), "read_fp16")
)  # fmt: skip
write_i8, read_i8 = (
    Job(_make_write(keep_i8, 1), "write_i8"), Job(_make_read(attend_i8, 1), "read_i8")
)  # fmt: skip

#: The kind of a cache -> NumPy's type of its elements, and the jobs that write and read it.
CACHES = {"fp16": (np.uint16, write_fp16, read_fp16), "int8": (np.int8, write_i8, read_i8)}
