"""Decoders whose linear layers, embedding and head have a scale a group of columns."""

from __future__ import annotations

import numpy as np
import pytest

from ternops.decoder import Model, reference
from ternops.decoder.weights import Weights, random_weights
from tests.helpers import cases
from tests.helpers.decoding import check_batch, in_passes, stepped
from tests.helpers.marks import with_groups
from tests.helpers.small_models import LAYOUTS, small_config, small_model

TOKENS = np.random.default_rng(5).integers(0, 33, 40).tolist()


def config_of(layout="qwen3", **changes):
    return small_config("hidden 128", layout, context=40, **changes)


@pytest.mark.parametrize(
    ("kind", "group"), with_groups(["two_bit", "base3", "one_bit"], [32, 64, 128])
)
def test_the_bits_of_the_oracle(kind, group):
    """A prompt, single tokens and pieces in between, with 1 and 2 threads."""
    expected = reference.logits(small_model(config_of(), kind, group=group), TOKENS)
    for threads in (1, 2):
        model = small_model(config_of(), kind, threads, group=group)
        assert cases.same_bits(model.logits(TOKENS), expected)
        assert cases.same_bits(stepped(model, TOKENS), expected)
        assert cases.same_bits(in_passes(model, TOKENS, (1, 2, 5, 15, 17)), expected)


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_every_trunk(layout):
    """Untied heads as well, with norms within linear layers and scaled residuals."""
    heads = {"delta_value_dim": 64, "delta_heads": 6, "delta_key_heads": 2}
    model = small_model(config_of(layout, **(heads if "3.5" in layout else {})), group=128)
    expected = reference.logits(model, TOKENS)
    assert cases.same_bits(model.logits(TOKENS), expected)
    assert model.head.kind == "ternary"


def test_half_tables():
    """Grouped linear layers between an embedding and a head of two bytes a weight."""
    grouped = random_weights(config_of(tied=False), "two_bit", group=64)
    half = random_weights(config_of(tied=False), "two_bit")
    for embedding, head in ((half.embedding, grouped.head), (grouped.embedding, half.head)):
        weights = Weights(grouped.config, grouped.layers, grouped.norm, embedding, head)
        model = Model(weights)
        assert cases.same_bits(model.logits(TOKENS), reference.logits(model, TOKENS))


def test_batches_give_the_same_tokens():
    """As each sequence alone does."""
    model = small_model(config_of(), group=128)
    check_batch(model, [TOKENS[:7], TOKENS[7:20], TOKENS[20:21]])


def test_groups_of_several_sizes():
    """Tokens are prepared anew where the size changes."""
    one, other = (random_weights(config_of(), "two_bit", group=group) for group in (64, 128))
    weights = Weights(
        one.config, [one.layers[0], other.layers[1]], one.norm, one.embedding, one.head
    )
    model = Model(weights)
    assert cases.same_bits(model.logits(TOKENS), reference.logits(model, TOKENS))
