"""A session that was saved goes on as if it had never ended."""

from __future__ import annotations

import numpy as np
import pytest

from ternops.decoder import Model, Session
from ternops.decoder.session_file import load_session, save_session
from tests.helpers import cases
from tests.helpers.small_models import small_config, small_model


@pytest.mark.parametrize("cache", ["fp16", "fp32", "int8", "int3"])
@pytest.mark.parametrize("layout", ["bitnet", "qwen3.5"])
def test_it_goes_on_with_the_same_bits(tmp_path, layout, cache):
    """After any number of tokens, in a context of another length, whatever it held before."""
    size = {"head_dim": 32} if cache == "int3" else {}
    model, longer = (
        small_model(small_config("hidden 24", layout, context=context, **size), cache=cache)
        for context in (90, 300)
    )
    tokens = np.random.default_rng(1).integers(0, 33, 90).tolist()
    for count in (1, 15, 16, 17, 64, 70):
        session = Session(model)
        session.read(tokens[:count])
        save_session(session, tmp_path / "a", [{"role": "user", "content": "ä"}])
        expected = session.read(tokens[count : count + 20]).copy()
        for other in (Session(model), Session(longer)):
            other.read(tokens[50:80])
            messages = load_session(other, tmp_path / "a")
            assert messages == [{"role": "user", "content": "ä"}]
            assert other.tokens == tokens[:count]
            assert cases.same_bits(other.read(tokens[count : count + 20]), expected)
            other.position = count - 1
            assert cases.same_bits(other.read(tokens[count - 1 : count + 20]), expected)


@pytest.mark.parametrize("layout", ["bitnet", "qwen3.5"])
def test_before_the_first_token(tmp_path, layout):
    """There may be messages and no tokens yet."""
    model = small_model(small_config("hidden 24", layout))
    messages = [{"role": "system", "content": "ä"}]
    save_session(Session(model), tmp_path / "a", messages)
    other = Session(model)
    other.read([1, 2, 3])
    assert load_session(other, tmp_path / "a") == messages
    assert other.tokens == []
    assert cases.same_bits(other.read([4, 5]), Session(model).read([4, 5]))


def test_after_going_back(tmp_path):
    """States of delta nets are then brought to where the tokens are."""
    model = small_model(small_config("hidden 24", "qwen3.5"))
    session, other = Session(model), Session(model)
    session.read(list(range(20)))
    session.position = 13
    save_session(session, tmp_path / "a")
    load_session(other, tmp_path / "a")
    assert other.tokens == list(range(13))
    assert cases.same_bits(other.step(5), session.step(5))


@pytest.fixture(scope="module")
def model():
    return small_model(small_config("hidden 24", "llama"))


def test_another_model_is_refused(model, tmp_path):
    """By its weights, its kind of cache, its context; the session is as before."""
    session = Session(model)
    session.read(list(range(30)))
    save_session(session, tmp_path / "a")
    config = small_config("hidden 24", "llama")
    for other, words in (
        (Model(model.weights, 2, cache="int8"), "cache 'fp16', expected 'int8'"),
        (small_model(small_config("hidden 100", "llama")), "model '.*', expected '.*'"),
        (small_model(small_config("hidden 24", "llama", context=29)), "30 tokens, expected at"),
    ):
        mine = Session(other)
        before = mine.step(3).copy()
        with pytest.raises(ValueError, match=words):
            load_session(mine, tmp_path / "a")
        assert mine.tokens == [3]
        mine.position = 0
        assert cases.same_bits(mine.step(3), before)
    same = Session(small_model(config, "base3"))
    load_session(same, tmp_path / "a")
    assert same.tokens == list(range(30))


def test_activations_that_are_rounded_and_that_are_not(tmp_path):
    """The same weights as floats compute other keys and values."""
    session = Session(Model.from_pretrained(threads=2))
    session.read([1, 2, 3])
    save_session(session, tmp_path / "a")
    other = Session(Model.from_pretrained(weights="fp16", threads=2))
    with pytest.raises(ValueError, match="weights 'low-bit', expected 'fp16'"):
        load_session(other, tmp_path / "a")


def test_damaged_files_are_named(model, tmp_path):
    """Cut off anywhere, or with any byte changed: one line with the file's name."""
    path, session = tmp_path / "a", Session(model)
    session.read(list(range(5)))
    save_session(session, path)
    whole = path.read_bytes()
    with pytest.raises(FileNotFoundError, match=r"session: .*b' is not a file"):
        load_session(session, tmp_path / "b")
    for size in range(0, len(whole), 97):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="session: ") as caught:
            load_session(session, path)
        assert "\n" not in str(caught.value)
    for at in range(0, len(whole), 41):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(ValueError, match="session: ") as caught:
            load_session(session, path)
        assert "\n" not in str(caught.value)
    path.write_bytes(whole)
    load_session(session, path)
