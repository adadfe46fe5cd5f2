"""One base and many fine-tunes of one bit a weight: logits have the oracle's bits, whoever is
decoded together; greedy tokens are those of the merged model."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest

from ternops.bitdelta import delta
from ternops.decoder import Batch, Model, reference
from ternops.decoder.deltas import Delta, fingerprint_of
from ternops.decoder.session import Session
from ternops.decoder.weights import HalfMatrix, Layer
from tests.helpers import cases, processes
from tests.helpers.marks import apart, crossed, slow_but
from tests.helpers.small_models import (
    LAYOUTS,
    SIZES,
    small_config,
    small_delta,
    small_model,
    tokens_of,
    tuned_model,
)

KINDS = {"two_bit": 0, "base3": 0, "tl1": 0, "tl2": 0, "fp16": 0, "two_bit, groups": 32}


def made(kind, layout, size="hidden 24", threads=2, count=3, **changes):
    """A model with deltas."""
    if "groups" in kind:
        size = "hidden 128"
    config = small_config(size, layout, **changes)
    group = KINDS[kind]
    return tuned_model(small_model(config, kind.split(",")[0], threads, group=group), count)


@pytest.mark.parametrize(
    ("layout", "kind"),
    crossed(
        LAYOUTS, KINDS, whole=(("llama", "qwen3.5"), ("two_bit",)),
        quick=(("bitnet", "llama", "qwen3 inner", "qwen3.5"), ("two_bit", "fp16")),
    ),
)  # fmt: skip
def test_logits_equal_the_oracle(layout, kind):
    """Of the base and of each delta, all in one pass and token by token, 1 to 7 threads."""
    if layout == "qwen3.5" and "groups" in kind:
        pytest.skip("the values of its delta net are no multiple of the columns that share a scale")
    model = made(kind, layout)
    tokens = tokens_of(model.config, 24)
    expected = {name: reference.logits(model, tokens, delta=name) for name in (None, "a", "b")}
    assert not np.array_equal(expected["a"], expected["b"])
    assert not np.array_equal(expected["a"], expected[None])
    for threads in cases.THREADS:
        model = tuned_model(model, threads=threads)
        for name, wanted in expected.items():
            assert cases.same_bits(model.logits(tokens, name), wanted), (threads, name)
            session = Session(model, delta=name)
            found = [session.step(token).copy() for token in tokens[:5]]
            assert cases.same_bits(np.array(found), wanted[:5]), (threads, name)


@pytest.mark.parametrize("size", slow_but(SIZES, "hidden 257"))
def test_odd_sizes_and_long_passes(size):
    """A pass that the GEMM multiplies, and one of two tokens."""
    for kind in ("fp16", "two_bit"):
        model = made(kind, "llama", size, context=100)
        tokens = tokens_of(model.config, 100)
        wanted = reference.logits(model, tokens, delta="b")
        session = Session(model, delta="b")
        parts = [session.extend(tokens[a:b], b - a).copy() for a, b in ((0, 2), (2, 3), (3, 100))]
        assert cases.same_bits(np.concatenate(parts), wanted)


def run(batch):
    """request -> its tokens, until all have ended."""
    tokens = {}
    while len(batch):
        for request, token, *_ in batch.step():
            tokens.setdefault(request, []).extend([] if token is None else [token])
    return tokens


@pytest.mark.parametrize("kind", slow_but(KINDS, "two_bit", "fp16"))
def test_each_sequence_of_a_batch_has_its_own(kind):
    """Or none, or one that others have as well; its tokens are those of `generate`. In batches of
    any size."""
    model = made(kind, "llama", threads=3)
    requests = []
    for i in range(33):
        name, prompt = (None, "a", "b", "c", "b")[i % 5], tokens_of(model.config, 1 + i % 9, i)
        settings = {"temperature": 1.0, "seed": i} if i % 4 == 3 else {}
        requests.append(((prompt, 1 + i % 7), {"delta": name, **settings}))
    wanted = [list(model.generate(*given, **settings)) for given, settings in requests]
    for size in (1, 2, 7, 8, 9, 30):
        batch = Batch(model, size)
        numbers = [batch.add(*given, **settings) for given, settings in requests]
        assert run(batch) == dict(zip(numbers, wanted, strict=True)), size


def test_eight_sequences_with_eight_deltas():
    """The logits of each are the oracle's: no run has two tokens."""
    model = made("fp16", "llama", "hidden 257", count=8)
    sessions = [Session(model, delta=name) for name in "abcdefgh"]
    tokens = tokens_of(model.config, 8)
    batch = Batch(model, 8)
    for name, token in zip("abcdefgh", tokens, strict=True):
        batch.add([token], 5, delta=name, stop_at_eos=False)
    found = run(batch)
    for number, (session, token) in enumerate(zip(sessions, tokens, strict=True)):
        text = [token]
        for _ in range(5):
            wanted = reference.logits(model, text, delta=session.delta)[-1]
            assert cases.same_bits(session.step(text[-1]).copy(), wanted)
            text.append(int(np.argmax(wanted)))
        assert found[number] == text[1:]


@pytest.mark.parametrize("tier", apart(processes.SETTINGS, "tier", few=()))
def test_every_tier_gives_the_same_bits(tier):
    """Those of the oracle: all in one pass, token by token, and in a batch."""
    processes.skip_unless_another(tier)
    done = processes.run_program("deltas", timeout=900, **processes.SETTINGS[tier])
    assert done.split() == ["done"]


def exact_pair(layout):
    """A model in float16 whose deltas can be merged without any rounding, and the merged one."""
    config = small_config("hidden 24", layout)
    base = small_model(config, "fp16")
    random = np.random.default_rng(7)
    layers, merged, tuned = [], [], []
    for layer in base.weights.layers:
        linear, both, signs = {}, {}, {}
        for name, matrix in layer.linear.items():
            whole = random.integers(-40, 41, matrix.shape) / 256
            change = random.choice([-1, 1], matrix.shape) / 64
            linear[name] = HalfMatrix.from_floats(whole.astype(np.float32))
            both[name] = HalfMatrix.from_floats((whole + change).astype(np.float32))
            signs[name] = delta(linear[name], whole + change).signs
        layers.append(Layer(linear, layer.norms, layer.biases, layer.vectors))
        merged.append(Layer(both, layer.norms, layer.biases, layer.vectors))
        tuned.append(signs)
    weights = dataclasses.replace(base.weights, layers=layers)
    one = Model(weights, 2, deltas={"it": Delta(tuned, fingerprint_of(weights))})
    return one, Model(dataclasses.replace(weights, layers=merged), 2)


@pytest.mark.parametrize("layout", ["llama", "qwen3", "gemma3"])
def test_greedy_tokens_are_those_of_the_merged_model(layout):
    """In float64, where a base and its delta are the merged matrix but for rounding; and the
    kernels' are those of their oracle."""
    model, merged = exact_pair(layout)
    for prompt in ([1, 5, 9], [2], [30, 3, 3, 7]):
        text, mine = list(prompt), list(prompt)
        for _ in range(12):
            wanted = reference.logits(merged, text, reference.Unquantised)[-1]
            found = reference.logits(model, text, reference.Unquantised, delta="it")[-1]
            np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9)
            assert np.argmax(found) == np.argmax(wanted)
            text.append(int(np.argmax(wanted)))
            mine.append(int(np.argmax(reference.logits(model, mine, delta="it")[-1])))
        kernels = list(model.generate(prompt, 12, delta="it", stop_at_eos=False))
        assert kernels == mine[len(prompt) :]
        # int8 activations of the signs alone: close to the merged model.
        close = reference.logits(model, text, delta="it")
        exact = reference.logits(merged, text, reference.Unquantised)
        assert np.abs(close - exact).max() < 0.05 * np.abs(exact).max()


def test_a_session_changes_its_delta():
    """And begins anew; `generate` goes on with the session's."""
    model = made("two_bit", "llama")
    session, prompt = Session(model), tokens_of(model.config, 6)
    expected = {name: list(model.generate(prompt, 5, delta=name)) for name in (None, "a", "b")}
    assert len(set(map(tuple, expected.values()))) > 1
    for name, tokens in expected.items():
        session.delta = name
        assert session.position == 0
        assert list(model.generate(prompt, 5, session=session)) == tokens
        assert session.delta == name
        assert list(model.generate(prompt, 5, session=session, delta=name)) == tokens


def test_drafts_and_copies():
    """Guesses from earlier text are checked with the delta; a copy has the deltas as well."""
    model = made("two_bit", "llama")
    prompt = [1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3]
    wanted = list(model.generate(prompt, 20, delta="c"))
    assert list(model.generate(prompt, 20, delta="c", prompt_lookup=4)) == wanted
    copied = pickle.loads(pickle.dumps(model))
    assert list(copied.generate(prompt, 20, delta="c")) == wanted


def test_relu2_leaves_nothing_out():
    """What a list leaves out is 0 with the base alone."""
    model = made("two_bit", "bitnet")
    assert model.sparsity.kind == "never"
    deltas = {"a": small_delta(model.weights)}
    with pytest.raises(ValueError, match=r"^sparse='always': not with deltas, expected auto"):
        Model(model.weights, 1, sparse="always", deltas=deltas)


def test_bytes_are_one_bit_a_weight():
    """And a scale and a padding for each matrix."""
    model = made("fp16", "llama", "hidden 257")
    weights, layers = model.config.linear_weights, model.config.layers
    for each in model.deltas.of.values():
        assert weights / 8 <= each.nbytes <= weights / 8 + 7 * layers * 512
    assert model.deltas.nbytes == sum(each.nbytes for each in model.deltas.of.values())


def test_unknown_names_list_the_known_ones():
    """Wherever a name is given."""
    model, plain = made("two_bit", "llama"), small_model(small_config("hidden 24", "llama"))
    words = r"^delta='z': expected one of 'a', 'b', 'c'$"
    session = Session(model, delta="a")
    for call in (
        lambda: model.generate([1], delta="z"), lambda: model.logits([1], "z"),
        lambda: Session(model, delta="z"), lambda: Batch(model, 2).add([1], delta="z"),
        lambda: reference.logits(model, [1], delta="z"), lambda: setattr(session, "delta", "z"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            call()
    assert session.delta == "a"
    with pytest.raises(ValueError, match=r"^delta='z': expected one of none: .*no deltas$"):
        plain.generate([1], delta="z")
    with pytest.raises(ValueError, match=r"^delta='b': expected 'a', the session's, or None$"):
        model.generate([1], session=session, delta="b")


def test_a_delta_of_another_base_is_refused():
    """Of other weights, however alike; of other shapes; of other layers."""
    model = small_model(small_config("hidden 24", "llama"))
    found = small_delta(model.weights)
    other = small_model(small_config("hidden 24", "llama"), "base3")
    with pytest.raises(ValueError, match=r"^deltas\['x'\]: of a base whose checksum is .*, exp"):
        Model(dataclasses.replace(other.weights, layers=other.weights.layers[::-1]), 1,
              deltas={"x": found})  # fmt: skip
    large = small_model(small_config("hidden 100", "llama"))
    with pytest.raises(ValueError, match=r"^deltas\['x'\]: q in layer 0 has shape \(30, 24\), exp"):
        Model(large.weights, 1, deltas={"x": found})
    with pytest.raises(ValueError, match=r"^deltas\['x'\]: 1 layers, expected 2"):
        Model(model.weights, 1, deltas={"x": Delta(found.layers[:1], found.base)})
    more = [{**each, "z": each["q"]} for each in found.layers]
    with pytest.raises(ValueError, match=r"^deltas\['x'\]: layer 0 has q, k, .*, z"):
        Model(model.weights, 1, deltas={"x": Delta(more, found.base)})
