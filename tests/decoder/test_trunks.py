"""What trunks other than LLaMA's have: windows, biases, scales, norms within linear layers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ternops.decoder import Batch, Model, reference
from ternops.decoder.weights import Layer, Weights
from tests.helpers import cases
from tests.helpers.decoding import in_passes, stepped
from tests.helpers.small_models import LAYOUTS, small_config, small_model

#: Beyond several turns of the attention kernel.
TOKENS = np.random.default_rng(5).integers(0, 33, 210).tolist()
TRUNKS = [name for name in LAYOUTS if name not in ("bitnet", "llama")]


@pytest.mark.parametrize("cache", ["fp16", "int8"])
@pytest.mark.parametrize(
    "windows", [(1, 0), (5, 64), (65, 63), (100, 17), (209, 210), (128, 2**31 - 1)]
)
def test_windows(windows, cache):
    """Any window, on both sides of the positions that are read together: one token, a prompt in
    passes of many lengths, and 1 or 2 threads have the oracle's bits."""
    config = small_config("hidden 24", "gemma3", windows=windows, context=210)
    expected = reference.logits(small_model(config, cache=cache), TOKENS)
    whole = dataclasses.replace(config, windows=(0, 0), rope_local_theta=0.0)
    for threads in (1, 2):
        model = small_model(config, threads=threads, cache=cache)
        assert cases.same_bits(model.logits(TOKENS), expected)
        assert cases.same_bits(stepped(model, TOKENS), expected)
        assert cases.same_bits(in_passes(model, TOKENS, (1, 3, 70, 2, 134)), expected)
    plain = reference.logits(small_model(whole, cache=cache), TOKENS)
    assert not cases.same_bits(plain[1:], expected[1:])


def test_a_window_that_holds_all_is_none():
    """Also of the cache's padding."""
    config = small_config("hidden 24", "qwen3", context=210)
    wide = dataclasses.replace(config, windows=(210, 300))
    found = [small_model(each).logits(TOKENS) for each in (config, wide)]
    assert cases.same_bits(*found)


def test_what_a_window_hides_is_not_read():
    """Logits after a first part do not change with what came before all windows."""
    config = small_config("hidden 24", "gemma3", windows=(9, 9), context=210)
    model = small_model(config)
    other = [7, *TOKENS[1:]]
    assert TOKENS[0] != 7
    found, changed = model.logits(TOKENS), model.logits(other)
    # Two layers see 2 * 8 positions back.
    assert cases.same_bits(found[17:], changed[17:])
    assert (found[:17] != changed[:17]).any(axis=1).all()


@pytest.mark.parametrize("layout", TRUNKS)
def test_a_batch_is_what_each_sequence_is_alone(layout):
    """Greedy tokens of five prompts in three places, prompts longer than a window."""
    config = small_config("hidden 100", layout, context=120)
    model, random = small_model(config), np.random.default_rng(1)
    batch, expected = Batch(model, 3), {}
    for length in (1, 40, 90, 7, 66):
        prompt = random.integers(0, 33, length).tolist()
        expected[batch.add(prompt, 20)] = list(model.generate(prompt, 20))
    found = {number: [] for number in expected}
    while len(batch):
        for number, token, *_ in batch.step():
            found[number] += [] if token is None else [token]
    assert found == expected


@pytest.mark.parametrize("layout", TRUNKS)
@pytest.mark.parametrize("kind", ["two_bit", "fp16"])
def test_one_token_at_a_time(layout, kind):
    """As all in one pass."""
    model = small_model(small_config("hidden 257", layout), kind)
    tokens = TOKENS[: model.config.context]
    assert cases.same_bits(stepped(model, tokens), reference.logits(model, tokens))


@pytest.mark.parametrize(
    ("layout", "field", "value"),
    [
        ("gemma3", "embedding_scale", 1.0),
        ("gemma3", "query_scalar", 0.0),
        ("gemma3", "rope_local_theta", 0.0),
        ("gemma3", "windows", ()),
        ("gemma3", "activation", "silu"),
        ("minicpm", "residual_scale", 1.0),
        ("minicpm", "logit_scale", 1.0),
        ("minicpm", "rope_scale", 1.0),
        ("qwen3 inner", "inner_epsilon", 1e-6),
    ],
)
def test_each_number_counts(layout, field, value):
    """In the kernels and in the oracle."""
    config = small_config("hidden 100", layout)
    neutral = dataclasses.replace(config, **{field: value})
    found = [small_model(each).logits(TOKENS[:30]) for each in (config, neutral)]
    right = [reference.logits(small_model(each), TOKENS[:30]) for each in (config, neutral)]
    assert all(map(cases.same_bits, found, right))
    assert not cases.same_bits(*found)


@pytest.mark.parametrize("name", ["q", "k", "v"])
def test_each_bias_counts(name):
    """Without one of them, logits are others."""
    model = small_model(small_config("hidden 100", "qwen2"))
    w = model.weights
    layers = [
        Layer(each.linear, each.norms, {**each.biases, name: 0 * each.biases[name]})
        for each in w.layers
    ]
    other = Model(Weights(w.config, layers, w.norm, w.embedding, w.head), 2)
    found = other.logits(TOKENS[:30])
    assert cases.same_bits(found, reference.logits(other, TOKENS[:30]))
    assert not cases.same_bits(found, model.logits(TOKENS[:30]))


def test_the_long_factors_are_those_of_a_long_context():
    """By the context that a model is opened with, and not by the tokens that there are."""
    config = small_config(
        "hidden 24", "llama", rope_factors=(1.0,) * 5, rope_long_factors=(4.0,) * 5,
        rope_original=40, context=41,
    )  # fmt: skip
    long, short = (config.rope_angles(), dataclasses.replace(config, context=40).rope_angles())
    assert cases.same_bits(4 * long[:40], short)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"windows": (1,)}, "1 windows, expected one for each of the 2 layers"),
        ({"windows": (1, -1)}, "a window is -1, expected 0 to 2147483647"),
        ({"rope_long_factors": (1.0,)}, "1 rope_long_factors, expected 5"),
        ({"rope_scale": 0.0}, "rope_scale is 0.0, expected a positive number"),
        ({"rope_local_theta": -1.0}, "rope_local_theta is -1.0, expected a positive number"),
        ({"residual_scale": float("nan")}, "residual_scale is nan, expected a positive number"),
    ],
)
def test_numbers_out_of_range(changes, words):
    """One line, naming it."""
    with pytest.raises(ValueError, match=f"^config: {words}"):
        small_config("hidden 24", "llama", **changes)
