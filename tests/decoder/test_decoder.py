"""The decoder's logits have the oracle's bits exactly; generating obeys its settings."""

from __future__ import annotations

import itertools
import mmap
import sys
from pathlib import Path

import numpy as np
import pytest

from ternops.decoder import Model, reference
from ternops.decoder.architectures import ARCHITECTURES, NORMS, Architecture
from ternops.decoder.formats.loading import TINY
from ternops.decoder.model import Session
from ternops.decoder.sampler import Sampler
from ternops.decoder.sampling import Sampling
from ternops.decoder.text import load_tokenizer
from ternops.decoder.weights import Weights
from ternops.decoder.workspace import Workspace
from tests.helpers import cases
from tests.helpers.marks import slow_but
from tests.helpers.small_models import LAYOUTS, SIZES, small_config, small_model


@pytest.fixture(scope="module")
def tiny():
    """The checkpoint of the package, on two threads."""
    return Model.from_pretrained(threads=2)


@pytest.fixture(scope="module")
def text():
    """More than 400 tokens of Python."""
    source = Path(cases.__file__).with_name("code.txt").read_text("utf-8")
    tokens = load_tokenizer(TINY).encode(source).ids[:450]
    assert len(tokens) >= 400
    return tokens


@pytest.mark.parametrize("weights", slow_but(["ternary", "fp16"], "ternary"))
def test_tiny_logits_equal_the_oracle(weights, text):
    """The packaged checkpoint, both weights, any number of threads."""
    tokens, expected = text[:70], None
    for threads in (1, 2, 3):
        model = Model.from_pretrained(weights=weights, threads=threads)
        if expected is None:
            expected = reference.logits(model, tokens)
        assert cases.same_bits(model.logits(tokens), expected), f"{threads} threads"


@pytest.mark.parametrize("encoding", cases.TERNARY)
def test_every_encoding_gives_the_same_logits(encoding, tiny, text):
    """The packaged checkpoint, its weights held in another way."""
    model = Model.from_pretrained(weights=encoding, threads=2)
    assert model.encoding == encoding
    assert cases.same_bits(model.logits(text[:30]), tiny.logits(text[:30]))


#: Every pair of a size, a layout and a kind of weights, in a third of what there is of the three.
#: Those of two sizes need no new kernels.
SMALL = [
    pytest.param(size, layout, kind, marks=[] if size in ("hidden 24", "hidden 257")
                 and kind in ("two_bit", "base3", "fp16") else pytest.mark.slow)
    for i, size in enumerate(SIZES)
    for j, layout in enumerate(LAYOUTS)
    for k, kind in enumerate((*cases.TERNARY, "fp16"))
    if (i + j + k) % 3 == 0
]  # fmt: skip


@pytest.mark.parametrize(("size", "layout", "kind"), SMALL)
def test_small_logits_equal_the_oracle(size, layout, kind):
    """Every trunk in odd sizes, tied and not, the whole context, 1 to 7 threads."""
    config = small_config(size, layout)
    tokens = np.random.default_rng(0).integers(0, config.vocabulary, config.context).tolist()
    expected = None
    for threads in cases.THREADS:
        model = small_model(config, kind, threads)
        if expected is None:
            expected = reference.logits(model, tokens)
            assert np.isfinite(expected).all()
            assert len(np.unique(expected)) > config.vocabulary
        assert cases.same_bits(model.logits(tokens), expected), f"{threads} threads"


@pytest.mark.parametrize("cache", ["fp16", "int8"])
@pytest.mark.parametrize("size", slow_but(SIZES, "hidden 24"))
@pytest.mark.parametrize("norms", [("q", "k"), ("q",), ("k",), tuple(reversed(NORMS)), ()])
def test_a_norm_in_any_place_equals_the_oracle(monkeypatch, norms, size, cache):
    """Of heads, everywhere and nowhere; token by token and all in one pass."""
    made = Architecture("made", "Made", norms, (), ())
    monkeypatch.setitem(ARCHITECTURES, "made", made)
    config = small_config(size, "llama", architecture="made", context=24)
    assert set(config.norm_sizes()) == set(norms)
    tokens = np.random.default_rng(0).integers(0, config.vocabulary, 24).tolist()
    for threads in (1, 3):
        model = small_model(config, threads=threads, cache=cache)
        expected = reference.logits(model, tokens)
        assert cases.same_bits(model.logits(tokens), expected)
        session = Session(model)
        found = np.stack([session.step(token).copy() for token in tokens])
        assert cases.same_bits(found, expected)


#: Every size and every layout with both caches.
CACHED = [
    (size, layout, ("fp32", "int8")[(i + j) % 2])
    for i, size in enumerate(SIZES)
    for j, layout in enumerate(LAYOUTS)
]


@pytest.mark.parametrize(("size", "layout", "cache"), CACHED)
def test_another_cache_equals_the_oracle(size, layout, cache):
    """Keys and values as they are; rounded, each with a step of its own."""
    config = small_config(size, layout)
    tokens = np.random.default_rng(0).integers(0, config.vocabulary, config.context).tolist()
    model = small_model(config, cache=cache)
    expected = reference.logits(model, tokens)
    assert not cases.same_bits(expected, reference.logits(small_model(config), tokens))
    assert cases.same_bits(model.logits(tokens), expected)


#: Every encoding with both caches; weights and cache meet nowhere, so that one will do for others.
PASSES = [
    pytest.param(size, kind, ("fp16", "int8")[(i + j) % 2], marks=[pytest.mark.slow] * min(i, 1))
    for i, size in enumerate(("hidden 100", "hidden 200", "hidden 257"))
    for j, kind in enumerate((*cases.TERNARY, "fp16"))
]


@pytest.mark.parametrize(("size", "kind", "cache"), PASSES)
def test_passes_of_any_length_give_the_same_bits(size, kind, cache):
    """One token at a time, a few, and the hundreds of which a prompt is read."""
    config = small_config(size, "bitnet", context=700)
    random = np.random.default_rng(3)
    tokens = random.integers(0, config.vocabulary, 620).tolist()
    model = small_model(config, kind, cache=cache)
    session = Session(model)
    expected = np.stack([session.step(token).copy() for token in tokens])
    for lengths in ([2, 3, 8, 9, 16, 17], [64, 65, 200, 257], [300], [512]):
        session, found = Session(model), []
        for length in lengths:
            start = session.position
            length = min(length, session.max_tokens)
            found += list(session.extend(tokens[start : start + length], length).copy())
        assert cases.same_bits(np.stack(found), expected[: len(found)]), lengths
    session, seen = Session(model), []
    last = session.read(tokens, progress=lambda done, total: seen.append((done, total)))
    assert cases.same_bits(last, expected[-1])
    most = session.max_tokens
    assert seen == [(min(done, 620), 620) for done in range(most, 620 + most, most)]


def test_an_int8_head_is_near_the_fp16_one(tiny, text):
    """Rows rounded to 1/127 of their largest weight: logits within 2% of the largest one."""
    model = Model(tiny.weights, 2, "int8")
    ours, theirs = model.logits(text[:100]), tiny.logits(text[:100])
    assert np.abs(ours - theirs).max() < 0.02 * np.abs(theirs).max()
    assert not cases.same_bits(ours, theirs)


@pytest.mark.parametrize("head", ["fp16", "int8", "screened"])
@pytest.mark.parametrize("draft", slow_but([1, 2, 7, 40], 7))
def test_prompt_lookup_changes_nothing(text, head, draft):
    """Greedy text is the same with drafts, and it needs fewer passes."""
    model = Model.from_pretrained(threads=2, head=head)
    for prompt, most in ((text[:100], 60), (text[:3] * 20, 100), (text[:3], 1), (text[:400], 200)):
        plain = list(model.generate(prompt, most, stop_at_eos=False))
        session = Session(model)
        drafted = model.generate(prompt, most, stop_at_eos=False, prompt_lookup=draft,
                                 session=session)  # fmt: skip
        assert list(drafted) == plain
        assert session.tokens[: len(prompt)] == prompt


def test_prompt_lookup_takes_fewer_passes(text, monkeypatch):
    """Where a text repeats itself."""
    model, calls = Model.from_pretrained(threads=2), []
    original = Session.extend
    monkeypatch.setattr(Session, "extend", lambda self, *a: calls.append(1) or original(self, *a))
    tokens = list(model.generate(text[:60] * 4, 60, prompt_lookup=8, stop_at_eos=False))
    assert len(tokens) == 60
    assert len(calls) < 50


def test_prompt_lookup_stops_at_an_end_and_at_the_context():
    """In the middle of a draft as well."""
    for eos in ((), (3, 7), (12,)):
        model = small_model(small_config("hidden 24", "llama", eos=eos))
        for length in (1, 5, 30, 39, 40):
            prompt = (np.arange(length) % 3 + 1).tolist()
            plain = list(model.generate(prompt, 1000))
            assert list(model.generate(prompt, 1000, prompt_lookup=9)) == plain


def test_a_session_is_gone_on_with(tiny, text):
    """What it holds already is not decoded again; another beginning is."""
    session = Session(tiny)
    first = list(tiny.generate(text[:50], 10, session=session))
    assert first == list(tiny.generate(text[:50], 10))
    for prompt in ([*text[:50], *first, *text[60:70]], text[:20], text[5:30], text[:50]):
        seen = []
        known = next(
            (i for i, (a, b) in enumerate(zip(session.tokens, prompt, strict=False)) if a != b),
            min(len(session.tokens), len(prompt)),
        )
        found = tiny.generate(
            prompt, 10, session=session, progress=lambda done, total, s=seen: s.append(total)
        )
        assert list(found) == list(tiny.generate(prompt, 10))
        assert seen[0] == len(prompt) - min(known, len(prompt) - 1)


def test_top_k(tiny, text):
    """One is greedy; all is no restriction; draws are among the k likeliest."""
    prompt = text[:20]
    settings = {"max_new_tokens": 30, "temperature": 3.0, "seed": 5, "stop_at_eos": False}
    greedy = list(tiny.generate(prompt, 30, stop_at_eos=False))
    assert list(tiny.generate(prompt, top_k=1, **settings)) == greedy
    free = list(tiny.generate(prompt, **settings))
    assert list(tiny.generate(prompt, top_k=5000, **settings)) == free
    tokens = list(tiny.generate(prompt, top_k=4, **settings))
    logits = tiny.logits(prompt + tokens)[len(prompt) - 1 : -1]
    ranks = [(row > row[token]).sum() for row, token in zip(logits, tokens, strict=True)]
    assert max(ranks) == 3


@pytest.mark.parametrize(
    "settings", [{"top_k": 4}, {"top_k": 30, "top_p": 0.8}, {"top_p": 0.8}, {}]
)
def test_a_screened_head_draws_the_same(text, settings):
    """Also with top-p and all, for which it computes the whole head."""
    whole, screened = (Model.from_pretrained(threads=2, head=head) for head in ("fp16", "screened"))
    found = [
        list(each.generate(text[:20], 30, temperature=2.0, seed=1, stop_at_eos=False, **settings))
        for each in (whole, screened)
    ]
    assert found[0] == found[1]


def test_top_p_is_the_smallest_set(tiny, text):
    """Every draw is one of the likeliest tokens whose probabilities reach top_p."""
    prompt = text[:20]
    tokens = list(tiny.generate(prompt, 60, temperature=2.0, top_p=0.6, seed=1, stop_at_eos=False))
    logits = tiny.logits(prompt + tokens)[len(prompt) - 1 : -1].astype(np.float64) / 2.0
    likely = np.exp(logits - logits.max(axis=1, keepdims=True))
    likely /= likely.sum(axis=1, keepdims=True)
    before = [row[row > row[token]].sum() for row, token in zip(likely, tokens, strict=True)]
    assert max(before) < 0.6
    assert max(before) > 0.4


def test_a_shorter_context(text):
    """It is what the cache has room for."""
    model = Model.from_pretrained(context=30, threads=2)
    assert len(list(model.generate(text[:20], 100, stop_at_eos=False))) == 11
    with pytest.raises(ValueError, match="expected at most the context of 30"):
        model.generate(text[:31])
    for context in (0, 513, -1):
        with pytest.raises(ValueError, match=f"context={context}: expected 1 to 512"):
            Model.from_pretrained(context=context)
    assert Model.from_pretrained(context=np.int64(30)).config.context == 30


def test_a_context_too_long_is_refused_before_the_weights_are_read(monkeypatch):
    """They may take minutes."""
    monkeypatch.setattr("ternops.decoder.model.load_weights", lambda *_: pytest.fail("read"))
    with pytest.raises(ValueError, match="context=513: expected 1 to 512"):
        Model.from_pretrained(context=513)


@pytest.mark.parametrize("tied", [True, False])
def test_a_bfloat16_embedding(tied):
    """Its rows and, as the head, its products."""
    model = small_model(small_config("hidden 100", "bitnet", tied=tied), bf16=True)
    tokens = [0, 32, 7, 7, 19]
    assert cases.same_bits(model.logits(tokens), reference.logits(model, tokens))


def test_a_bfloat16_embedding_with_a_float16_head():
    """Each is read in its own type."""
    config = small_config("hidden 100", "bitnet", tied=False)
    mixed = small_model(config, bf16=True).weights
    head = small_model(config).weights.head
    model = Model(Weights(config, mixed.layers, mixed.norm, mixed.embedding, head), 2)
    tokens = [0, 32, 7, 7, 19]
    assert cases.same_bits(model.logits(tokens), reference.logits(model, tokens))


def test_perplexity_is_that_of_float64(tiny, text):
    """Of 400 tokens of Python, within 0.1 % of the same quantised model in float64."""
    ours = reference.perplexity(tiny.logits(text), text)
    exact = reference.perplexity(reference.logits(tiny, text, reference.Double), text)
    assert abs(ours / exact - 1) < 1e-3
    # And the model has learnt something: chance would be the size of the vocabulary.
    assert ours < tiny.config.vocabulary / 10


def test_perplexity_of_known_logits():
    """Equal logits give the number of tokens; certainty gives 1."""
    assert np.isclose(reference.perplexity(np.zeros((5, 7), np.float32), [0, 1, 2, 3, 4]), 7)
    sure = np.full((3, 7), -1e4, np.float32)
    sure[0, 5] = sure[1, 2] = 0
    assert np.isclose(reference.perplexity(sure, [3, 5, 2]), 1)


def test_greedy_is_the_argmax_of_the_logits(tiny, text):
    """Each generated token is the likeliest one after all before it."""
    prompt = text[:20]
    tokens = list(tiny.generate(prompt, max_new_tokens=30, stop_at_eos=False))
    assert len(tokens) == 30
    logits = tiny.logits(prompt + tokens)
    assert tokens == logits[len(prompt) - 1 : -1].argmax(axis=1).tolist()


def test_the_seed_decides(tiny, text):
    """The same seed gives the same text, another seed another one."""
    settings = {"max_new_tokens": 40, "temperature": 1.0, "stop_at_eos": False}
    first, again, other = (
        list(tiny.generate(text[:5], seed=seed, **settings)) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other
    assert len(first) == len(other) == 40


def test_a_tiny_top_p_is_greedy(tiny, text):
    """The smallest nucleus is the likeliest token, whatever the temperature."""
    greedy = list(tiny.generate(text[:5], max_new_tokens=20))
    assert greedy == list(tiny.generate(text[:5], 20, temperature=1.0, top_p=1e-9, seed=3))


def test_an_end_token_ends(text):
    """It is not yielded; stop_at_eos=False goes on."""
    plain = small_model(small_config("hidden 24", "llama"))
    tokens = list(plain.generate([1, 2, 3], max_new_tokens=30))
    assert len(tokens) == 30
    end = tokens[10]
    model = small_model(small_config("hidden 24", "llama", eos=(32, end)))
    before = list(itertools.takewhile(lambda token: token not in (32, end), tokens))
    assert list(model.generate([1, 2, 3], max_new_tokens=30)) == before
    assert list(model.generate([1, 2, 3], max_new_tokens=30, stop_at_eos=False)) == tokens


@pytest.mark.parametrize("length", [1, 39, 40])
def test_the_context_can_be_filled(length):
    """Prompt and text fill it to the last position; one more token comes out of it."""
    model = small_model(small_config("hidden 100", "bitnet"))
    prompt = np.random.default_rng(length).integers(0, 33, length).tolist()
    tokens = list(model.generate(prompt, max_new_tokens=1000))
    assert len(tokens) == 40 - length + 1
    logits = reference.logits(model, prompt + tokens[:-1])
    assert tokens == logits[length - 1 :].argmax(axis=1).tolist()


def test_two_generators_do_not_mix(tiny, text):
    """Interleaved token by token they give what each gives alone."""
    prompts = text[:7], text[100:130]
    alone = [list(tiny.generate(prompt, 25, stop_at_eos=False)) for prompt in prompts]
    both = zip(*(tiny.generate(prompt, 25, stop_at_eos=False) for prompt in prompts), strict=True)
    assert [list(tokens) for tokens in zip(*both, strict=True)] == alone


def test_no_new_tokens(tiny):
    """max_new_tokens=0 yields nothing."""
    assert list(tiny.generate([0], max_new_tokens=0)) == []


@pytest.mark.parametrize(
    ("error", "words", "tokens"),
    [
        (ValueError, "token_ids empty", []),
        (ValueError, "token_ids 1024 1023", [0, 1024]),
        (ValueError, "token_ids -1 1023", [-1]),
        (ValueError, "token_ids 513 512", [0] * 513),
        (TypeError, "token_ids integer", [0.5]),
        (TypeError, "token_ids integer", [1.0]),
        (TypeError, "token_ids integer", ["a"]),
        (TypeError, "token_ids integer", [[1]]),
        (TypeError, "token_ids string", "abc"),
        (TypeError, "token_ids integer", None),
        (TypeError, "token_ids integer", 5),
        (TypeError, "token_ids", np.array([0.0, 1.0])),
    ],
)
def test_bad_tokens_are_named_at_once(tiny, error, words, tokens):
    """By `logits` and by `generate`, before anything is asked of the generator."""
    for call in (tiny.logits, tiny.generate):
        with pytest.raises(error) as caught:
            call(tokens)
        assert "\n" not in str(caught.value)
        assert all(word in str(caught.value) for word in words.split())


@pytest.mark.parametrize(
    ("error", "settings"),
    [
        (ValueError, {"temperature": -1.0}),
        (ValueError, {"temperature": float("nan")}),
        (ValueError, {"temperature": float("inf")}),
        (ValueError, {"top_p": 0.0}),
        (ValueError, {"top_p": 1.5}),
        (ValueError, {"top_p": float("nan")}),
        (ValueError, {"seed": -1}),
        (ValueError, {"top_k": -1}),
        (TypeError, {"top_k": 2.5}),
        (ValueError, {"prompt_lookup": -1}),
        (ValueError, {"min_p": -0.1}),
        (ValueError, {"min_p": float("nan")}),
        (ValueError, {"repetition_penalty": 0.0}),
        (ValueError, {"presence_penalty": float("nan")}),
        (ValueError, {"frequency_penalty": 1e9}),
        (TypeError, {"frequency_penalty": "1"}),
        (ValueError, {"logit_bias": {1024: 1.0}}),
        (ValueError, {"logit_bias": {-1: 1.0}}),
        (ValueError, {"logit_bias": {5: float("inf")}}),
        (ValueError, {"logit_bias": {5: float("nan")}}),
        (TypeError, {"logit_bias": {"a": 1.0}}),
        (TypeError, {"logit_bias": {5: "a"}}),
        (TypeError, {"logit_bias": [5]}),
        (ValueError, {"max_new_tokens": -1}),
        (TypeError, {"max_new_tokens": 1.5}),
    ],
)
def test_bad_settings_are_refused_at_once(tiny, error, settings):
    """A one-line error, which names the setting where it is a value that is wrong."""
    with pytest.raises(error) as caught:
        tiny.generate([0], **settings)
    assert "\n" not in str(caught.value)
    if error is ValueError:
        assert next(iter(settings)) in str(caught.value)


def test_tokens_of_numpy_are_tokens(tiny):
    """An integer array is a sequence of tokens."""
    tokens = np.array([3, 1, 4], np.int32)
    assert cases.same_bits(tiny.logits(tokens), tiny.logits([3, 1, 4]))


def test_a_session_ends_with_the_context():
    """A step beyond it is a ValueError, not a write beyond the cache."""
    model = small_model(small_config("hidden 24", "bitnet", context=3))
    session = Session(model)
    for token in (1, 2, 3):
        session.step(token)
    with pytest.raises(ValueError, match="context"):
        session.step(4)


def test_what_a_session_cannot_decode_is_refused():
    """Tokens outside the vocabulary, passes that are too long, more logits than tokens."""
    model = small_model(small_config("hidden 24", "bitnet", context=600), "tl1")
    session = Session(model)
    for call, words in (
        (lambda: session.step(33), "tokens: 33 to 33, expected 0 to 32"),
        (lambda: session.step(-1), "tokens: -1 to -1, expected 0 to 32"),
        (lambda: session.extend([1, 2, 33], 1), "tokens: 1 to 33, expected 0 to 32"),
        (lambda: session.extend([], 0), "tokens: 0 of them, expected 1 to 512 in a pass"),
        (lambda: session.extend([1] * 513, 1), "tokens: 513 of them, expected 1 to 512 in a pass"),
        (lambda: session.extend([1, 2], 3), "outputs=3: expected 0 to 2"),
        (lambda: session.extend([1, 2], -1), "outputs=-1: expected 0 to 2"),
        (lambda: session.read([]), "tokens: empty"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
    assert session.tokens == []


def test_a_session_of_another_model_is_refused(tiny):
    """At once; it has another shape."""
    session = Session(small_model(small_config("hidden 24", "bitnet")))
    with pytest.raises(ValueError, match="session: of another model"):
        tiny.generate([1], session=session)


@pytest.mark.parametrize("draft", [0, 3])
def test_a_session_used_elsewhere_is_noticed(tiny, text, draft):
    """A generator cannot go on where its text is gone; its last token needs none."""
    for use in (
        lambda session: list(tiny.generate(text[9:12], 2, session=session)),
        lambda session: session.step(7),
        lambda session: setattr(session, "position", 3),
    ):
        session = Session(tiny)
        tokens = tiny.generate(text[:20], 3, session=session, prompt_lookup=draft)
        next(tokens)
        use(session)
        with pytest.raises(RuntimeError, match="session: used elsewhere"):
            next(tokens)
        tokens = tiny.generate(text[:20], 1, session=session, prompt_lookup=draft)
        next(tokens)
        use(session)
        assert list(tokens) == []


@pytest.mark.parametrize("draft", [0, 3])
def test_an_interrupted_session_is_good_for_more(tiny, text, monkeypatch, draft):
    """Its tokens are what the cache holds, wherever the interrupt came."""
    model = Model(tiny.weights, 2, "screened")
    original, expected = Workspace.run, list(tiny.generate(text[:40] * 3, 12, stop_at_eos=False))
    for passes, is_done in itertools.product((1, 2, 5), (False, True)):
        session, left = Session(model), [passes]

        def run(*arguments, left=left, is_done=is_done):
            left[0] -= 1
            logits = original(*arguments) if left[0] or is_done else None
            if left[0] == 0:
                raise KeyboardInterrupt
            return logits

        settings = {"stop_at_eos": False, "prompt_lookup": draft, "session": session}
        monkeypatch.setattr(Workspace, "run", run)
        with pytest.raises(KeyboardInterrupt):
            list(model.generate(text[:40] * 3, 12, **settings))
        monkeypatch.setattr(Workspace, "run", original)
        assert list(model.generate(text[:40] * 3, 12, **settings)) == expected


def test_an_interrupt_leaves_no_head_half_set(tiny, text, monkeypatch):
    """The next pass sets what a screened or a whole head needs once more."""
    model = Model(tiny.weights, 2, "screened")
    session, view = Session(model), model.head.view

    class Interrupting:
        def write_apart(self, *arguments):
            raise KeyboardInterrupt

    expected = session.step(text[0], exact_top=1).copy()
    session.position = 0
    with monkeypatch.context() as patch:
        patch.setattr(model.head, "view", lambda *given: view(*given)._replace(call=Interrupting()))
        with pytest.raises(KeyboardInterrupt):
            session.step(text[0])
    assert session.tokens == []
    assert cases.same_bits(session.step(text[0], exact_top=1), expected)


def test_logits_that_are_no_numbers_are_named():
    """Greedily and drawn, rather than some token."""
    plain = small_model(small_config("hidden 24", "llama"))
    norm = np.full(24, np.nan, np.float32)
    w = plain.weights
    model = Model(Weights(w.config, w.layers, norm, w.embedding, w.head), 2)
    for settings in ({}, {"prompt_lookup": 2}, {"temperature": 1.0}, {"temperature": 1.0,
                     "top_p": 0.5}, {"temperature": 1.0, "top_k": 3}):  # fmt: skip
        with pytest.raises(ValueError, match=r"(?i)^logits: .*nan"):
            list(model.generate([1], 2, **settings))
    for largest in (np.inf, -np.inf):
        with pytest.raises(ValueError, match=r"logits: the largest is -?inf"):
            Sampler(Sampling(temperature=1.0))(np.full(5, largest, np.float32))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("temperature", [5e-324, 1e-300])
@pytest.mark.parametrize("top_p", [1.0, 0.5])
def test_a_tiny_temperature_is_greedy(temperature, top_p):
    """And no warning about weights that vanish."""
    logits = np.random.default_rng(0).standard_normal(500).astype(np.float32)
    logits[::2] = -np.inf
    sampler = Sampler(Sampling(temperature=temperature, top_p=top_p, seed=1))
    assert sampler(logits) == logits.argmax()


@pytest.mark.skipif(sys.platform != "linux", reason="/proc and its numbers are of Linux")
def test_a_large_cache_takes_the_pages_that_it_needs():
    """1.6 GB, of which the first token writes 50 places."""
    shape = {"hidden": 24, "ffn": 24, "heads": 10, "kv_heads": 10, "head_dim": 64, "layers": 5}
    long, short = (small_model(small_config("hidden 24", "llama", context=context, **shape))
                   for context in (2**17, 9))  # fmt: skip
    Session(short).step(1)
    session, before = Session(long), _resident()
    session.step(1)
    assert _resident() - before < 50e6


def _resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


@pytest.mark.parametrize("weights", ["ternary", "fp16"])
def test_from_pretrained_names_what_is_wrong(weights):
    """The kind of weights, and the number of threads."""
    with pytest.raises(ValueError, match="weights='int4'"):
        Model.from_pretrained(weights="int4")
    with pytest.raises(ValueError, match="head='int4'"):
        Model.from_pretrained(weights=weights, head="int4")
    with pytest.raises(ValueError, match="cache='int4'"):
        Model.from_pretrained(weights=weights, cache="int4")
    with pytest.raises(ValueError, match="threads=0"):
        Model.from_pretrained(weights=weights, threads=0)
