"""The cache of keys and values, and attention over it: the oracles' bits exactly."""

from __future__ import annotations

import numpy as np
import pytest

from ternops.decoder import reference as decoder_reference
from ternops.kernels import attention, reference, three_bit_cache
from ternops.simd import kernel, pointer
from tests.helpers import cases

KINDS = {
    "fp16": (attention.FP16, attention.append_fp16, attention.attend_fp16),
    "fp32": (attention.FP32, attention.append_fp32, attention.attend_fp32),
    "int8": (attention.INT8, attention.append_i8, attention.attend_i8),
    "int3": (three_bit_cache.INT3, three_bit_cache.append_i3, three_bit_cache.attend_i3),
}
MANY = 3 * attention.POSITIONS  # positions of the caches here


def compiled(kind):
    """(append, attend) of a kind of cache, as functions of arrays."""
    _, append_one, attend_some = KINDS[kind]

    @kernel
    def append(key, value, head_dim, position, keys, values, key_steps, value_steps, spare):
        append_one(
            pointer(key), pointer(value), head_dim, position, MANY, pointer(keys), pointer(values),
            pointer(key_steps), pointer(value_steps), pointer(spare),
        )  # fmt: skip

    @kernel
    def attend(
        queries, group, first, tokens, window, scale, keys, values, key_steps, value_steps,
        head_dim, scores, stride, out, out_stride,
    ):  # fmt: skip
        attend_some(
            pointer(queries), group, first, tokens, window, scale, pointer(keys), pointer(values),
            pointer(key_steps), pointer(value_steps), head_dim, MANY, pointer(scores), stride,
            pointer(out), out_stride,
        )  # fmt: skip

    return append, attend


@pytest.fixture(scope="module")
def functions():
    """kind -> (append, attend)."""
    return {kind: compiled(kind) for kind in KINDS}


def expected(kind, queries, keys, values, first, window, scale):
    """(tokens, group, head_dim), token after token as the oracle of a decoder computes it."""
    keys, key_steps = decoder_reference.Exact.cached(keys, kind)
    values, value_steps = decoder_reference.Exact.cached(values, kind)
    out = np.empty_like(queries)
    every = reference.scores(queries[:, :, None], keys[None, None]) * scale
    for token in range(len(queries)):
        seen, unseen = slice(first + token + 1), max(0, first + token + 1 - window)
        masked = every[token, :, seen] * key_steps[seen]
        masked[:, :unseen] = -np.inf
        with np.errstate(invalid="ignore", over="ignore"):
            weights = reference.softmax(masked) * value_steps[seen]
        out[token] = reference.weighted_sum(weights, values[seen])
    return out


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("head_dim", [2, 10, 30, 32, 34, 64, 80, 100, 128])
def test_attention(functions, kind, head_dim):
    """Any number of query heads, tokens and positions, each position before the next one's."""
    append, attend = functions[kind]
    elements = KINDS[kind][0]
    for group, tokens, first, window in (
        (1, 1, 0, MANY), (1, 1, 63, MANY), (1, 1, 64, MANY), (3, 1, 15, MANY), (4, 1, 16, MANY),
        (4, 1, 130, MANY), (5, 1, 64, MANY), (8, 1, 100, MANY), (1, 5, 0, MANY), (1, 16, 60, MANY),
        (3, 5, 77, MANY), (4, 4, 125, MANY), (7, 2, 31, MANY), (1, 1, 40, 1), (2, 5, 30, 17),
        (4, 4, 62, 5), (3, 16, 0, 3),
    ):  # fmt: skip
        scale = np.float32(1) / np.sqrt(np.float32(head_dim + group))
        positions = first + tokens
        chunks = -(-head_dim // attention.CHUNK)
        # What comes after the last position, of another sequence for all we know, must not matter.
        cache_keys = np.full(MANY * elements.key_bytes(head_dim) + 64, 77, np.uint8)
        cache_values = np.zeros(MANY * chunks * elements.chunk_bytes + 64, np.uint8)
        steps = [np.full(MANY + 64, 3, np.float32) for _ in range(2)]
        keys, values = (cases.floats(positions, head_dim, seed=seed) for seed in (1, 2))
        spare = np.zeros(8 * head_dim + 256, np.uint8)
        for position in range(positions):
            append(keys[position], values[position], head_dim, position, cache_keys, cache_values,
                 *steps, spare)  # fmt: skip
        queries = cases.floats(tokens * group, head_dim)
        stride = positions + attention.POSITIONS + 16
        scores = np.full((tokens * group + 1, stride), np.nan, np.float32)
        width = group * head_dim + 5
        out = np.full((tokens, width), -5, np.float32)
        attend(queries, group, first, tokens, window, scale, cache_keys, cache_values, *steps,
               head_dim, scores, stride, out, width)  # fmt: skip
        found = out[:, : group * head_dim].reshape(tokens, group, head_dim)
        split = queries.reshape(tokens, group, head_dim)
        right = expected(kind, split, keys, values, first, window, scale)
        assert cases.same_bits(found, right), (group, tokens, first, window)
        assert (out[:, group * head_dim :] == -5).all()


def test_large_keys_stay_finite(functions):
    """What exceeds float16 is kept at its end; NaN stays NaN."""
    append, _ = functions["fp16"]
    keys, values = np.zeros(MANY * 4, np.uint16), np.zeros(MANY * 32, np.uint16)
    none, spare = np.zeros(0, np.float32), np.zeros(512, np.uint8)
    key = np.array([1e30, -1e30, 65519.0, np.nan], np.float32)
    append(key, key, 4, 5, keys, values, none, none, spare)
    found = keys[5::16][:4].view(np.float16)
    assert cases.same_bits(found, np.array([65504, -65504, 65504, np.nan], np.float16))
    assert cases.same_bits(values[5 * 32 : 5 * 32 + 4].view(np.float16), found)
