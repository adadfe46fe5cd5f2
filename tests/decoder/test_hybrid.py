"""Layers with a gated delta net: what a sequence was changes its states, so that going back, drafts
and interrupts must find the states of before."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ternops.decoder import Batch, Model, Session, reference
from ternops.decoder.cache import kv_cache_bytes
from ternops.decoder.embed import Embedder
from ternops.decoder.states import States, layer_bytes
from ternops.decoder.weights import Layer, Weights, random_weights
from ternops.decoder.workspace import Workspace
from tests.helpers import cases
from tests.helpers.decoding import in_passes
from tests.helpers.internals import memory_of
from tests.helpers.small_models import LAYOUTS, small_config, small_model

HYBRIDS = [name for name, layout in LAYOUTS.items() if "delta_layers" in layout]
TOKENS = np.random.default_rng(5).integers(0, 33, 700).tolist()


@pytest.fixture(scope="module")
def model():
    return small_model(small_config("hidden 24", "qwen3.5", context=700))


@pytest.fixture(scope="module")
def expected(model):
    return reference.logits(model, TOKENS)


@pytest.mark.parametrize("cache", ["fp16", "int8"])
@pytest.mark.parametrize("layout", HYBRIDS)
def test_passes_of_any_length(layout, cache):
    """On 1 to 7 threads, which share out heads of 4 or 6."""
    config = small_config("hidden 100", layout, context=90)
    right = reference.logits(small_model(config, cache=cache), TOKENS[:90])
    for threads in cases.THREADS:
        model = small_model(config, threads=threads, cache=cache)
        found = in_passes(model, TOKENS, (1, 2, 3, 40, 1, 1, 42))
        assert cases.same_bits(found, right), f"{threads} threads"


def test_no_attention():
    """Where all layers have a delta net, a cache is states alone."""
    config = small_config("hidden 24", "qwen3.5 tiled", delta_layers=(1, 1))
    model = small_model(config)
    assert cases.same_bits(model.logits(TOKENS[:40]), reference.logits(model, TOKENS[:40]))
    assert Session(model).kv_cache_bytes == 2 * layer_bytes(config)


def test_going_back(model, expected):
    """To any position, by whatever way: a copy, the beginning, or tokens that are computed again,
    in the same pass or in passes of their own."""
    session, random = Session(model), np.random.default_rng(0)
    for turn in range(60):
        if turn % 3:
            session.position = int(random.integers(0, session.position + 1))
        length = min(int(random.choice([1, 1, 2, 17, 60, 512])), session.room)
        start = session.position
        if length == 1:
            assert cases.same_bits(session.step(TOKENS[start]), expected[start])
        elif length:
            found = session.extend(TOKENS[start : start + length], length)
            assert cases.same_bits(found, expected[start : start + length])


def test_going_back_to_another_text(model):
    """Nothing is left of the first one, nor of its copy."""
    session = Session(model)
    session.read(TOKENS[:50])
    session.read(TOKENS[50:60])
    session.position = 20
    other = TOKENS[:20] + TOKENS[300:340]
    session.read(other[20:])
    session.position = 58
    right = reference.logits(model, other)
    assert cases.same_bits(session.extend(other[58:], 2), right[58:])


def test_few_tokens_are_computed_again(model, expected, monkeypatch):
    """Those since the latest copy; many in a pass of their own, of which a copy is then kept."""
    passes, run = [], Workspace.run

    def counted(self, tokens, *args):
        passes.append(tokens)
        return run(self, tokens, *args)

    monkeypatch.setattr(Workspace, "run", counted)
    session = Session(model)
    session.read(TOKENS[:100])
    session.extend(TOKENS[100:110], 0)
    session.position = 105
    found = session.extend(TOKENS[105:108], 3)
    assert cases.same_bits(found, expected[105:108])
    assert passes == [100, 10, 5 + 3]
    for token in TOKENS[108:130]:
        session.step(token)
    session.position = 125
    del passes[:]
    assert cases.same_bits(session.step(TOKENS[125]), expected[125])
    assert passes == [25, 1]
    session.position = 90
    assert cases.same_bits(session.step(TOKENS[90]), expected[90])
    assert passes == [25, 1, 90, 1]


@pytest.mark.parametrize("layout", HYBRIDS)
def test_drafts_change_nothing(layout):
    """Greedy tokens with prompt lookup, of a text that repeats itself; some drafts are wrong."""
    config = small_config("hidden 24", layout, context=300)
    model = small_model(config)
    for prompt in (TOKENS[:12] * 5, TOKENS[:40] + TOKENS[:39]):
        right = list(model.generate(prompt, 100))
        for draft in (1, 4, 20):
            session = Session(model)
            assert list(model.generate(prompt, 100, prompt_lookup=draft, session=session)) == right
            assert session.passes < 100
            again = list(model.generate(prompt, 100, prompt_lookup=draft, session=session))
            assert again == right


def test_a_session_goes_on(model):
    """As a chat does: each text begins with some of the one before."""
    session = Session(model)
    for kept, added in ((0, 30), (35, 40), (60, 3), (10, 20), (30, 1)):
        text = [*session.tokens[:kept], *TOKENS[100 : 100 + added]]
        found = list(model.generate(text, 12, session=session))
        assert found == list(model.generate(text, 12))


@pytest.mark.parametrize("late", [False, True])
def test_an_interrupt(model, expected, monkeypatch, late):
    """Within a pass, which may have changed states: the next one begins from a copy."""
    session, run = Session(model), Workspace.run
    session.read(TOKENS[:40])
    session.extend(TOKENS[40:50], 0)

    def interrupted(self, *args):
        if late:
            run(self, *args)
        raise KeyboardInterrupt

    for length in (1, 5):
        monkeypatch.setattr(Workspace, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            session.extend(TOKENS[50 : 50 + length], length)
        monkeypatch.setattr(Workspace, "run", run)
        assert session.position == 50
        found = session.extend(TOKENS[50 : 50 + length], length)
        assert cases.same_bits(found, expected[50 : 50 + length])
        session.position = 50


def test_an_interrupt_of_a_batch(model, monkeypatch):
    """No token is lost, and none is other."""
    batch, run = Batch(model, 3), Workspace.run
    right = {batch.add(TOKENS[at : at + 9 * at + 1], 15): at for at in range(5)}
    right = {
        number: list(model.generate(TOKENS[at : at + 9 * at + 1], 15))
        for number, at in right.items()
    }
    found = {number: [] for number in right}
    turn = 0

    def sometimes(self, *args):
        logits = run(self, *args)
        if turn % 3 == 2:
            raise KeyboardInterrupt
        return logits

    while len(batch):
        turn += 1
        monkeypatch.setattr(Workspace, "run", sometimes)
        try:
            emitted = batch.step()
        except KeyboardInterrupt:
            continue
        for number, token, *_ in emitted:
            found[number] += [] if token is None else [token]
    assert found == right


def test_states():
    """Their copy is of one position, and is gone with what it was of."""
    config = small_config("hidden 24", "qwen3.5")
    states = States(config)
    memory = memory_of(states)
    assert states.go_back(0) == 0
    assert len(memory) == layer_bytes(config) == 4 * (560 + 6 * 10 * 32)
    memory[:], states.position = 1, 7
    states.keep()
    memory[:], states.position = 2, 9
    assert states.go_back(20) == 9
    assert states.go_back(8) == 7
    assert (memory == 1).all()
    memory[:], states.position = 3, None
    assert states.go_back(8) == 7
    assert (memory == 1).all()
    assert states.go_back(6) == 0
    assert not memory.any()
    memory[:], states.position = 4, None
    assert states.go_back(9) == 0


def test_bytes_of_a_token():
    """Keys and values of layers with attention alone, and all states."""
    config = small_config("hidden 24", "qwen3.5")
    assert config.attention_layers == 1
    assert kv_cache_bytes(config, "fp16", 10) == 2 * 10 * 10 * 2 + layer_bytes(config)
    assert Session(small_model(config)).kv_cache_bytes == 2 * 1 * 10 * 2 + layer_bytes(config)


def test_layers_that_are_reused_are_of_their_kind():
    """Where a layout is larger than memory."""
    config = small_config("hidden 24", "qwen3.5", layers=6, delta_layers=(1, 1, 1, 0, 1, 0))
    layers = random_weights(config, "two_bit", distinct=2).layers
    assert [("qkv" in each.linear) for each in layers] == [True, True, True, False, True, False]
    assert len({id(each) for each in layers}) == 3
    model = small_model(config)
    tokens = TOKENS[:40]
    assert cases.same_bits(model.logits(tokens), reference.logits(model, tokens))


@pytest.mark.parametrize("name", ["taps", "forget", "write", "forget_bias", "forget_rate"])
def test_each_vector_counts(name):
    """In the kernels as in the oracle."""
    model = small_model(small_config("hidden 100", "qwen3.5"))
    w = model.weights
    layers = [
        Layer(
            each.linear, each.norms, each.biases,
            {key: vector / 2 if key == name else vector for key, vector in each.vectors.items()},
        )
        for each in w.layers
    ]  # fmt: skip
    other = Model(Weights(w.config, layers, w.norm, w.embedding, w.head), 2)
    found = other.logits(TOKENS[:30])
    assert cases.same_bits(found, reference.logits(other, TOKENS[:30]))
    assert not cases.same_bits(found, model.logits(TOKENS[:30]))


@pytest.mark.parametrize(("field", "value"), [("rotary_dim", 0), ("delta_tiled", True)])
def test_each_number_counts(field, value):
    config = small_config("hidden 100", "qwen3.5")
    models = [small_model(each) for each in (config, dataclasses.replace(config, **{field: value}))]
    found = [each.logits(TOKENS[:30]) for each in models]
    assert all(
        map(cases.same_bits, found, [reference.logits(each, TOKENS[:30]) for each in models])
    )
    assert not cases.same_bits(*found)


def test_a_text_longer_than_a_pass(model):
    """And a short one before and behind it: each begins without states."""
    embed = Embedder(model)
    for found in (embed([TOKENS, TOKENS[:3]]), embed([TOKENS[:3], TOKENS])[::-1]):
        for row, tokens in zip(found, (TOKENS, TOKENS[:3]), strict=True):
            assert cases.same_bits(row, reference.states(model, tokens)[-1])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"delta_layers": (1,)}, "1 delta_layers, expected one for each of the 2 layers"),
        ({"delta_layers": (1, 2)}, r"delta_layers is \(1, 2\), expected 0 or 1"),
        ({"delta_heads": 0}, "delta_heads is 0, expected 1 to"),
        ({"delta_value_dim": 2**16}, "delta_value_dim is 65536, expected 1 to 65535"),
        ({"delta_key_heads": 4}, "6 delta_heads, expected a multiple of the 4 delta_key_heads"),
        ({"rotary_dim": 3}, "rotary_dim is 3, expected an even number up to 10"),
        ({"rotary_dim": 12}, "rotary_dim is 12, expected an even number up to 10"),
        ({"rotary_dim": -2}, "rotary_dim is -2, expected an even number up to 10"),
        ({"inner_norms": True}, "inner_norms and delta_layers, expected one of them"),
        ({"architecture": "qwen3"}, "delta_layers in a qwen3, expected none"),
    ],
)
def test_numbers_out_of_range(changes, words):
    """One line, naming it."""
    with pytest.raises(ValueError, match=f"^config: {words}"):
        small_config("hidden 24", "qwen3.5", **changes)
