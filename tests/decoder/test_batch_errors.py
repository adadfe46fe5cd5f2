"""What is wrong with one request of a batch ends that one alone."""

from __future__ import annotations

import numpy as np
import pytest

from ternops.decoder import Batch, Model, RequestError
from ternops.decoder.weights import HalfMatrix, Weights
from ternops.decoder.workspace import Workspace
from tests.helpers.small_models import small_config, small_model

#: The token that the model below has no numbers for.
BROKEN = 5


class NeverAgain:
    """A constraint that allows so many tokens, and then none; or fails."""

    def __init__(self, left, error=None):
        self._left, self._error = left, error

    def allowed(self):
        if not self._left and self._error:
            raise self._error
        return np.full(33, self._left > 0)

    def accept(self, token):
        self._left -= 1


@pytest.fixture(scope="module")
def model():
    """One whose embedding of a token is NaN, a token that it never says below."""
    weights = small_model(small_config("hidden 24", "llama", context=100)).weights
    bits = weights.embedding.bits.copy()[:, : weights.config.hidden]
    bits[BROKEN] = np.float16(np.nan).view(np.uint16)
    embedding = HalfMatrix.from_bits(np.ascontiguousarray(bits), is_bf16=False)
    return Model(
        Weights(weights.config, weights.layers, weights.norm, embedding, weights.head), threads=2
    )


def run(batch):
    """request -> its tokens, and the errors in their order."""
    found, errors = {}, []
    while len(batch):
        try:
            emitted = batch.step()
        except RequestError as error:
            errors.append(error)
            continue
        for number, token, *_ in emitted:
            found.setdefault(number, []).extend([] if token is None else [token])
    return found, errors


@pytest.mark.parametrize("size", [1, 3, 8])
@pytest.mark.parametrize("settings", [{}, {"temperature": 1.0}, {"logprobs": 2}, {"min_p": 0.1}])
def test_not_a_number(model, size, settings):
    """Whatever way tokens are chosen: the others have all of theirs, and memory is free."""
    batch, expected, broken = Batch(model, size), {}, []
    for i in range(9):
        if i % 3 == 1:
            broken.append(batch.add([1, 2, BROKEN, i], 5, seed=i, **settings))
            continue
        alone = {name: each for name, each in settings.items() if name != "logprobs"}
        number = batch.add([8 + i, 2, 3], 6, seed=i, **settings)
        expected[number] = list(model.generate([8 + i, 2, 3], 6, seed=i, **alone))
    found, errors = run(batch)
    assert found == expected
    assert [error.request for error in errors] == broken
    for error in errors:
        assert str(error).startswith(f"request {error.request}: logits: ")
        assert "nan" in str(error).lower()
    assert batch.kv_bytes_used == 0
    assert batch.step() == []


def test_a_constraint_that_allows_nothing_or_fails(model):
    """In the middle of a text, whose tokens so far have come; its exception is the cause."""
    batch = Batch(model, 4)
    failure = KeyError("no such rule")
    good = batch.add([1, 2], 8, stop_at_eos=False)
    empty = batch.add([3, 4], 8, constraint=NeverAgain(3), stop_at_eos=False)
    fails = batch.add([6, 4], 8, constraint=NeverAgain(3, failure), stop_at_eos=False)
    none = batch.add([1], 8, logit_bias=dict.fromkeys(range(33), -np.inf))
    found, errors = run(batch)
    assert [error.request for error in errors] == [none, empty, fails]
    assert "rules out every token" in str(errors[0])
    assert "constraint: allows no token" in str(errors[1])
    assert errors[2].__cause__ is failure
    counts = {number: len(tokens) for number, tokens in found.items()}
    assert counts == {good: 8, empty: 3, fails: 3}


def test_several_at_once_cost_one_pass(model, monkeypatch):
    """Each is told by a step, of which the first alone computes."""
    batch = Batch(model, 4)
    broken = [batch.add([BROKEN], 3) for _ in range(3)]
    good = batch.add([1], 2, stop_at_eos=False)
    with pytest.raises(RequestError, match=f"request {broken[0]}: "):
        batch.step()
    with monkeypatch.context() as patch:
        patch.setattr(Workspace, "run", None)
        for number in broken[1:]:
            with pytest.raises(RequestError, match=f"request {number}: "):
                batch.step()
    assert [each.request for each in batch.step()] == [good] * 2


def test_one_that_is_cancelled_raises_nothing(model):
    """Two fail in a step: the second is cancelled before its turn."""
    batch = Batch(model, 4)
    first, second = batch.add([BROKEN], 3), batch.add([BROKEN, 1], 3)
    good = batch.add([1], 2, stop_at_eos=False)
    with pytest.raises(RequestError) as error:
        batch.step()
    assert error.value.request == first
    assert len(batch) == 2
    batch.cancel(second)
    assert run(batch)[1] == []
    assert good == 2


def test_infinite_logits_have_no_probabilities(model, monkeypatch):
    """The largest is the likeliest; how likely, nobody can say."""
    original = Workspace.run

    def infinite(self, *arguments):
        logits = original(self, *arguments)
        logits[:, 7] = np.inf
        return logits

    monkeypatch.setattr(Workspace, "run", infinite)
    batch = Batch(model, 4)
    greedy = batch.add([1], 2)
    drawn, wanted = batch.add([1], 2, temperature=1.0), batch.add([1], 2, logprobs=0)
    found, errors = run(batch)
    assert found == {greedy: [7, 7]}
    assert [error.request for error in errors] == [drawn, wanted]
    assert all("logits: the largest is inf" in str(error) for error in errors)
