"""Decoders whose matrices differ in encoding, levels and group, or are floats."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ternops.decoder import Model, reference
from ternops.decoder.weights import HalfMatrix
from tests.helpers import cases
from tests.helpers.decoding import check_batch, in_passes, stepped
from tests.helpers.small_models import LAYOUTS, TYPES, mixed_weights, small_config

TOKENS = np.random.default_rng(6).integers(0, 33, 40).tolist()


def config_of(layout="bitnet", **changes):
    heads = {"delta_value_dim": 64, "delta_heads": 6, "delta_key_heads": 2}
    extra = heads if "3.5" in layout else {}
    return small_config("hidden 128", layout, context=40, **extra, **changes)


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_the_bits_of_the_oracle(layout):
    """A prompt, single tokens and pieces in between, with 1 and 2 threads."""
    weights = mixed_weights(config_of(layout))
    expected = reference.logits(Model(weights), TOKENS)
    for threads in (1, 2):
        model = Model(weights, threads)
        assert len(model.types) > 2
        assert cases.same_bits(model.logits(TOKENS), expected)
        assert cases.same_bits(stepped(model, TOKENS), expected)
        assert cases.same_bits(in_passes(model, TOKENS, (1, 2, 5, 15, 17)), expected)


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: f"{kind[0]}-{kind[1]}-{len(kind[2])}")
def test_one_type_throughout(kind):
    model = Model(mixed_weights(config_of("qwen3"), [kind]))
    assert len(model.types) == 1
    expected = reference.logits(model, TOKENS)
    assert cases.same_bits(model.logits(TOKENS), expected)
    assert cases.same_bits(stepped(model, TOKENS[:9]), expected[:9])


def test_layer_by_layer():
    """Layers that are of one type each, with a float layer between others."""
    weights = [mixed_weights(config_of("qwen3"), [kind], seed) for seed, kind in enumerate(TYPES)]
    config = dataclasses.replace(weights[0].config, layers=4)
    for first in (0, 1, 5):
        layers = [each.layers[0] for each in weights[first : first + 4]]
        model = Model(dataclasses.replace(weights[0], config=config, layers=layers))
        assert cases.same_bits(model.logits(TOKENS), reference.logits(model, TOKENS))


def test_batches_give_the_same_tokens():
    """As each sequence alone does."""
    model = Model(mixed_weights(config_of("llama")))
    check_batch(model, [TOKENS[:7], TOKENS[7:20], TOKENS[20:21]])


def test_a_mix_is_told():
    model = Model(mixed_weights(config_of("qwen3"), TYPES[:3]))
    assert model.encoding == "two_bit and nibble and fp16"
    assert model.sparsity.kind == "never"
    with pytest.raises(ValueError, match="the weights are two_bit and nibble and fp16, expected"):
        Model(mixed_weights(config_of("bitnet"), TYPES[:3]), sparse="always")
    assert any(isinstance(each, HalfMatrix) for each in model.weights.layers[0].linear.values())
