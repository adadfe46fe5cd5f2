"""Sequences decoded together are what each is alone, whatever other sequences come and go."""

from __future__ import annotations

import contextlib
import itertools

import numpy as np
import pytest

from ternops.decoder import Batch, Model
from ternops.decoder.workspace import Workspace
from tests.helpers.decoding import run_batch
from tests.helpers.small_models import small_config, small_model


@pytest.fixture(scope="module")
def tiny():
    """The checkpoint of the package, on two threads."""
    return Model.from_pretrained(threads=2, head="screened")


def prompts(count, most=30, vocabulary=1024):
    """Random token sequences of different lengths."""
    random = np.random.default_rng(count)
    return [random.integers(2, vocabulary, random.integers(1, most)).tolist() for _ in range(count)]


@pytest.mark.parametrize("size", [1, 2, 3, 8, 40])
def test_each_sequence_is_that_of_generate(tiny, size):
    """Greedy and drawn ones side by side, more of them than places."""
    batch, expected = Batch(tiny, size), {}
    for i, prompt in enumerate(prompts(20)):
        settings = (
            {}, {"temperature": 1.0, "seed": i}, {"temperature": 0.7, "top_k": 5, "seed": i},
            {"temperature": 1.0, "top_p": 0.5, "seed": i},
        )[i % 4]  # fmt: skip
        number = batch.add(prompt, 1 + i % 13, **settings)
        expected[number] = list(tiny.generate(prompt, 1 + i % 13, **settings))
    assert len(batch) == 20
    assert run_batch(batch) == expected


def test_sequences_are_admitted_as_others_end(tiny):
    """One that is added later takes the place of one that has ended."""
    batch, (first, second, third) = Batch(tiny, 2), prompts(3)
    numbers = [batch.add(first, 3), batch.add(second, 12)]
    found = {number: [] for number in range(3)}
    for step in range(20):
        if step == 5:
            numbers.append(batch.add(third, 6))
        for request, token, *_ in batch.step():
            if token is not None:
                found[request].append(token)
    assert numbers == [0, 1, 2]
    for number, prompt, most in ((0, first, 3), (1, second, 12), (2, third, 6)):
        assert found[number] == list(tiny.generate(prompt, most))


@pytest.mark.parametrize("kind", ["two_bit", "base3", "tl1", "tl2", "fp16"])
@pytest.mark.parametrize("layout", ["bitnet", "llama"])
def test_small_models_of_every_encoding(layout, kind):
    """Odd shapes, ends of the text and of the context."""
    model = small_model(small_config("hidden 100", layout, eos=(3, 7)), kind)
    batch, expected = Batch(model, 5), {}
    for prompt in prompts(12, 40, 33):
        expected[batch.add(prompt, 1000)] = list(model.generate(prompt, 1000))
    assert run_batch(batch) == expected


def test_more_sequences_than_a_look_up_product_takes(tiny):
    """tl1 and tl2 multiply 16 tokens at a time."""
    model = Model(Model.from_pretrained(weights="tl2").weights, 2)
    batch, expected = Batch(model, 20), {}
    for prompt in prompts(20, 5):
        expected[batch.add(prompt, 4)] = list(tiny.generate(prompt, 4))
    assert run_batch(batch) == expected


@pytest.mark.parametrize("is_done", [False, True])
def test_interrupts_lose_nothing(tiny, monkeypatch, is_done):
    """Neither requests nor tokens: in the middle of a prompt, or of a step of several passes."""
    model = Model(Model.from_pretrained(weights="tl2").weights, 2)
    original, calls = Workspace.run, itertools.count()

    def run(*arguments):
        due = next(calls) % 3 == 2
        logits = original(*arguments) if is_done or not due else None
        if due:
            raise KeyboardInterrupt
        return logits

    batch, found, expected = Batch(model, 20), {}, {}
    for i, prompt in enumerate(prompts(25, 20)):
        expected[batch.add(prompt, 1 + i % 5)] = list(tiny.generate(prompt, 1 + i % 5))
    monkeypatch.setattr(Workspace, "run", run)
    while len(batch):
        with contextlib.suppress(KeyboardInterrupt):
            for request, token, *_ in batch.step():
                found.setdefault(request, []).extend([] if token is None else [token])
    assert found == expected


def test_nothing_to_say(tiny):
    """max_new_tokens=0 ends at once, without a token."""
    batch = Batch(tiny, 2)
    number = batch.add([1, 2], 0)
    assert batch.step() == [(number, None, True, None, None)]
    assert len(batch) == 0


def test_bad_arguments_are_named(tiny):
    """By the batch, and for each request as by `generate`."""
    for size in (0, -1, 513):
        with pytest.raises(ValueError, match=f"size={size}: expected 1 to 512"):
            Batch(tiny, size)
    batch = Batch(tiny, 1)
    for tokens, settings, word in (
        ([], {}, "token_ids"), ([1024], {}, "token_ids"), ([1], {"max_new_tokens": -1}, "max_new"),
        ([1], {"top_k": -1}, "top_k"), ([1], {"temperature": -1.0}, "temperature"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=word):
            batch.add(tokens, **settings)
    assert len(batch) == 0
