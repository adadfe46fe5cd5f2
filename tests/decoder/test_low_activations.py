"""Models with the activations of BitNet a4.8, and caches of 3 bits."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from ternops.commands.options import describe
from ternops.decoder import Batch, Model, Session, open_checkpoint, reference
from ternops.decoder.cache import kv_cache_bytes, page_bytes
from ternops.decoder.formats.gguf_keys import config_keys, form_of
from ternops.decoder.formats.loading import TINY
from ternops.kernels.reference import quantize_rows
from ternops.kernels.reference_low import quantize_absmean
from tests.helpers import cases
from tests.helpers.small_models import SIZES, small_config, small_delta, small_model

A48 = {"activation_quantization": "a4.8"}
TOKENS = [1, 5, 0, 32, 7, 7, 30, 2, 2, 19, 11]


def a48_model(size="hidden 100", kind="two_bit", cache="fp16"):
    return small_model(small_config(size, "bitnet", **A48), kind, cache=cache)


def decoded(model, tokens=TOKENS):
    """Logits of single tokens, and the session that made them."""
    session = Session(model)
    return np.stack([session.step(token).copy() for token in tokens]), session


@pytest.mark.parametrize("kind", ["two_bit", "base3", "tl1", "tl2"])
@pytest.mark.parametrize("size", SIZES)
def test_the_bits_are_those_of_numpy(size, kind):
    """Token by token and all in one pass, for any number of threads, left out or not."""
    plain = a48_model(size, kind)
    expected = reference.logits(plain, TOKENS)
    assert not cases.same_bits(expected, reference.logits(
        small_model(small_config(size, "bitnet"), kind), TOKENS)) or size == "hidden 1"  # fmt: skip
    for threads in (1, 2, 5):
        for sparse in ("auto", "never") if kind.startswith("tl") else ("always", "never"):
            model = Model(plain.weights, threads, sparse=sparse)
            assert cases.same_bits(decoded(model)[0], expected), (threads, sparse)
            assert cases.same_bits(model.logits(TOKENS), expected), (threads, sparse)


@pytest.mark.parametrize("layout", ["llama", "qwen2", "gemma3", "minicpm"])
def test_other_trunks(layout):
    """With and without a norm before o and before down, with norms of outputs, with biases."""
    model = small_model(small_config("hidden 200", layout, activation="relu2", **A48), "base3")
    expected = reference.logits(model, TOKENS)
    for threads in (1, 3):
        again = Model(model.weights, threads)
        assert cases.same_bits(decoded(again)[0], expected)
        assert cases.same_bits(again.logits(TOKENS), expected)


@pytest.mark.parametrize("cache", ["fp16", "fp32", "int8", "int3"])
def test_every_cache(cache):
    """Of such a model, and of others with 3 bits; more tokens than a turn of attention takes."""
    tokens = np.random.default_rng(0).integers(0, 33, 150).tolist()
    models = [a48_model("hidden 128", cache=cache)]
    if cache == "int3":
        models = [small_model(small_config(size, "llama"), cache=cache) for size in SIZES]
    for model in models:
        config = replace(model.config, context=150)
        weights = replace(model.weights, config=config)
        long = Model(weights, 2, cache=cache)
        expected = reference.logits(long, tokens)
        assert cases.same_bits(long.logits(tokens), expected)
        found, _ = decoded(long, tokens)
        assert cases.same_bits(found, expected)


def test_going_back_and_drafts():
    """What was in a cache of 3 bits before is overwritten whole."""
    model = a48_model(cache="int3")
    session = Session(model)
    session.read(TOKENS[::-1])
    session.position = 2
    found = [session.step(token).copy() for token in TOKENS]
    expected = reference.logits(model, TOKENS[:-3:-1] + TOKENS)[2:]
    assert cases.same_bits(np.stack(found), expected)
    plain = list(model.generate([3, 1, 4] * 4, 20))
    assert list(model.generate([3, 1, 4] * 4, 20, prompt_lookup=5)) == plain


@pytest.mark.parametrize("cache", ["fp16", "int3"])
def test_a_batch(cache):
    """Each sequence has the tokens that it has alone."""
    model = a48_model("hidden 200", cache=cache)
    batch, expected, found = Batch(model, 5), {}, {}
    for seed in range(9):
        prompt = np.random.default_rng(seed).integers(0, 33, 3 + seed).tolist()
        expected[batch.add(prompt, 9)] = list(model.generate(prompt, 9))
    while len(batch):
        for request, token, *_ in batch.step():
            found.setdefault(request, []).extend([] if token is None else [token])
    assert found == expected


def active_share(model, tokens):
    """The share of active weights in one pass, as NumPy counts it."""
    names, used = [], 0

    class Counting(reference.Exact):
        @staticmethod
        def ternary(x, matrix, is_int4=False):
            nonlocal used
            names.append(["q", "k", "v", "o", "gate", "up", "down"][len(names) % 7])
            assert is_int4 == (names[-1] not in ("o", "down"))
            codes, _ = (quantize_absmean if is_int4 else quantize_rows)(x, 1e-5)
            codes = np.count_nonzero(codes, axis=1)
            assert names[-1] != "o" or (codes <= -(-x.shape[1] // 2)).all()
            rows = Counting.gates if names[-1] == "up" else matrix.shape[0]
            used += int((codes * rows).sum())
            result = reference.Exact.ternary(x, matrix, is_int4)
            Counting.gates = (result > 0).sum(axis=1)
            return result

    reference.logits(model, tokens, Counting)
    assert len(names) == 7 * model.config.layers
    return used / len(tokens) / model.config.linear_weights


@pytest.mark.parametrize("threads", [1, 3])
def test_the_share_of_active_weights(threads):
    """The same for single tokens, passes of several, and whatever is left out."""
    plain = a48_model("hidden 200", "base3")
    expected = active_share(plain, TOKENS)
    assert 0.2 < expected < 0.7
    for sparse in ("always", "never"):
        model = Model(plain.weights, threads, sparse=sparse)
        _, session = decoded(model)
        assert session.active_share == pytest.approx(expected, rel=1e-12)
        assert f"{expected:.1%} of the linear layers' weights active" in describe(model, session)
        session = Session(model)
        assert session.active_share == 1
        session.extend(TOKENS[:7], 0)
        for token in TOKENS[7:]:
            session.step(token)
        assert session.active_share == pytest.approx(expected, rel=1e-12)
    other = small_model(small_config("hidden 24", "bitnet"))
    _, session = decoded(other)
    assert session.active_share == 1
    assert "active" not in describe(model) + describe(other, session)


def test_values_out_of_range():
    """NaN in a token's way makes its logits NaN, and those alone."""
    model = a48_model("hidden 24")
    for layer in model.weights.layers:
        layer.norms["input"][:] = np.nan
    with np.errstate(invalid="ignore"):
        assert np.isnan(model.logits(TOKENS)).all()


def folder_with(tmp_path, value, **changes):
    """The tiny checkpoint with another config.json."""
    folder = tmp_path / "model"
    shutil.copytree(TINY, folder)
    raw = json.loads((folder / "config.json").read_text())
    raw["quantization_config"]["activation_quantization"] = value
    (folder / "config.json").write_text(json.dumps({**raw, **changes}))
    return folder


def test_a_checkpoint_that_says_so(tmp_path):
    """By a key of its quantization_config; a packed file keeps it, and GGUF has no word for it."""
    folder = folder_with(tmp_path, "a4.8")
    model = Model.from_pretrained(folder, threads=2)
    assert model.config.activation_quantization == "a4.8"
    expected = reference.logits(model, TOKENS)
    assert cases.same_bits(model.logits(TOKENS), expected)
    assert not cases.same_bits(expected, Model.from_pretrained(threads=2).logits(TOKENS))
    from ternops.decoder.formats.convert import convert

    packed = tmp_path / "packed.ternops"
    convert(folder, packed)
    again = Model.from_pretrained(packed, threads=1)
    assert cases.same_bits(again.logits(TOKENS), expected)
    config = open_checkpoint(folder).config
    with pytest.raises(
        ValueError,
        match=r"activation_quantization is .a4\.8., which llama",
    ):
        config_keys(config, form_of(config))


@pytest.mark.parametrize("value", ["a4", 4, [], {}, True])
def test_an_unknown_kind_is_named(tmp_path, value):
    """In a config.json."""
    with pytest.raises(
        ValueError, match=r"activation_quantization is .*, expected .int8. or .a4\.8."
    ):
        open_checkpoint(folder_with(tmp_path, value))


def test_what_it_is_not_for(tmp_path):
    """Each by one line."""
    for layout, changes, words in (
        ("llama", {}, "hidden_act is 'silu', expected relu2"),
        ("qwen3 inner", {"activation": "relu2"}, "a model with inner_norms, expected 'int8'"),
        ("qwen3.5", {"activation": "relu2"}, "a model with delta_layers, expected 'int8'"),
    ):
        with pytest.raises(ValueError, match=f"activation_quantization is 'a4.8' .*{words}"):
            small_config("hidden 24", layout, **A48, **changes)
    with pytest.raises(ValueError, match=r"weights: fp16, expected ternary .* of a4\.8"):
        a48_model(kind="fp16")
    with pytest.raises(ValueError, match=r"weights: two_bit with groups of 64, expected ternary"):
        small_model(small_config("hidden 128", "bitnet", **A48), group=64)
    model = a48_model()
    with pytest.raises(ValueError, match=r"deltas: not of a model with activations of a4\.8"):
        Model(model.weights, deltas={"tuned": small_delta(model.weights)})


def test_bytes_of_a_cache():
    """3 bits an element, and a float32 step a head and position, of keys and of values."""
    config = small_config("hidden 128", "bitnet")
    assert kv_cache_bytes(config, "int3", 10) == 2 * 10 * 2 * 2 * (64 * 3 // 8 + 4)
    assert page_bytes(config, "int3") == 64 * 2 * config.layers * 2 * (64 * 3 // 8 + 4)
