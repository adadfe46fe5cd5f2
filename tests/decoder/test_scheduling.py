"""How prompts are read beside other sequences' tokens."""

from __future__ import annotations

import numpy as np
import pytest

from ternops.decoder import Batch
from ternops.decoder.pace import Pace, shares
from ternops.decoder.workspace import Workspace
from tests.helpers.small_models import small_config, small_model

TOKENS = np.random.default_rng(3).integers(0, 33, 2000).tolist()


@pytest.fixture(scope="module")
def model():
    return small_model(small_config("hidden 24", "llama", context=1500))


def test_nobody_waits_for_a_prompt(model, monkeypatch):
    """Those that are decoded have a token each step, beside so many tokens of prompts."""
    original, passes = Workspace.run, []

    def run(self, tokens, *others):
        passes.append(tokens)
        return original(self, tokens, *others)

    monkeypatch.setattr(Workspace, "run", run)
    batch = Batch(model, 4, prefill_tokens=7)
    decoded = [batch.add(TOKENS[i : i + 3], 1000, stop_at_eos=False) for i in range(2)]
    assert [each.request for each in batch.step()] == decoded
    assert passes == [6]  # nobody waited
    late = batch.add(TOKENS[:100], 5)
    passes.clear()
    steps = 0
    while late not in (emitted := [each.request for each in batch.step()]):
        assert emitted == decoded
        steps += 1
    assert steps == 14
    assert passes == [2 + 7] * 14 + [2 + 2]


def test_a_short_prompt_does_not_wait_for_a_long_one(model):
    """They have equal parts of a step."""
    batch = Batch(model, 4, prefill_tokens=10)
    batch.add([1, 2, 3], 1000, stop_at_eos=False)
    batch.step()
    long, short = batch.add(TOKENS[:1000], 2), batch.add(TOKENS[5:25], 2)
    steps = 0
    while short not in [each.request for each in batch.step()]:
        steps += 1
    assert steps == 3
    batch.cancel(long)


def test_more_tokens_than_a_pass_takes(model):
    """A step then has several passes."""
    batch, expected = Batch(model, 512, prefill_tokens=512), {}
    for i in range(400):
        settings = {"temperature": 1.0, "seed": i, "stop_at_eos": False}
        prompt = TOKENS[i : i + 1 + (600 if i == 399 else 0)]
        expected[batch.add(prompt, 4, **settings)] = list(model.generate(prompt, 4, **settings))
    found = {number: [] for number in expected}
    while len(batch):
        for number, token, *_ in batch.step():
            found[number].append(token)
    assert found == expected


def test_shares():
    """Equal ones, as far as they are wanted; the first ones have what is left."""
    assert shares(10, []) == []
    assert shares(10, [100, 3, 100]) == [4, 3, 3]
    assert shares(2, [9, 9, 9]) == [1, 1, 0]
    assert shares(512, [5, 600, 7]) == [5, 500, 7]
    assert shares(512, [1, 2]) == [1, 2]
    assert shares(0, [1, 2]) == [0, 0]


class Machine:
    """One on which a sequence's token and a prompt's take so many seconds each."""

    def __init__(self, base, own, other):
        self.base, self.own, self.other, self.pace = base, own, other, Pace()

    def alone(self, decoding):
        return self.base + self.own * decoding

    def step(self, decoding, disturbed=0.0):
        """(tokens read, seconds) of a step while there are prompts enough."""
        read = self.pace.most(decoding, 10000)
        seconds = self.alone(decoding) + self.other * read + disturbed
        self.pace.took(decoding, read, seconds)
        return read, seconds


@pytest.mark.parametrize("other", [0.0001, 0.002, 0.0049])
@pytest.mark.parametrize("decoding", [1, 8, 100])
def test_steps_with_prompts_take_at_most_twice_as_long(decoding, other):
    """From the first one on, and soon most of that time is used."""
    machine = Machine(0.005, 0.002, other)
    alone = machine.alone(decoding)
    steps = [machine.step(decoding) for _ in range(60)]
    assert all(seconds <= 2 * alone for _, seconds in steps)
    assert all(seconds > 1.3 * alone or read == 1 for read, seconds in steps[40:])


def test_the_time_alone_is_measured_again():
    """Where it has changed, for another number of sequences, and after a disturbed step."""
    machine = Machine(0.005, 0.002, 0.001)
    for _ in range(100):
        machine.step(4)
    assert machine.pace.most(5, 512) == 0
    machine.base *= 4
    steps = [machine.step(4) for _ in range(400)]
    assert steps[-1][0] > 1.8 * steps[0][0]
    assert sum(read == 0 for read, _ in steps) in range(4, 9)
    before = steps[-1][0]
    machine.step(4, disturbed=1.0)
    assert machine.pace.most(4, 512) > before / 2
    assert machine.pace.most(4, 3) == 3


def test_nothing_is_known_of_steps_where_nobody_waits():
    """However long they took."""
    pace = Pace()
    for _ in range(3):
        pace.took(0, 512, 1.0)
        pace.took(3, 0, 0.1)
    assert pace.most(3, 512) == 1
