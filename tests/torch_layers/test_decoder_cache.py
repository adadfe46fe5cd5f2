"""Caches of transformers whose keys and values lie in a decoder's pages."""

from __future__ import annotations

import copy
import pickle

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (make test-peers)")
pytest.importorskip("transformers", reason="transformers is not installed (make test-peers)")
from transformers.cache_utils import DynamicCache, DynamicLayer, StaticCache  # noqa: E402

from ternops.torch.decoder_cache import DecoderCache, Pages, adopt  # noqa: E402
from tests.peers.bitnet_folders import SIZES  # noqa: E402
from tests.torch_layers.pairs import CACHE, STEPS, assert_near, generated, ids, logits  # noqa: E402

pytestmark = pytest.mark.peers


def test_two_models_and_two_caches_in_turn(pair, both, passes):
    theirs, first, second = pair[0], pair[1], both[1]
    with torch.no_grad():
        second.model.norm.weight.mul_(2)
    sequences = [ids(1), ids(2), ids(3)]
    caches = [None] * 3
    for _ in range(6):
        for at, model in enumerate((first, first, second)):
            tokens = sequences[at] if caches[at] is None else sequences[at][:, -1:]
            with torch.no_grad():
                result = model(tokens, **{CACHE: caches[at]}, use_cache=True)
            caches[at] = getattr(result, CACHE)
            following = result.logits[:, -1:].argmax(-1)
            sequences[at] = torch.cat([sequences[at], following], dim=1)
    for at, found in enumerate(sequences[:2]):
        assert torch.equal(found, generated(theirs, ids(at + 1), max_new_tokens=6))
    assert torch.equal(sequences[2], generated(second, ids(3), max_new_tokens=6))
    assert passes[:18] == [8] * 3 + [1] * 15


def test_a_cache_is_given_back(pair, passes):
    """Of generate(), of a call, and one that a caller has made: it is filled in place."""
    cache = DynamicCache()
    first = generated(pair[1], ids(), **{CACHE: cache}, max_new_tokens=5)
    assert type(cache) is DecoderCache
    assert cache.get_seq_length() == first.shape[1] - 1
    found = generated(pair[1], first, **{CACHE: cache}, max_new_tokens=STEPS - 5)
    assert torch.equal(found, generated(pair[0], ids()))
    assert passes == [8] + [1] * (STEPS - 1)
    assert type(cache) is DecoderCache
    assert len(cache) == SIZES["num_hidden_layers"]
    assert str(STEPS + 7) in repr(cache)


def test_tensors_of_a_cache_are_theirs(pair, passes):
    """A DynamicCache again when it is looked at, with the same keys and values; then pages anew."""
    tokens = ids(count=100)
    caches = [DynamicCache(config=each.config) for each in pair]
    for model, cache in zip(pair, caches, strict=True):
        logits(model, tokens, **{CACHE: cache})
    assert [type(each) for each in caches] == [DynamicCache, DecoderCache]
    for theirs, ours in zip(caches[0].layers, caches[1].layers, strict=True):
        assert_near(ours.keys, theirs.keys)
        assert_near(ours.values, theirs.values)
    assert type(caches[1]) is DynamicCache
    more = ids(seed=5)
    expected = logits(pair[0], more, **{CACHE: copy.deepcopy(caches[0])})
    # Pages from tensors: its own, and those of the other model.
    for cache in (caches[1], caches[0]):
        assert_near(logits(pair[1], more, **{CACHE: cache}), expected)
        assert type(cache) is DecoderCache
    assert passes == [100, 8, 8]
    # A model that has never heard of it goes on with it.
    expected = logits(pair[1], more, **{CACHE: caches[1]})
    assert_near(logits(pair[0], more, **{CACHE: caches[0]}), expected)
    assert type(caches[0]) is DynamicCache


def test_a_cache_is_cropped_reset_copied_and_pickled(pair, passes):
    tokens, more = ids(count=80), ids(seed=7)
    cache = DynamicCache()
    logits(pair[1], tokens, **{CACHE: cache})
    expected = logits(pair[0], torch.cat([tokens, more], dim=1))[:, 80:]
    for other in (copy.deepcopy(cache), copy.copy(cache), pickle.loads(pickle.dumps(cache))):
        assert_near(logits(pair[1], more, **{CACHE: other}), expected)
        assert type(other) is DecoderCache
        assert (cache.get_seq_length(), other.get_seq_length()) == (80, 88)
    cache.crop(-50)
    expected = logits(pair[0], torch.cat([tokens[:, :30], more], dim=1))[:, 30:]
    assert_near(logits(pair[1], more, **{CACHE: cache}), expected)
    cache.crop(-1000)
    assert cache.get_seq_length() == 0
    logits(pair[1], more, **{CACHE: cache})
    cache.reset()
    assert_near(logits(pair[1], more, **{CACHE: cache}), logits(pair[0], more))
    assert sum(passes) == 80 + 6 * 8


@pytest.mark.parametrize("how", ["reset", "crop"])
def test_an_empty_cache_is_copied(pair, passes, how):
    cache = DynamicCache()
    expected = logits(pair[1], ids(), **{CACHE: cache})
    cache.reset() if how == "reset" else cache.crop(-8)
    for other in (copy.deepcopy(cache), copy.copy(cache)):
        assert other.get_seq_length() == 0
        assert torch.equal(logits(pair[1], ids(), **{CACHE: other}), expected)
    assert passes == [8] * 3


def test_a_cache_of_another_number_of_layers(pair, passes):
    """Empty it is filled; with tensors it is left to PyTorch's layers."""
    expected = logits(pair[1], ids())
    cache = DynamicCache()
    cache.layers.append(DynamicLayer())
    assert torch.equal(logits(pair[1], ids(), **{CACHE: cache}), expected)
    assert len(cache.layers) == SIZES["num_hidden_layers"]
    assert passes == [8, 8]
    cache.layers.append(cache.layers[0])
    logits(pair[1], ids(), **{CACHE: cache})
    assert type(cache) is DynamicCache
    assert passes == [8, 8]


def test_a_cache_whose_tensors_have_no_memory_is_what_it_was(monkeypatch, pair, passes):
    cache = DynamicCache()
    logits(pair[1], ids(), **{CACHE: cache})

    def fails(self, dtype):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(Pages, "tensors", fails)
        with pytest.raises(MemoryError):
            _ = cache.layers
    assert type(cache) is DecoderCache
    assert cache.get_seq_length() == 8
    assert cache.layers[0].keys.shape[2] == 8


def test_what_exceeds_float16_is_its_largest_number(pair):
    """As where a pass writes it, although bfloat16 holds more."""
    cache = DynamicCache()
    logits(pair[1], ids(), **{CACHE: cache})
    config = cache.pages.config
    cache, far = DynamicCache(), torch.tensor([1e9, -1e9, torch.inf, 65504.0, 3.0])
    values = far.repeat(12)[: 5 * config.head_dim].reshape(1, 1, 5, config.head_dim)
    values = values.expand(1, config.kv_heads, 5, config.head_dim).bfloat16()
    for layer in range(config.layers):
        cache.update(values, -values, layer)
    pages = adopt(cache, config, "fp16", torch.float32)
    for keys, negative in pages.tensors(torch.float32):
        assert torch.equal(keys, values.float().clamp(-65504, 65504))
        assert torch.equal(negative, -keys)


def test_assisted_generation_crops(pair, both, passes):
    """By another model, and by what is in the prompt."""
    expected = generated(pair[0], ids())
    for settings in ({"assistant_model": both[1]}, {"prompt_lookup_num_tokens": 3}):
        assert torch.equal(generated(pair[1], ids(), **settings), expected)
        assert passes
        passes.clear()


def test_without_a_cache(pair, passes):
    assert torch.equal(*(generated(model, ids(), use_cache=False) for model in pair))
    assert passes == list(range(8, 8 + STEPS))
    with torch.no_grad():
        assert getattr(pair[1](ids(), use_cache=False), CACHE) is None


def test_a_static_cache_is_theirs(pair, passes):
    found = []
    for model in pair:
        cache = StaticCache(config=model.config, max_cache_len=40)
        found.append(logits(model, ids(), **{CACHE: cache}))
    assert_near(*found)
    assert not passes
