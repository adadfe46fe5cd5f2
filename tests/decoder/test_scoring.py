"""Sequences that are scored together have the likelihoods of each alone, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest

from ternops.decoder import Batch, Model, Session
from ternops.decoder import batch as batch_module
from ternops.decoder.attention import CACHES
from ternops.decoder.cache import page_bytes
from ternops.decoder.perplexity import likelihood, negative_log_likelihoods
from ternops.decoder.workspace import Workspace
from tests.helpers.small_models import LAYOUTS, small_config, small_model, tuned_model

TOKENS = np.random.default_rng(3).integers(0, 33, 400).tolist()


def make(layout="bitnet", cache="fp16"):
    """A small model with a context of 300 tokens."""
    return small_model(small_config("hidden 24", layout, context=300), cache=cache)


def choices():
    """(tokens, start): questions with several answers each, as tasks have them; one of a token, a
    whole text, the same one twice."""
    found = []
    for begin, count in ((0, 1), (5, 40), (5, 64), (5, 65), (9, 130), (20, 10)):
        question = TOKENS[begin : begin + count]
        answers = TOKENS[200:201], TOKENS[230:233], TOKENS[230:310], TOKENS[230:233]
        found += [(question + answer, count) for answer in answers]
    return [*found, (TOKENS[:300], 1), (TOKENS[:2], 1), (TOKENS[:301], 299)]


def scored(batch, wanted, **settings):
    """What a batch says of each."""
    numbers, found = [batch.score(*each, **settings) for each in wanted], {}
    while len(batch):
        for each in batch.step():
            assert (each.token, each.last) == (None, True)
            found[each.request] = each.likelihood
    return [found[number] for number in numbers]


def alone(model, wanted, delta=None):
    """The same of a new session each."""
    return [likelihood(Session(model, delta=delta), *each) for each in wanted]


@pytest.mark.parametrize("size", [1, 3, 40])
@pytest.mark.parametrize("cache", CACHES)
def test_each_is_that_of_a_session(cache, size, monkeypatch):
    """With much memory and little, many rows of logits and few."""
    model = make(cache=cache)
    expected = alone(model, choices())
    for memory in (None, 5 * page_bytes(model.config, cache)):
        for most in (32 << 20, 4 * 33 * 50):
            monkeypatch.setattr(batch_module, "LOGITS_BYTES", most)
            assert scored(Batch(model, size, kv_memory=memory), choices()) == expected


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_trunk(layout):
    """Delta nets share nothing."""
    model = make(layout)
    assert scored(Batch(model, 7), choices()) == alone(model, choices())


def test_a_screened_head_is_exact():
    """Though it is not for those that are continued beside."""
    model = Model.from_pretrained(threads=2, head="screened")
    random, expected = np.random.default_rng(0), {}
    batch = Batch(model, 6)
    for i in range(12):
        tokens = random.integers(2, 1024, 30 + i).tolist()
        expected[batch.score(tokens, 1 + i)] = likelihood(Session(model), tokens, 1 + i)
        expected[batch.add(tokens, 9)] = list(model.generate(tokens, 9))
    found = {}
    while len(batch):
        for number, token, _, _, likely in batch.step():
            if likely:
                found[number] = likely
            else:
                found.setdefault(number, []).extend([] if token is None else [token])
    assert found == expected


def test_fine_tunes():
    """Each with its own, beside the base."""
    model = tuned_model(make(), 2)
    batch = Batch(model, 8)
    numbers = {
        batch.score(*each, delta=delta): (each, delta)
        for each in choices()[:6]
        for delta in (None, "a", "b")
    }
    while len(batch):
        for found in batch.step():
            each, delta = numbers.pop(found.request)
            assert found.likelihood == likelihood(Session(model, delta=delta), *each)
    assert not numbers


@pytest.fixture
def passes(monkeypatch):
    """The tokens of each pass, and of how many logits are wanted."""
    original, found = Workspace.run, []

    def run(self, tokens, outputs, *others):
        found.append((tokens, len(outputs)))
        return original(self, tokens, outputs, *others)

    monkeypatch.setattr(Workspace, "run", run)
    return found


@pytest.mark.parametrize("count", [20, 64, 100])
def test_a_question_is_read_once(count, passes):
    """Its answers wait for it, and then have its pages or a copy of one."""
    model = make()
    wanted = [(TOKENS[:count] + TOKENS[200 + i : 205 + i], count) for i in range(4)]
    expected = alone(model, wanted)
    passes.clear()
    assert scored(Batch(model, 8), wanted) == expected
    # Logits of the last token of the question are wanted by each: it is computed for each.
    assert passes == [(count + 4, 5), (3 * 5, 3 * 5)]


def test_nobody_waits_for_a_token(passes):
    """Not even where a single one is left to compute: passes are as large as they can be."""
    texts = [(TOKENS[i : 300 + i], 1) for i in range(1, 4)]
    scored(Batch(make(), 8), [(TOKENS[:2], 1), *texts])
    assert [tokens for tokens, _ in passes] == [512, 1 + 3 * 299 - 512]


def test_rows_of_logits_are_bounded(monkeypatch, passes):
    """And those of sequences that are continued are as many as the batch is large."""
    monkeypatch.setattr(batch_module, "LOGITS_BYTES", 4 * 33 * 20)
    batch = Batch(make(), 4)
    wanted = [(TOKENS[i : i + 90], 30) for i in range(4)]
    scored(batch, wanted)
    outputs = [count for _, count in passes]
    assert max(outputs) == 20
    assert sum(outputs) == 4 * 60


@pytest.mark.parametrize("vocabulary", [5, 1025, 50_000, 200_000])
def test_losses_do_not_depend_on_the_rows_beside(vocabulary):
    """However many are looked at at a time."""
    random = np.random.default_rng(0)
    logits = random.normal(0, 3, (300_000 // vocabulary + 1, vocabulary)).astype(np.float32)
    targets = random.integers(0, vocabulary, len(logits)).tolist()
    wide = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    chosen = np.take_along_axis(wide, np.array(targets)[:, None], 1)[:, 0]
    expected = np.log(np.exp(wide).sum(axis=1)) - chosen
    assert negative_log_likelihoods(logits, targets) == expected.tolist()


def test_one_that_is_cancelled():
    """Is not heard of again."""
    batch = Batch(make(), 2)
    first, second = batch.score(TOKENS[:300], 1), batch.score(TOKENS[5:300], 90)
    assert batch.step() == []  # more than a pass takes
    batch.cancel(first)
    found = []
    while len(batch):
        found += [each.request for each in batch.step()]
    assert found == [second]


def test_bad_arguments_are_named():
    """As by `add`; memory counts what is computed."""
    model = make()
    batch = Batch(model, 1, kv_memory=page_bytes(model.config, model.cache))
    for tokens, start, words in (
        ([33, 1], 1, "33 is no token"), ([1, 33], 1, "33 is no token"),
        ([1, 2], 0, "start=0: expected"), ([1, 2], 2, "start=2: expected"),
        ([], 1, "start=1: expected"), ([1], 1, "start=1: expected"),
        (TOKENS[:302], 1, "token_ids: 301 tokens, expected at most the context of 300"),
        (TOKENS[:66], 1, "token_ids: 65 tokens take .* expected at most kv_memory"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            batch.score(tokens, start)
    with pytest.raises(ValueError, match="delta='x'"):
        batch.score([1, 2], delta="x")
    assert len(batch) == 0
    assert scored(batch, [(TOKENS[:65], 1)]) == alone(model, [(TOKENS[:65], 1)])
