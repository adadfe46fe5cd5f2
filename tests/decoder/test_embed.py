"""Hidden states of many sequences in a pass, pooled: the oracle's bits, whatever else is there."""

from __future__ import annotations

import numpy as np
import pytest

from ternops.decoder import Session, reference
from ternops.decoder.cache import Cache, padded
from ternops.decoder.embed import (
    Embedder,
    plan_passes,
    quantize_embeddings,
    unit_length,
)
from ternops.decoder.workspace import MAX_TOKENS
from ternops.kernels.attention import POSITIONS
from tests.helpers import cases
from tests.helpers.small_models import LAYOUTS, small_config, small_model


def sequences(lengths, seed=3):
    """Random tokens of small models."""
    random = np.random.default_rng(seed)
    return [random.integers(0, 33, length).tolist() for length in lengths]


def oracle(model, tokens, mean=False, skipped=0):
    """What a sequence is pooled to, by the reference of hidden states."""
    return pooled(reference.states(model, tokens), mean, skipped)


def pooled(states, mean=False, skipped=0):
    """The last one, or the mean of those behind the ones that are skipped."""
    if not mean:
        return states[-1]
    total = np.zeros(states.shape[1])
    for row in states[skipped:]:
        total += row
    return (total / (len(states) - skipped)).astype(np.float32)


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_states_have_the_oracles_bits(layout, mean):
    """Of sequences of every length about a tile and a block of keys, on 1 and 2 threads, in any
    order and company."""
    config = small_config("hidden 100", layout, context=90)
    given = sequences([1, 2, 15, 16, 17, 40, 64, 65, 90, 3, 33])
    expected = np.stack([oracle(small_model(config), each, mean) for each in given])
    for threads in (1, 2):
        embed = Embedder(small_model(config, threads=threads))
        assert cases.same_bits(embed(given, mean), expected)
        assert cases.same_bits(embed(given[::-1], mean), expected[::-1])
        alone = np.concatenate([embed([each], mean) for each in given])
        assert cases.same_bits(alone, expected)


@pytest.mark.parametrize(
    ("kind", "cache"),
    [
        ("two_bit", "fp16"),
        pytest.param("fp16", "int8", marks=pytest.mark.slow),
        pytest.param("tl2", "fp16", marks=pytest.mark.slow),
    ],
)
def test_long_sequences(kind, cache):
    """Longer than a pass, and so many short ones that a cache is full before a pass is."""
    config = small_config("hidden 24", "gemma3", context=1030, windows=(100, 0))
    lengths = [1030, MAX_TOKENS, MAX_TOKENS + 1, *[1] * 150, *[17] * 3]
    given = sequences(lengths)
    model = small_model(config, kind, cache=cache)
    embed = Embedder(model)
    states = {n: reference.states(model, given[n]) for n in (0, 1, 2, 3, 152, 155)}
    for mean in (False, True):
        found = embed(given, mean)
        for number, expected in states.items():
            assert cases.same_bits(found[number], pooled(expected, mean))
        assert cases.same_bits(embed(given[3:], mean), found[3:])


def test_a_mean_leaves_out_a_prompt():
    """The first tokens, also where they fill more than a pass."""
    config = small_config("hidden 24", "qwen3", context=700)
    model, given = small_model(config), sequences([700, 530, 521])
    found = Embedder(model)(given, True, 520)
    for row, tokens in zip(found, given, strict=True):
        assert cases.same_bits(row, oracle(model, tokens, True, 520))


def test_the_factor_of_logits_is_none_of_states():
    """As transformers' last_hidden_state; with a grouped head or another no different."""
    model = small_model(small_config("hidden 100", "minicpm"))
    given = sequences([5, 7])
    scaled = model.norm
    assert not cases.same_bits(scaled, model.weights.norm)
    found = Embedder(model)(given)
    for row, tokens in zip(found, given, strict=True):
        assert cases.same_bits(row, oracle(model, tokens))


def test_no_sequences():
    """An array without rows; nothing is computed."""
    model = small_model(small_config("hidden 24", "qwen3"))
    assert Embedder(model)([]).shape == (0, 24)


def test_sessions_are_as_before():
    """A session that decodes between embeddings, and passes of several lengths after them."""
    model, given = small_model(small_config("hidden 100", "qwen3")), sequences([9, 30])
    session, embed = Session(model), Embedder(model)
    first = embed(given)
    logits = session.extend(given[1], 30).copy()
    assert cases.same_bits(logits, reference.logits(model, given[1]))
    assert cases.same_bits(embed(given), first)


@pytest.mark.parametrize("seed", range(20))
def test_passes_hold_each_sequence_once(seed):
    """As many tokens as fit, and no more positions than there are."""
    random = np.random.default_rng(seed)
    most = int(random.choice([3, 40, 300, 1500]))
    lengths = random.integers(1, most + 1, int(random.integers(0, 200))).tolist()
    passes = list(plan_passes(lengths))
    assert sorted(number for group in passes for number in group) == list(range(len(lengths)))
    for group in passes:
        if len(group) > 1:
            assert sum(lengths[number] for number in group) <= MAX_TOKENS
            assert sum(padded(lengths[number]) for number in group) <= 64 * POSITIONS


def test_passes_are_full():
    """Texts of one length that divides a pass waste nothing; others hardly anything."""
    assert [len(group) for group in plan_passes([128] * 32)] == [4] * 8
    lengths = np.random.default_rng(0).integers(20, 300, 1000).tolist()
    passes = list(plan_passes(lengths))
    assert sum(lengths) > 0.97 * MAX_TOKENS * len(passes)


def test_a_sequence_begins_at_a_page():
    """Pages follow one another in the table."""
    cache = Cache(small_config("hidden 24", "qwen3"), "fp16", 100)
    assert cache.positions == 128
    assert cache.addresses(64)[0] == cache.addresses()[0] + 8
    with pytest.raises(ValueError, match="start=16: expected a multiple of 64"):
        cache.addresses(16)


def test_unit_length():
    """In float64; zeros stay zeros."""
    rows = np.array([[3, 4], [0, 0], [1e-30, 0], [1e30, 1e30]], np.float32)
    half = np.float32(np.sqrt(0.5))
    assert unit_length(rows).tolist()[0] == [np.float32(0.6), np.float32(0.8)]
    assert unit_length(rows).tolist()[1] == [0, 0]
    assert unit_length(rows).tolist()[3] == [half, half]


def test_binary():
    """A bit a value, the first one highest, minus 128; a last byte is filled up with zeros."""
    rows = np.array([[1, -1, 0, 1, 0, 0, 0, 1, 2], [-1] * 9], np.float32)
    found = quantize_embeddings(rows, "binary")
    assert found.dtype == np.int8
    assert found.tolist() == [[0b10010001 - 128, 0b10000000 - 128], [-128, -128]]


@pytest.mark.filterwarnings("ignore:dtype='int8'. buckets of 3")
def test_int8():
    """256 buckets between the least and the largest of each dimension."""
    rows = np.array([[0, 5], [255, 5], [127.5, 5]], np.float32)
    found = quantize_embeddings(rows, "int8")
    assert found.dtype == np.int8
    assert found.tolist() == [[-128, -128], [127, -128], [-1, -128]]
    given = quantize_embeddings(rows, "int8", [[-255, 0], [255, 10]])
    assert given.tolist() == [[-1, -1], [127, -1], [63, -1]]
    assert quantize_embeddings(rows[:0], "int8").shape == (0, 2)


@pytest.mark.parametrize(
    ("dtype", "ranges", "words"),
    [
        ("uint8", None, "dtype='uint8': expected one of float32, int8, binary"),
        ("binary", [[0, 0], [1, 1]], "ranges: expected with dtype='int8' alone, not 'binary'"),
        ("int8", [0, 1], r"ranges: of shape \(2,\), expected .*\(2, 2\)$"),
        ("int8", [[0, 0], [1, np.nan]], r"ranges: of shape \(2, 2\), expected .*finite, \(2, 2\)"),
    ],
)
def test_bad_settings(dtype, ranges, words):
    """One line each."""
    with pytest.raises(ValueError, match=words):
        quantize_embeddings(np.zeros((3, 2), np.float32), dtype, ranges)
