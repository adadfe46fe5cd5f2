"""A smaller model guesses; the larger one says what it says without it."""

from __future__ import annotations

import numpy as np
import pytest

from ternops.decoder import Model, Session
from ternops.decoder.alike import common
from ternops.decoder.drafts import DraftModel
from tests.helpers.small_models import small_config, small_model


@pytest.fixture(scope="module")
def tiny():
    return Model.from_pretrained(threads=2, head="screened")


SETTINGS = [
    {}, {"temperature": 0.7, "seed": 1}, {"repetition_penalty": 1.2},
    {"temperature": 1.0, "seed": 2, "top_k": 20, "min_p": 0.05},
    {"temperature": 1.0, "seed": 3, "presence_penalty": 0.5},
]  # fmt: skip


@pytest.mark.parametrize("count", [1, 4, 30])
def test_a_draft_model_changes_nothing(tiny, count):
    """One that agrees always, and one that agrees sometimes."""
    drafts = [Model(tiny.weights, 2), Model.from_pretrained(threads=2, weights="fp16")]
    random = np.random.default_rng(0)
    for settings in SETTINGS:
        prompt = random.integers(2, 1024, 20).tolist()
        settings = {**settings, "stop_at_eos": False}
        expected = list(tiny.generate(prompt, 50, **settings))
        for draft in drafts:
            found = tiny.generate(prompt, 50, draft_model=draft, draft_tokens=count, **settings)
            assert list(found) == expected


def test_drafts_of_another_shape_to_the_end_of_the_context():
    """Of random weights, which seldom agree; the draft's context may be shorter."""
    model = small_model(small_config("hidden 24", "llama", eos=(3, 7)))
    for context in (40, 12, 5):
        draft = small_model(small_config("hidden 100", "bitnet", context=context))
        for length in (1, 9, 39, 40):
            prompt = (np.arange(length) % 5 + 1).tolist()
            expected = list(model.generate(prompt, 100))
            assert list(model.generate(prompt, 100, draft_model=draft)) == expected


@pytest.mark.parametrize("layout", ["qwen3.5"])
def test_drafts_of_a_model_with_states(layout):
    """Which goes back by computing again."""
    model = small_model(small_config("hidden 24", "llama"))
    draft = small_model(small_config("hidden 24", layout))
    for one, other in ((model, draft), (draft, model), (draft, draft)):
        expected = list(one.generate([1, 2, 3], 30))
        assert list(one.generate([1, 2, 3], 30, draft_model=other)) == expected


def test_fewer_passes_where_the_draft_agrees(tiny):
    """The model itself is the best draft: five tokens a pass."""
    session = Session(tiny)
    settings = {"session": session, "draft_model": Model(tiny.weights, 2), "stop_at_eos": False}
    assert len(list(tiny.generate([5, 6, 7], 50, **settings))) == 50
    assert session.passes == 1 + 10


def test_a_draft_session_keeps_what_it_knows(tiny):
    """A second turn does not read the first again."""
    draft, session = Session(Model(tiny.weights, 2)), Session(tiny)
    prompt = list(range(100, 160))
    first = list(tiny.generate(prompt, 20, session=session, draft_model=draft, stop_at_eos=False))
    read, longer = [], [*prompt, *first, 9]
    original = draft.read
    draft.read = lambda tokens, *rest: read.append(len(tokens)) or original(tokens, *rest)
    found = tiny.generate(longer, 10, session=session, draft_model=draft, stop_at_eos=False)
    assert list(found) == list(tiny.generate(longer, 10, stop_at_eos=False))
    assert max(read) < 8


def test_a_draft_follows_what_has_come(tiny):
    """Not what it has guessed itself."""
    draft = DraftModel(Session(tiny))
    draft.extend([4, 5])
    wrong = draft.guess(6)
    assert wrong == list(tiny.generate([4, 5], 6, stop_at_eos=False))
    draft.extend([wrong[0], 77, 78])
    right = list(tiny.generate([4, 5, wrong[0], 77, 78], 6, stop_at_eos=False))
    assert draft.guess(6) == right


def test_bad_drafts_are_named(tiny):
    small = small_model(small_config("hidden 24", "llama"))
    for error, settings, words in (
        (ValueError, {"draft_model": small}, "draft_model: it has 33 tokens, expected the 1024"),
        (ValueError, {"draft_model": tiny, "draft_tokens": 0}, "draft_tokens=0: expected 1"),
        (ValueError, {"draft_model": tiny, "prompt_lookup": 2}, "prompt_lookup=2: expected 0"),
        (TypeError, {"draft_model": "tiny"}, "draft_model: str, expected a Model"),
    ):
        with pytest.raises(error, match=words):
            tiny.generate([1], **settings)


def test_common():
    for length in (0, 1, 63, 64, 65, 200):
        one = list(range(length))
        assert common(one, one) == common(one, [*one, 5]) == length
        for at in range(0, length, 7):
            other = [*one[:at], -1, *one[at + 1 :]]
            assert common(one, other) == common(other, one[: at + 3]) == at
