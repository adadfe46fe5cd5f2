"""What sequences of a batch keep: pages that are shared, copied, kept, given up; nothing of which
changes a token, and all of which is accounted for."""

from __future__ import annotations

import contextlib
import weakref

import numpy as np
import pytest

from ternops.decoder import Batch, Model, loaded
from ternops.decoder import batch as batch_module
from ternops.decoder.attention import CACHES
from ternops.decoder.cache import page_bytes
from ternops.decoder.states import states_bytes
from ternops.decoder.workspace import Workspace
from tests.helpers.small_models import LAYOUTS, small_config, small_delta, small_model

TOKENS = np.random.default_rng(3).integers(0, 33, 400).tolist()
#: Settings of requests by turns, so that a wrong logit shows.
DRAWN = {"temperature": 1.0, "stop_at_eos": False}


def make(layout="bitnet", cache="fp16", **changes):
    """A small model with a context of 300 tokens."""
    config = small_config("hidden 24", layout, context=300, **changes)
    return small_model(config, cache=cache)


@pytest.fixture(scope="module")
def model():
    return make()


@pytest.fixture
def passes(monkeypatch):
    """The tokens of each pass, as they are made."""
    original, found = Workspace.run, []

    def run(self, tokens, *others):
        found.append(tokens)
        return original(self, tokens, *others)

    monkeypatch.setattr(Workspace, "run", run)
    return found


@pytest.fixture
def live(monkeypatch):
    """Counts the pages that are in memory."""
    made, original = weakref.WeakSet(), loaded.mapped_zeros

    class Memory(np.ndarray):
        __hash__ = object.__hash__

    def new_page(size):
        page = original(size).view(Memory)
        made.add(page)
        return page

    monkeypatch.setattr(loaded, "mapped_zeros", new_page)
    return lambda: len(made)


class Requests:
    """What was asked of a batch, and what must come."""

    def __init__(self, batch, model):
        self.batch, self._model, self.expected, self.found = batch, model, {}, {}

    def add(self, prompt, most, **settings):
        """One more, with a seed of its own."""
        settings = {**DRAWN, "seed": len(self.expected), **settings}
        number = self.batch.add(prompt, most, **settings)
        self.expected[number] = list(self._model.generate(prompt, most, **settings))
        self.found[number] = []
        return number

    def step(self):
        """The numbers of those that had a token."""
        emitted = self.batch.step()
        for number, token, *_ in emitted:
            self.found[number] += [] if token is None else [token]
        return [number for number, *_ in emitted]

    def check(self):
        """Run until all have ended: each is that of `generate`."""
        while len(self.batch):
            self.step()
        assert self.found == self.expected
        assert self.batch.kv_bytes_used == 0


def alike():
    """Prompts that begin alike: up to the middle of a page, its end, one token more; the same one
    again; and one that is the beginning of others."""
    ends = [TOKENS[:150], TOKENS[:100] + TOKENS[200:260], TOKENS[:128], TOKENS[:129], TOKENS[:64]]
    return [*ends, TOKENS[:150], TOKENS[:63], TOKENS[:80] + TOKENS[300:310], TOKENS[:12]]


@pytest.mark.parametrize("size", [1, 3, 9])
@pytest.mark.parametrize("cache", CACHES)
def test_shared_beginnings(cache, size):
    """Alone and together, twice, with pages that went and came."""
    model = make(cache=cache)
    page = page_bytes(model.config, cache)
    for memory in (None, 5 * page, 12 * page):
        requests = Requests(Batch(model, size, kv_memory=memory, prefill_tokens=40), model)
        for _ in range(2):
            for i, prompt in enumerate(alike()):
                requests.add(prompt, 1 + 9 * (i % 4))
            requests.check()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_shared_beginnings_of_every_trunk(layout):
    """Delta nets share nothing, and are what they are alone."""
    model = make(layout)
    requests = Requests(Batch(model, 4, prefill_tokens=33), model)
    for _ in range(2):
        for i, prompt in enumerate(alike()):
            requests.add(prompt, 1 + 9 * (i % 4))
        requests.check()
    is_hybrid = "delta_layers" in LAYOUTS[layout]
    assert (requests.batch.kv_bytes_kept == 0) == is_hybrid


def test_what_was_computed_is_not_computed_again(model, passes):
    """Whole pages, and the beginning of another, which is copied; the text of an answer as well."""
    batch = Batch(model, 2, kv_memory=20 * page_bytes(model.config, model.cache))

    def tokens_of(prompt, most):
        passes.clear()
        batch.add(prompt, most, stop_at_eos=False)
        answer = []
        while len(batch):
            answer += [token for _, token, *_ in batch.step()]
        return sum(passes), answer

    computed, answer = tokens_of(TOKENS[:200], 21)
    assert computed == 220
    assert tokens_of(TOKENS[:200], 1)[0] == 1
    other = (TOKENS[150] + 1) % 33
    assert tokens_of([*TOKENS[:150], *[other] * 40], 1)[0] == 40
    assert tokens_of(TOKENS[:200] + answer + TOKENS[:30], 1)[0] == 31
    # 3 tokens of a page are computed once more, 4 are copied.
    assert tokens_of(TOKENS[:4], 1)[0] == 4
    assert tokens_of(TOKENS[:5], 1)[0] == 1
    assert tokens_of(TOKENS[1:200], 1)[0] == 199


def test_the_same_prompt_at_once_is_read_once(model, passes):
    """The others wait for its pages, and for the last one, of which they have copies."""
    requests = Requests(Batch(model, 8), model)
    passes.clear()
    for _ in range(8):
        requests.batch.add(TOKENS[:150], 1)
    while len(requests.batch):
        requests.batch.step()
    assert sum(passes) == 150 + 7


def test_a_copy_does_not_change_its_source(model):
    """Two answers to one prompt go on in pages of their own, and so does a third one later."""
    requests = Requests(Batch(model, 3), model)
    for _ in range(3):
        requests.add(TOKENS[:90], 60)
    requests.check()
    requests.add(TOKENS[:90], 60, seed=0)
    requests.check()


def test_memory_is_what_is_said(model, live):
    """Never more than the limit; what is not used is kept; and flat over many rounds."""
    page = page_bytes(model.config, model.cache)
    for limit, most in ((7 * page + 5, 7), (None, 3 * 5 + 5)):
        batch, random = Batch(model, 3, kv_memory=limit), np.random.default_rng(0)
        kept = []
        for turn in range(15):
            for _ in range(4):
                start, count = random.integers(0, 100), random.integers(1, 200)
                batch.add(TOKENS[start : start + count], int(random.integers(1, 50)))
            while len(batch):
                batch.step()
                assert live() * page == batch.kv_bytes_used + batch.kv_bytes_kept <= most * page
                if turn % 3 == 2:
                    batch.cancel(4 * turn + int(random.integers(4)))
            assert batch.kv_bytes_used == 0
            kept.append(batch.kv_bytes_kept)
        assert set(kept[5:]) == {(7 if limit else 5) * page}
        del batch
        assert live() == 0


def test_requests_wait_for_memory(model):
    """In order, until what they may need is there."""
    page = page_bytes(model.config, model.cache)
    requests = Requests(Batch(model, 4, kv_memory=4 * page), model)
    # 3, 2 and 1 pages; the last one must not pass the one before.
    first, second, third = (
        requests.add(TOKENS[i:][:count], 20) for i, count in enumerate((150, 90, 40))
    )
    while requests.batch.kv_bytes_used == 0 or len(requests.found[first]) < 19:
        requests.step()
        assert not requests.found[second]
        assert not requests.found[third]
    requests.check()


def test_shared_pages_are_counted_once(model):
    """Eight answers to one prompt find room where two prompts would not."""
    page = page_bytes(model.config, model.cache)
    requests = Requests(Batch(model, 8, kv_memory=12 * page), model)
    requests.add(TOKENS[:257], 1)
    requests.check()
    for _ in range(8):
        requests.add(TOKENS[:257], 20)
    requests.step()
    assert sum(map(bool, requests.found.values())) == 9
    requests.check()


def test_cancelled_requests(model):
    """One that waits, one whose prompt is read, one that is decoded: gone at once, and no other
    one changes."""
    batch = Batch(model, 3, prefill_tokens=5)
    requests = Requests(batch, model)
    kept = requests.add(TOKENS[:30], 100)
    decoded = requests.add(TOKENS[1:20], 100)
    requests.step()
    read, waits = requests.add(TOKENS[2:200], 5), requests.add(TOKENS[3:50], 5)
    for _ in range(4):
        assert requests.step() == [kept, decoded]
    page = page_bytes(model.config, model.cache)
    assert batch.kv_bytes_used == 3 * page
    for number, used in ((waits, 3), (decoded, 2), (read, 1)):
        before = len(batch)
        batch.cancel(number)
        batch.cancel(number)
        assert batch.kv_bytes_used == used * page
        assert len(batch) == before - 1
        del requests.expected[number], requests.found[number]
    again = requests.add(TOKENS[2:200], 5)
    requests.check()
    batch.cancel(again)
    for number in (-1, 5):
        with pytest.raises(ValueError, match=f"number={number}: expected that of a request"):
            batch.cancel(number)


def test_a_token_of_a_cancelled_request_is_not_given(model, monkeypatch):
    """Not even one that came before an interrupt."""
    batch = Batch(model, 2)
    numbers = [batch.add(TOKENS[i:40], 9, stop_at_eos=False) for i in range(2)]
    batch.step()

    def interrupted(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(batch_module.Pace, "took", interrupted)
        with pytest.raises(KeyboardInterrupt):
            batch.step()
    batch.cancel(numbers[0])
    assert [number for number, *_ in batch.step()] == [numbers[1]] * 2


@pytest.mark.parametrize("is_done", [False, True])
@pytest.mark.parametrize("layout", ["bitnet", "qwen3.5"])
def test_interrupts(layout, is_done, monkeypatch):
    """Of prompts of several pages, shared ones among them; no token and no byte is lost."""
    model = make(layout)
    page = page_bytes(model.config, model.cache) + states_bytes(model.config)
    requests = Requests(Batch(model, 4, kv_memory=9 * page, prefill_tokens=30), model)
    for i, prompt in enumerate(alike()):
        requests.add(prompt, 1 + 9 * (i % 4))
    original, turn = Workspace.run, 0

    def interrupted(*arguments):
        if is_done:
            original(*arguments)
        raise KeyboardInterrupt

    while len(requests.batch):
        turn += 1
        monkeypatch.setattr(Workspace, "run", original if turn % 3 else interrupted)
        with contextlib.suppress(KeyboardInterrupt):
            requests.step()
    monkeypatch.setattr(Workspace, "run", original)
    requests.check()


def test_delta_nets_need_their_states():
    """They are counted, and nothing is kept."""
    model = make("qwen3.5")
    page, states = page_bytes(model.config, model.cache), states_bytes(model.config)
    batch = Batch(model, 4, kv_memory=2 * (page + states))
    for _ in range(3):
        batch.add(TOKENS[:40], 9, stop_at_eos=False)
    batch.step()
    assert batch.kv_bytes_used == 2 * (page + states)
    while len(batch):
        batch.step()
    assert batch.kv_bytes_used == batch.kv_bytes_kept == 0


def test_other_weights_share_nothing(passes):
    """Neither do deltas, nor one whose scales have changed since."""
    base = make()
    deltas = {name: small_delta(base.weights, seed) for seed, name in enumerate("ab")}
    model = Model(base.weights, 2, deltas=deltas)
    requests = Requests(Batch(model, 3), model)
    for name in (None, "a", "b", "a"):
        requests.add(TOKENS[:140], 9, delta=name)
    requests.check()
    model.deltas.scales("a")[:] *= 2
    requests.add(TOKENS[:140], 9, delta="a")
    passes.clear()
    requests.check()
    assert sum(passes) == 140 + 8


def test_weights_that_change_meanwhile(passes, model, monkeypatch):
    """Pages that were begun with other weights are for nobody else."""
    batch, state = Batch(model, 1, prefill_tokens=100), 1
    monkeypatch.setattr(type(model), "state_of_weights", lambda self, delta: (delta, state))
    batch.add(TOKENS[:90], 100, stop_at_eos=False)
    for _ in range(10):
        batch.step()
    state = 2
    batch.step()
    state = 1
    while len(batch):
        batch.step()
    passes.clear()
    batch.add(TOKENS[:90], 1)
    batch.step()
    assert sum(passes) == 1
    passes.clear()
    batch.add(TOKENS[:90], 1)
    state = 2
    batch.step()
    assert sum(passes) == 90


def test_limits_are_named(model):
    """At once, with what would be enough."""
    page = page_bytes(model.config, model.cache)
    for memory in (0, page - 1):
        with pytest.raises(ValueError, match=f"kv_memory={memory}: expected at least the {page} b"):
            Batch(model, 1, kv_memory=memory)
    with pytest.raises(ValueError, match="kv_memory='much': expected a size"):
        Batch(model, 1, kv_memory="much")
    for tokens in (0, 513):
        with pytest.raises(ValueError, match=f"prefill_tokens={tokens}: expected 1 to 512"):
            Batch(model, 1, prefill_tokens=tokens)
    batch = Batch(model, 1, kv_memory=2 * page)
    with pytest.raises(ValueError, match=f"100 tokens and up to 30 new .* kv_memory={2 * page}"):
        batch.add(TOKENS[:100], 30)
    batch.add(TOKENS[:100], 29)
    batch.add(TOKENS[:128], 1)
    batch.add(TOKENS[:128], 0)
    while len(batch):
        batch.step()
