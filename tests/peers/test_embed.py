"""Embeddings against transformers in float64, and against sentence-transformers on its folders."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
from tokenizers.processors import TemplateProcessing

from bench.models import byte_tokenizer
from ternops.decoder import Model, reference
from tests.helpers import cases, embedders
from tests.peers.random_models import TRUNKS, bitnet, made

pytestmark = pytest.mark.peers

TEXTS = ["hello", "", "a longer text, of more than a few tokens", "ümläut", "Hello" * 20]
#: Of vectors of length 1: what float64 leaves, and what float32 pooling and keys and values of
#: float16 do.
NEAR, NEAR_WITH_CACHE = 1e-6, 8e-3
NAMES = {"qwen3": "Qwen3", "gemma3": "Gemma3"}


@pytest.fixture(params=NAMES)
def trunk(request, tmp_path, torch, transformers):
    """A random base model without a head, its folder and its tokenizer, as they write them."""
    program, options = TRUNKS[request.param]
    theirs = made(program, 5, torch, transformers, **{**options, "vocab_size": 300}).model
    theirs.save_pretrained(tmp_path / "model")
    tokenizer = byte_tokenizer.tokenizer()
    tokenizer.post_processor = TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", byte_tokenizer.END)]
    )
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", pad_token="<unk>", model_max_length=120
    )
    fast.save_pretrained(tmp_path / "model")
    return theirs, tmp_path / "model", fast


def their_vectors(theirs, fast, mean, torch):
    """Of TEXTS one by one, in float64, of length 1."""
    double, found = copy.deepcopy(theirs).double(), []
    for text in TEXTS:
        with torch.no_grad():
            states = double(torch.tensor([fast(text)["input_ids"]])).last_hidden_state[0]
        pooled = states.mean(0) if mean else states[-1]
        found.append((pooled / pooled.norm()).numpy())
    return np.stack(found)


@pytest.mark.parametrize("mean", [False, True])
def test_vectors_are_those_of_transformers(trunk, torch, mean):
    """By the float64 reference; the kernels' are near, and of ternary weights the oracle's."""
    theirs, folder, fast = trunk
    embedders.write_modules(folder, "mean" if mean else "lasttoken")
    expected = their_vectors(theirs, fast, mean, torch)
    model = Model.from_pretrained(folder, weights="fp16", threads=2)
    for number, text in enumerate(TEXTS):
        states = reference.states(model, fast(text)["input_ids"], reference.Unquantised)
        pooled = states.mean(0) if mean else states[-1]
        error = np.abs(pooled / np.linalg.norm(pooled) - expected[number]).max()
        assert error < NEAR
    assert np.abs(model.embed(TEXTS) - expected).max() < NEAR_WITH_CACHE
    for threads in (1, 2):
        ternary = Model.from_pretrained(folder, threads=threads)
        found = ternary.embed(TEXTS, normalize=False)
        for row, text in zip(found, TEXTS, strict=True):
            states = reference.states(ternary, fast(text)["input_ids"])
            if mean:
                total = np.zeros(states.shape[1])
                for each in states:
                    total += each
                states = [(total / len(states)).astype(np.float32)]
            assert cases.same_bits(row, states[-1])


def test_norms_within_linear_layers(tmp_path, torch, transformers):
    """The layout of BitNet's embedding models, whose trunk rounds activations to int8: those of
    transformers' last hidden state, but for steps that tip over."""
    settings = {"use_rms_norm": True, "rms_norm_eps": 1e-5}
    _, options = TRUNKS["qwen3 tied, yarn"]
    theirs = bitnet(tmp_path, "Qwen3", "online", 7, torch, transformers, settings, **options)
    tokens = np.random.default_rng(0).integers(2, 64, 40).tolist()
    with torch.no_grad():
        states = theirs.model(torch.tensor([tokens])).last_hidden_state[0].numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = Model.from_pretrained(tmp_path, threads=2)
    found = reference.states(model, tokens, reference.Double)
    deviation = np.sqrt(np.square(found - states).mean()) / states.std()
    print(f"float32 torch from float64: {deviation:.2g}")
    assert deviation < 1e-5  # the seed is such that no int8 step tips over


@pytest.mark.filterwarnings("ignore:dtype='int8'. buckets of 5")
@pytest.mark.parametrize("mode", ["lasttoken", "mean"])
@pytest.mark.parametrize("includes", [True, False])
def test_encode_is_that_of_sentence_transformers(trunk, tmp_path, mode, includes):
    """On a folder that it wrote, with prompts, of texts that are too long as well."""
    theirs = pytest.importorskip(
        "sentence_transformers", reason="sentence-transformers is not installed"
    )
    modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
    _, folder, _ = trunk
    encoder = theirs.SentenceTransformer(
        modules=[
            modules.Transformer(str(folder)),
            modules.Pooling(48, mode, include_prompt=includes),
            modules.Normalize(),
        ],
        prompts={"query": "find: "}, device="cpu",
    )  # fmt: skip
    encoder.save(str(tmp_path / "saved"))
    model = Model.from_pretrained(tmp_path / "saved", weights="fp16", threads=2)
    texts = [*TEXTS, "long " * 100]
    for settings in ({}, {"prompt_name": "query"}, {"prompt": "x "}):
        expected = encoder.encode(texts, **settings)
        found = model.encode(texts, **settings)
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() < NEAR_WITH_CACHE
        assert np.abs(model.encode(texts[2], **settings) - expected[2]).max() < NEAR_WITH_CACHE
    quantize, vectors = theirs.util.quantize_embeddings, model.embed(TEXTS)
    for precision in ("int8", "binary"):
        expected = quantize(vectors, precision)
        assert cases.same_bits(model.embed(TEXTS, dtype=precision), expected)
    ranges = np.stack([np.full(48, -0.5), np.full(48, 0.3)]).astype(np.float32)
    expected = quantize(vectors, "int8", ranges=ranges)
    assert cases.same_bits(model.embed(TEXTS, dtype="int8", ranges=ranges), expected)
