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
BEFORE = 64  # bytes of a page before a head's part of it


def compiled(kind):
    """(append, attend) of a kind of cache, as functions of arrays."""
    _, append_one, attend_some = KINDS[kind]

    @kernel
    def append(key, value, head_dim, position, page, spare):
        append_one(
            pointer(key), pointer(value), head_dim, position, pointer(page) + BEFORE, pointer(spare)
        )

    @kernel
    def attend(
        queries, group, first, tokens, window, scale, table, head_dim, scores, stride, out,
        out_stride,
    ):  # fmt: skip
        attend_some(
            pointer(queries), group, first, tokens, window, scale, pointer(table), BEFORE, head_dim,
            pointer(scores), stride, pointer(out), out_stride,
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
        # What comes after the last position, of another sequence for all we know, must not matter;
        # nor where the pages lie.
        size = BEFORE + elements.head_bytes(head_dim)
        memory = np.full((3, size + 64), 77, np.uint8)
        pages = [memory[i] for i in (1, 2, 0)]
        table = np.array([page.ctypes.data for page in pages])
        keys, values = (cases.floats(positions, head_dim, seed=seed) for seed in (1, 2))
        spare = np.zeros(8 * head_dim + 256, np.uint8)
        for position in range(positions):
            page, place = divmod(position, attention.POSITIONS)
            append(keys[position], values[position], head_dim, place, pages[page], spare)
        queries = cases.floats(tokens * group, head_dim)
        stride = positions + attention.POSITIONS + 16
        scores = np.full((tokens * group + 1, stride), np.nan, np.float32)
        width = group * head_dim + 5
        out = np.full((tokens, width), -5, np.float32)
        attend(queries, group, first, tokens, window, scale, table, head_dim, scores, stride, out,
               width)  # fmt: skip
        found = out[:, : group * head_dim].reshape(tokens, group, head_dim)
        split = queries.reshape(tokens, group, head_dim)
        right = expected(kind, split, keys, values, first, window, scale)
        assert cases.same_bits(found, right), (group, tokens, first, window)
        assert (out[:, group * head_dim :] == -5).all()
        assert (memory[:, :BEFORE] == 77).all()
        assert (memory[:, size:] == 77).all()


def test_large_keys_stay_finite(functions):
    """What exceeds float16 is kept at its end; NaN stays NaN."""
    append, _ = functions["fp16"]
    page, spare = np.zeros(BEFORE + attention.FP16.head_bytes(4), np.uint8), np.zeros(512, np.uint8)
    key = np.array([1e30, -1e30, 65519.0, np.nan], np.float32)
    append(key, key, 4, 5, page, spare)
    keys, values = np.split(page[BEFORE:].view(np.float16), [64 * 4])
    right = np.array([65504, -65504, 65504, np.nan], np.float16)
    assert cases.same_bits(keys[5:64:16], right)
    assert cases.same_bits(values[5 * 32 : 5 * 32 + 4], right)
