"""Penalties, biases, min_p, constraints and log-probabilities, alone and in a batch."""

from __future__ import annotations

import itertools
import pickle

import numpy as np
import pytest

from ternops.decoder import Batch, Model
from ternops.decoder.sampler import Sampler
from ternops.decoder.sampling import Sampling
from tests.helpers import internals
from tests.helpers.decoding import run_batch

SETTINGS = [
    {"repetition_penalty": 1.3},
    {"presence_penalty": 0.7, "frequency_penalty": 0.4},
    {"logit_bias": {7: 4.0, 100: -np.inf, 300: 2.5}},
    {"temperature": 1.0, "seed": 1, "min_p": 0.1},
    {"temperature": 1.5, "seed": 2, "min_p": 0.05, "top_k": 30, "top_p": 0.9},
    {"temperature": 0.8, "seed": 3, "repetition_penalty": 1.2, "presence_penalty": 0.5,
     "logit_bias": {9: 1.0}},
]  # fmt: skip


@pytest.fixture(scope="module")
def tiny():
    """The checkpoint of the package, whose head rules out most tokens where it may."""
    return Model.from_pretrained(threads=2, head="screened")


def prompts(count):
    random = np.random.default_rng(count)
    return [random.integers(2, 1024, random.integers(3, 20)).tolist() for _ in range(count)]


class Only:
    """A constraint: the tokens of `may` that are no neighbours of the last one."""

    def __init__(self, may, packs=False):
        self.may, self.packs, self.last = list(may), packs, -2

    def allowed(self):
        mask = np.zeros(1024, bool)
        mask[[token for token in self.may if abs(token - self.last) > 1]] = True
        return np.packbits(mask, bitorder="little").view(np.uint32) if self.packs else mask

    def accept(self, token):
        assert self.allowed().dtype != bool or self.allowed()[token]
        self.last = token


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_screened_head_chooses_the_same(tiny, settings):
    """What changes logits needs them all."""
    whole = Model(tiny.weights, 2, "fp16")
    for prompt in prompts(3):
        expected = list(whole.generate(prompt, 25, **settings))
        assert list(tiny.generate(prompt, 25, **settings)) == expected


@pytest.mark.parametrize("draft", [1, 6])
def test_prompt_lookup_draws_the_same(tiny, draft):
    """The same tokens as without, whatever the settings, and so the same distribution."""
    for settings in (*SETTINGS, {"temperature": 0.5, "seed": 4}):
        for prompt in [*prompts(2), [5, 6, 7] * 9]:
            settings = {**settings, "stop_at_eos": False}
            expected = list(tiny.generate(prompt, 60, **settings))
            assert list(tiny.generate(prompt, 60, prompt_lookup=draft, **settings)) == expected


def test_a_batch_chooses_the_same(tiny):
    """All settings side by side, with and without log-probabilities and constraints."""
    batch, expected = Batch(tiny, 4), {}
    for i, prompt in enumerate(prompts(4 * len(SETTINGS))):
        settings = {**SETTINGS[i % len(SETTINGS)], "max_new_tokens": 12}
        may = range(i, 1024, 3)
        constraints = [Only(may), Only(may, packs=True)] if i % 2 else [None, None]
        logprobs = (None, 0, 3)[i % 3]
        number = batch.add(prompt, **settings, constraint=constraints[0], logprobs=logprobs)
        expected[number] = list(tiny.generate(prompt, **settings, constraint=constraints[1]))
    assert run_batch(batch) == expected


@pytest.mark.parametrize("draft", [0, 5])
@pytest.mark.parametrize("settings", [{}, {"temperature": 2.0, "seed": 5}])
def test_a_constraint_is_kept(tiny, settings, draft):
    """By every token; a draft that breaks it is not taken."""
    may = [10, 11, 12, 20, 500]
    tokens = list(
        tiny.generate([10, 12, 20, 10, 12, 20, 10], 60, stop_at_eos=False, prompt_lookup=draft,
                      constraint=Only(may), **settings)
    )  # fmt: skip
    assert len(tokens) == 60
    assert set(tokens) <= set(may)
    assert not any(abs(a - b) <= 1 for a, b in itertools.pairwise(tokens))
    with pytest.raises(ValueError, match="constraint: allows no token"):
        list(tiny.generate([1], 2, constraint=Only([5])))


def test_a_constraint_is_not_asked_behind_an_end(tiny):
    """Where it may have nothing to say, though a draft goes on there."""
    end = tiny.config.eos[0]

    class InTurn:
        def __init__(self):
            self.left = [10, 20, end]

        def allowed(self):
            return np.arange(1024) == self.left[0]

        def accept(self, token):
            assert token == self.left.pop(0)

    for draft in (0, 5):
        constraint = InTurn()
        prompt = [9, 10, 20, end, 30, 8, 9]
        assert list(tiny.generate(prompt, constraint=constraint, prompt_lookup=draft)) == [10, 20]
        assert not constraint.left


def test_a_mask_may_be_shorter_or_longer_than_the_vocabulary():
    """Tokens beyond it may not come; a tokenizer may have fewer tokens than a model, or more."""
    logits = np.array([1.0, 5.0, 3.0, 9.0], np.float32)
    for mask, token in (
        (np.array([True, True, True]), 1), (np.ones(7, bool), 3), (np.array([0b101], np.uint32), 2),
        (np.array([-1], np.int32), 3), (np.array([8, 1], np.uint32), 3),
    ):  # fmt: skip
        only = Only([])
        only.allowed, only.accept = lambda mask=mask: mask, lambda token: None
        assert Sampler(Sampling(), (), only)(logits) == token
    only.allowed = lambda: np.ones(4, np.float32)
    with pytest.raises(TypeError, match="constraint: float32"):
        Sampler(Sampling(), (), only)(logits)


def test_log_probabilities_are_of_the_logits_as_they_are(tiny):
    """Whatever temperature, penalty and bias there are."""
    for i, prompt in enumerate(prompts(len(SETTINGS))):
        batch = Batch(tiny, 2)
        batch.add(prompt, 10, **SETTINGS[i], logprobs=3, stop_at_eos=False)
        emitted = []
        while len(batch):
            emitted += batch.step()
        tokens = [each.token for each in emitted]
        logits = tiny.logits([*prompt, *tokens])[len(prompt) - 1 : -1].astype(np.float64)
        expected = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        for each, row in zip(emitted, expected, strict=True):
            # Sums of 1024 float64 in another order.
            np.testing.assert_allclose(each.logprobs.token, row[each.token], rtol=1e-12)
            top = np.argsort(-row, kind="stable")[:3]
            assert [token for token, _ in each.logprobs.top] == top.tolist()
            np.testing.assert_allclose([p for _, p in each.logprobs.top], row[top], rtol=1e-12)


def test_few_log_probabilities(tiny):
    """None is none, 0 that of the token, more than there are all."""
    for count, length in ((None, None), (0, 0), (2, 2), (5000, 1024)):
        batch = Batch(tiny, 1)
        batch.add([3, 4], 1, logprobs=count)
        found = batch.step()[0].logprobs
        assert (found if length is None else len(found.top)) == length
    with pytest.raises(ValueError, match="logprobs=-1: expected 0 or more"):
        batch.add([3, 4], 1, logprobs=-1)


def test_penalties_count_what_they_say():
    """The repetition penalty the prompt as well; the others generated tokens alone."""
    logits = np.array([0.0, 2.0, 1.9, -1.0], np.float32)
    sampler = Sampler(Sampling(repetition_penalty=2.0), [1, 1])
    assert [sampler(logits) for _ in range(3)] == [2, 1, 1]  # 1.9; 1.0 of 0.95; the same
    sampler = Sampler(Sampling(presence_penalty=0.2), [1])
    assert [sampler(logits) for _ in range(4)] == [1, 2, 1, 1]  # 1.8 of 1.7, however often
    sampler = Sampler(Sampling(frequency_penalty=0.2), [1])
    assert [sampler(logits) for _ in range(4)] == [1, 2, 1, 2]


def test_what_is_ruled_out_is_never_drawn():
    """Neither by the smallest random number there is nor by the largest."""
    sampler = Sampler(Sampling(temperature=1.0, logit_bias={0: -np.inf}))
    for number, token in ((0.0, 1), (np.nextafter(1.0, 0), 3)):
        internals.with_random(sampler, number)
        for size in range(4, 60):
            logits = np.full(size, size / 7, np.float32)
            logits[4:] = -np.inf
            assert sampler(logits) == token


def test_a_bias_that_rules_out_every_token_is_named(tiny):
    """Alone, and beside a constraint."""
    for settings in ({}, {"temperature": 1.0}):
        none = dict.fromkeys(range(1024), -np.inf)
        with pytest.raises(ValueError, match="logit_bias: rules out every token"):
            list(tiny.generate([1], 2, logit_bias=none, **settings))
        with pytest.raises(ValueError, match="logit_bias: rules out every token"):
            list(tiny.generate([1], 2, logit_bias={5: -np.inf}, constraint=Only([5]), **settings))


def test_settings_can_be_pickled_and_compared():
    """They are values."""
    settings = Sampling(temperature=0.5, logit_bias={np.int64(3): 1})
    assert pickle.loads(pickle.dumps(settings)) == settings
    assert settings.logit_bias == {3: 1.0}
    with pytest.raises(AttributeError):
        settings.temperature = 1.0
