"""The decoder against Hugging Face transformers on the same checkpoints, in float32."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest

from ternops.decoder import Model, reference
from ternops.decoder.formats.hugging_face_config import read_config
from ternops.decoder.formats.loading import TINY
from ternops.decoder.reference import perplexity
from ternops.decoder.text import load_tokenizer
from ternops.kernels import reference as kernels_reference
from tests.helpers import cases, checkpoints
from tests.peers.bitnet_folders import SIZES, load_theirs, write

pytestmark = pytest.mark.peers

#: Tokens of a prompt and of its continuation.
PROMPT, STEPS = 8, 64
#: The largest difference of two logits that was measured is 4.1e-6, of logits up to 9.6 (float32
#: added in another order); this is twice as much.
LARGEST = 8.2e-6
#: The same with keys and values rounded to float16: 0.36 was measured.
LARGEST_WITH_CACHE = 0.72
#: Activations are rounded to int8. One that lies nearer to a border than the error of float32 may
#: go the other way in transformers and change logits by 0.1. The seeds below keep this distance, in
#: units of the int8 step, and this one between the two likeliest tokens.
MIN_DISTANCE, MIN_MARGIN = 4e-5, 0.01
#: Without int8: 0.0053 was measured with keys and values in float16.
LARGEST_OF_FLOATS = 0.01
#: What int8 activations cost a model that was not made for them, in parts of the logits' standard
#: deviation: 0.015 to 0.031 in the root of the mean square over 16 random models.
INT8_ERROR = 0.05


@pytest.fixture(scope="module")
def both_logits(torch, transformers):
    """Logits of ternops and of transformers, in float32, for one text."""
    text = Path(__file__).read_text("utf-8")
    tokens = load_tokenizer(TINY).encode(text).ids[:512]
    theirs = load_theirs(TINY, torch, transformers)
    with torch.no_grad():
        expected = theirs(torch.tensor([tokens])).logits[0].numpy()
    return tokens, Model.from_pretrained().logits(tokens), expected


def test_same_architecture(both_logits):
    """The likeliest token agrees nearly everywhere.

    Not everywhere: torch adds floats in another order, and an activation that lies on the border
    between two int8 values then rounds the other way, a difference of 1/127 of the largest one.
    """
    _, ours, theirs = both_logits
    assert np.mean(ours.argmax(1) == theirs.argmax(1)) > 0.97
    assert np.abs(ours - theirs).mean() < 0.05


def test_same_perplexity(both_logits):
    """The text is as likely to both, within 0.5%."""
    tokens, ours, theirs = both_logits
    assert perplexity(ours, tokens) == pytest.approx(perplexity(theirs, tokens), rel=5e-3)


class Float32Cache(reference.Exact):
    """What the kernels compute, but for keys and values: they stay float32, as in transformers."""

    @staticmethod
    def cached(x, kind):
        return x, np.ones(x.shape[:-1], np.float32)


def with_distance(model, tokens, monkeypatch):
    """Logits, and the distance between the activations and the nearest border of two int8 steps."""
    quantize, nearest = kernels_reference.quantize_rows, []

    def watch(x, floor):
        largest = np.maximum(np.abs(x).max(axis=1, keepdims=True), floor).astype(np.float64)
        nearest.append(np.abs(np.abs(x * (127 / largest)) % 1 - 0.5).min())
        return quantize(x, floor)

    monkeypatch.setattr(kernels_reference, "quantize_rows", watch)
    logits = reference.logits(model, tokens, Float32Cache)
    monkeypatch.undo()
    return logits, min(nearest)


LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64, "rope_theta": 500.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("layout", "kind", "seed", "options"),
    [
        ("bitnet", "offline", 65, {}),
        ("bitnet", "unpacked", 65, {}),
        ("bitnet", "online", 135, {}),
        ("bitnet", "online", 47, {"hidden_act": "silu"}),
        ("llama", "bitlinear", 186, {}),
        ("llama", "offline", 139, {"rope_parameters": LLAMA3}),
        ("qwen3", "offline", 120, {}),
        ("qwen3", "online", 138, {"tie_word_embeddings": True}),
    ],
)
def test_same_logits_and_greedy_tokens(
    tmp_path, torch, transformers, monkeypatch, layout, kind, seed, options
):
    """The same 64 greedy tokens after a prompt of 8, and every logit within a bound: a tight one
    without the rounding of the cache, which transformers does not do, and one with it."""
    write(tmp_path, layout, kind, seed, torch, transformers, **copy.deepcopy(options))
    prompt = np.random.default_rng(seed).integers(2, SIZES["vocab_size"], PROMPT).tolist()
    ours, theirs = Model.from_pretrained(tmp_path), load_theirs(tmp_path, torch, transformers)
    tokens = list(ours.generate(prompt, STEPS, stop_at_eos=False))
    theirs.generation_config.eos_token_id = None
    with torch.no_grad():
        asked = torch.tensor([prompt])
        generated = theirs.generate(asked, do_sample=False, max_new_tokens=STEPS)[0].tolist()
        expected = theirs(torch.tensor([generated])).logits[0].numpy()
    uncached, distance = with_distance(ours, generated, monkeypatch)
    difference = np.abs(uncached - expected).max()
    with_cache = np.abs(ours.logits(generated) - expected).max()
    ranked = np.sort(expected[PROMPT - 1 : -1], axis=1)
    margin = (ranked[:, -1] - ranked[:, -2]).min()
    print(
        f"{layout} {kind}: largest difference {difference:.2g} of {np.abs(expected).max():.2g}, "
        f"{with_cache:.2g} with a float16 cache; least margin {margin:.2g}, distance to a border "
        f"{distance:.2g}, {len(set(tokens))} different tokens"
    )
    assert len(set(tokens)) > 12
    assert margin > MIN_MARGIN
    assert distance > MIN_DISTANCE
    assert difference < LARGEST
    assert with_cache < LARGEST_WITH_CACHE
    assert prompt + tokens == generated


@pytest.mark.parametrize(("seed", "tied"), [(3, True), (1, False)])
def test_ternary_floats_of_a_qwen3(tmp_path, torch, transformers, seed, tied):
    """Weights that were made ternary and nothing else, so that activations stay floats: the same
    64 greedy tokens with weights="fp16", whose logits are theirs within the rounding of the cache;
    those of float64 within that of the norms and angles, which are float32 in both. With ternary
    weights activations are int8, which is near."""
    write(tmp_path, "qwen3", "floats", seed, torch, transformers, tie_word_embeddings=tied)
    prompt = np.random.default_rng(seed).integers(2, SIZES["vocab_size"], PROMPT).tolist()
    theirs = load_theirs(tmp_path, torch, transformers)
    theirs.generation_config.eos_token_id = None
    with torch.no_grad():
        asked = torch.tensor([prompt])
        generated = theirs.generate(asked, do_sample=False, max_new_tokens=STEPS)[0].tolist()
        expected = theirs.double()(torch.tensor([generated])).logits[0].numpy()
    ranked = np.sort(expected[PROMPT - 1 : -1], axis=1)
    assert (ranked[:, -1] - ranked[:, -2]).min() > MIN_MARGIN
    assert len(set(generated[PROMPT:])) > 12

    floats = Model.from_pretrained(tmp_path, weights="fp16")
    assert floats.config.tied == tied
    assert prompt + list(floats.generate(prompt, STEPS, stop_at_eos=False)) == generated
    for arithmetic in (reference.Double, Float32Cache):
        ours = reference.logits(floats, generated, arithmetic)
        assert np.abs(ours - expected).max() < LARGEST
    assert np.abs(floats.logits(generated) - expected).max() < LARGEST_OF_FLOATS
    ternary = Model.from_pretrained(tmp_path)
    error = np.sqrt(np.square(ternary.logits(generated) - expected).mean())
    assert 0 < error < INT8_ERROR * expected.std()


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 6, 7, 8, 9, 30])
def test_packed_as_transformers_packs(torch, transformers, rows):
    """Also rows that 4 does not divide, which its own classes cannot load."""
    trits = np.random.default_rng(rows).integers(-1, 2, (rows, 5), np.int8)
    packed = transformers.integrations.bitnet.pack_weights(torch.tensor(trits).float())
    assert cases.same_bits(checkpoints.pack(trits), packed.numpy())


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "default", "rope_theta": 500.0},
        {"rope_type": "linear", "factor": 3.0, "rope_theta": 500.0},
        LLAMA3,
    ],
)
def test_same_rotations(tmp_path, torch, transformers, rope):
    """Angles within the float32 rounding of transformers, a few parts in 10**7."""
    write(tmp_path, "llama", "online", 0, torch, transformers, rope_parameters=dict(rope))
    rotary = load_theirs(tmp_path, torch, transformers).model.rotary_emb
    angles = read_config(tmp_path).rope_angles()
    expected = np.outer(np.arange(128), rotary.inv_freq.numpy().astype(np.float64))
    np.testing.assert_allclose(angles, expected, rtol=5e-7)


def test_same_end_tokens_and_shards(tmp_path, torch, transformers):
    """What save_pretrained writes next to the weights, and in several files."""
    write(tmp_path, "llama", "online", 0, torch, transformers)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    theirs.generation_config.eos_token_id = [1, 7]
    theirs.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    sharded = Model.from_pretrained(tmp_path / "shards")
    assert sharded.config.eos == (1, 7)
    tokens = [5, 6, 7, 8]
    assert cases.same_bits(Model.from_pretrained(tmp_path).logits(tokens), sharded.logits(tokens))
