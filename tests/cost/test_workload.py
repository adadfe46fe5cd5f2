"""The cost model's counts against what the kernels of a decoder are really handed."""

from dataclasses import replace

import numpy as np
import pytest

from ternops.cost.workload import KINDS, weight_bytes, workload
from ternops.decoder import Config, Model
from ternops.decoder.records import (
    LAYER_BYTES,
    MODEL,
    TOKEN_BYTES,
    LayerRecord,
    ModelRecord,
    TokenRecord,
)
from ternops.decoder.session import Session
from ternops.decoder.weights import random_weights
from ternops.encodings import ENCODINGS
from ternops.encodings.common import SLACK
from ternops.kernels.operands import Operands
from ternops.simd import LayerKernel, RowsKernel, atomic_add, pointer, record_at
from tests.helpers import internals

CONFIG = Config(hidden=200, ffn=312, layers=3, heads=4, kv_heads=2, head_dim=50, vocabulary=333,
                context=700, architecture="bitnet", tied=False)  # fmt: skip
PLAIN = Config(hidden=128, ffn=384, layers=2, heads=4, kv_heads=4, head_dim=32, vocabulary=100,
               context=700)  # fmt: skip
QWEN3 = replace(PLAIN, architecture="qwen3", kv_heads=2, head_dim=48)
QWEN2 = replace(PLAIN, architecture="qwen2")
INNER = replace(QWEN3, inner_norms=True)
GEMMA3 = replace(QWEN3, architecture="gemma3", windows=(4, 0))


@RowsKernel
def counted_product(operands, first, last, thread):
    """Count instead of multiplying; the counters are where the scratch would be."""
    p = record_at(Operands, operands)
    at = pointer(p.scratch)
    atomic_add(at, (last - first) * p.columns * p.tokens)
    atomic_add(at + 8, (last - first) * p.stride)


@RowsKernel
def counted_tokens(operands, first, last, thread):
    """Count activations instead of preparing them."""
    p = record_at(Operands, operands)
    atomic_add(pointer(p.scratch) + 16, (last - first) * p.columns)


@LayerKernel
def counted_attention(record, layer, thread, threads):
    """Count what attention would do; the counter is where its scores would be."""
    p = record_at(ModelRecord, record)
    m = record_at(LayerRecord, p.layer_table + layer * LAYER_BYTES)
    for token in range(p.tokens):
        t = record_at(TokenRecord, p.token_table + token * TOKEN_BYTES)
        seen = min(t.position + 1, m.window)
        atomic_add(pointer(p.own_scores), 2 * p.heads * p.head_dim * seen)


def counted(config, kind, tokens, before):
    """macs, bytes, activations and the attention's macs of a pass after `before` positions."""
    weights = random_weights(config, kind)
    model = Model(weights, threads=1)
    session = Session(model)
    if before:
        session.extend([1] * before, 1)
    counters = np.zeros(4, np.int64)
    jobs = (counted_product.address, counted_tokens.address, counted_attention.address)
    internals.replace_jobs(session, tokens, *jobs, counters)
    # The kernels take strides from the layers' records, which only block encodings and floats have.
    session.extend([1] * tokens, 1)
    assert MODEL.itemsize  # the record's layout is the decoder's own
    return counters.tolist()


@pytest.mark.parametrize("config", [CONFIG, PLAIN, QWEN3, QWEN2, INNER, GEMMA3])
@pytest.mark.parametrize("kind", ["fp16", "base3", "two_bit"])
@pytest.mark.parametrize(("tokens", "before"), [(1, 0), (1, 37), (5, 0), (130, 0)])
def test_counts_are_what_the_kernels_are_handed(config, kind, tokens, before):
    """Products, bytes, activations and attention, of decoding and of prefill."""
    macs, read, prepared, attention = counted(config, kind, tokens, before)
    if tokens == 1:
        work = workload(config, kind, "decode", before)
    else:
        work = workload(config, kind, "prefill", tokens)
    parts = {part.name: part for part in work.parts}
    products = [parts[name] for name in ("projections", "FFN", "head")]
    assert sum(part.macs for part in products) == macs
    assert sum(part.bytes for part in products) == read
    assert sum(part.prepared for part in products) == prepared
    assert parts["attention"].macs == attention


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("config", [CONFIG, PLAIN, QWEN3, QWEN2, INNER, GEMMA3])
def test_bytes_are_those_of_real_weights(config, kind):
    """What a token reads, and what a machine must hold."""
    weights = random_weights(config, kind)
    work = workload(config, kind, "decode", 9)
    # The counts leave out the scale of each packed matrix, and what follows its last row.
    rest = 0 if kind == "fp16" else (4 + SLACK) * 7 * config.layers
    # Keys and values of two bytes, ten positions or a window of them.
    seen = sum(min(config.window(layer) or 10, 10) for layer in range(config.layers))
    cache = 2 * 2 * seen * config.kv_heads * config.head_dim
    assert work.bytes == weights.bytes_per_token - rest + cache
    held = weights.bytes_per_token - rest - weights.embedding.bits[0].nbytes
    if not config.tied:
        held += weights.embedding.nbytes
    assert weight_bytes(config, kind) == held


def test_norms_of_heads_are_counted():
    """Each head of the queries and keys of a token once, their weights once a layer."""
    plain, normed = (
        {part.name: part for part in workload(config, "base3", "prefill", 100).parts}["norms"]
        for config in (replace(QWEN3, architecture="llama"), QWEN3)
    )
    assert normed.prepared - plain.prepared == 2 * 100 * (4 + 2) * 48
    assert normed.bytes - plain.bytes == 2 * 2 * 48 * 4


def test_chunks_of_a_prompt_read_the_weights_again():
    """600 tokens are two passes; the head is read once, for the last token."""
    short, long = (workload(CONFIG, "base3", "prefill", count) for count in (512, 600))
    assert (short.passes, long.passes) == (1, 2)
    for name, times in (("projections", 2), ("FFN", 2), ("head", 1)):
        one, two = (next(p for p in work.parts if p.name == name) for work in (short, long))
        assert two.bytes == times * one.bytes


def test_a_batch_shares_the_weights_and_not_the_cache():
    """Eight sequences: the same weights, eight caches, eight times the products."""
    one, eight = (workload(CONFIG, "base3", "decode", 50, batch) for batch in (1, 8))
    first, second = ({part.name: part for part in work.parts} for work in (one, eight))
    for name in ("projections", "FFN", "head"):
        assert second[name].bytes == first[name].bytes
        assert second[name].macs == 8 * first[name].macs
    assert second["attention"].bytes == 8 * first["attention"].bytes
    assert set(ENCODINGS) < set(KINDS)


def test_prompts_of_a_batch_pass_one_by_one():
    """Each with everything that one of them takes, exactly."""
    one, nine = (workload(CONFIG, "tl1", "prefill", 600, each) for each in (1, 9))
    assert (nine.tokens, nine.passes) == (9 * one.tokens, 9 * one.passes)
    for single, all_of_them in zip(one.parts, nine.parts, strict=True):
        for name in ("macs", "bytes", "prepared", "barriers"):
            assert getattr(all_of_them, name) == 9 * getattr(single, name)
