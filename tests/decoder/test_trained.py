"""The trained checkpoint with a scale for 128 inputs, out of each format that it comes in."""

from __future__ import annotations

import json

import numpy as np
import pytest
import safetensors.numpy

from ternops.decoder import Model, open_checkpoint, reference
from ternops.decoder.formats.gguf_file import GgufFile
from ternops.decoder.perplexity import perplexity
from ternops.decoder.weights import HalfMatrix
from ternops.matrix import TernaryMatrix
from tests.helpers import cases, trained
from tests.helpers.decoding import stepped
from tests.helpers.marks import slow_but

FORMATS = ("Hugging Face", "Q2_0", "Q2_0 of 128", "packed")
MAX_BYTES = 2_000_000
#: Bits that a bigram model over the same tokens needs for a byte of held-out files, and what this
#: one may need of them: 71% was measured, of all of these files.
BIGRAM_BITS, MAX_SHARE = 2.157, 0.9
#: What int8 activations, with a step for 128 of them, may cost.
MAX_LOSS = 0.003


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """The checkpoint in each format."""
    return trained.write_files(tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def texts():
    """Windows of tokens."""
    return trained.texts()


@pytest.fixture(scope="module")
def expected(texts):
    """The oracle's logits of the beginning of a text."""
    return reference.logits(Model.from_pretrained(trained.FOLDER, threads=1), texts[0][:90])


def test_what_the_folder_holds():
    """An ordinary Qwen3 in float16, with no word of ternary weights, within its size."""
    raw = json.loads((trained.FOLDER / "config.json").read_text())
    assert raw["architectures"] == ["Qwen3ForCausalLM"]
    assert "quantization_config" not in raw
    assert sum(file.stat().st_size for file in trained.FOLDER.iterdir()) <= MAX_BYTES
    for name, each in safetensors.numpy.load_file(trained.FOLDER / "model.safetensors").items():
        assert each.dtype == np.float16
        if each.ndim == 2:
            groups = np.abs(each).reshape(-1, 128)
            assert ((groups == groups.max(axis=1, keepdims=True)) | (groups == 0)).all(), name


@pytest.mark.parametrize("name", FORMATS)
def test_a_format(paths, name, texts, expected):
    """All matrices have a scale for 128 inputs, tables as well; the oracle's bits, in one pass and
    token by token, on 1 and 2 threads; the tokens of the folder."""
    checkpoint = open_checkpoint(paths[name])
    assert checkpoint.config == open_checkpoint(trained.FOLDER).config
    source = "".join(map(chr, range(1, 400)))
    tokenizers = checkpoint.tokenizer(), open_checkpoint(trained.FOLDER).tokenizer()
    assert len({tuple(each.encode(source).ids) for each in tokenizers}) == 1
    tokens = texts[0][: len(expected)]
    for threads in (1, 2):
        model = Model.from_pretrained(paths[name], threads=threads)
        assert [each.group for each in model.types] == [128]
        assert model.head.kind == "ternary"
        assert model.weights.embedding.group == 128
        assert cases.same_bits(model.logits(tokens), expected)
        assert cases.same_bits(stepped(model, tokens), expected)


@pytest.mark.parametrize("encoding", slow_but(["two_bit", "base3"], "two_bit"))
def test_an_encoding(encoding, texts, expected):
    """The same bits."""
    model = Model.from_pretrained(trained.FOLDER, weights=encoding, threads=2)
    assert model.encoding == encoding
    assert cases.same_bits(model.logits(texts[0][: len(expected)]), expected)


def test_the_blocks_of_the_files(paths):
    """Both have one id; tensors' sizes tell 18 bytes for 64 weights from 34 for 128."""
    for name, size in (("Q2_0", 18 / 64), ("Q2_0 of 128", 34 / 128)):
        for tensor in GgufFile(paths[name]).tensors.values():
            if len(tensor.shape) == 2:
                assert tensor.data.nbytes == np.prod(tensor.shape) * size


def test_floats(texts):
    """As fp16, for the baseline, tables are floats as well, of the same values."""
    packed, floats = (
        Model.from_pretrained(trained.FOLDER, weights=weights, threads=2)
        for weights in ("two_bit", "fp16")
    )
    tables = packed.weights.embedding, floats.weights.embedding
    assert [type(each) for each in tables] == [TernaryMatrix, HalfMatrix]
    assert cases.same_bits(tables[0].to_dense() + np.float32(0), tables[1].to_dense())
    logits = floats.logits(texts[0][:90])
    assert cases.same_bits(logits, reference.logits(floats, texts[0][:90]))


def test_it_has_learned(texts):
    """It needs fewer bits than the bigram model over the same tokens."""
    tokenizer = open_checkpoint(trained.FOLDER).tokenizer()
    model = Model.from_pretrained(trained.FOLDER, threads=2)
    size = sum(len(tokenizer.decode(tokens).encode()) for tokens in texts)
    bits = sum(trained.losses_of(map(model.logits, texts), texts)) / np.log(2) / size
    print(f"{bits:.3f} bits a byte")
    assert bits < MAX_SHARE * BIGRAM_BITS


@pytest.fixture(scope="module")
def exact(texts):
    """The perplexity in float64 with activations as they are."""
    model = Model.from_pretrained(trained.FOLDER, threads=1)
    logits = (reference.logits(model, each, reference.Unquantised) for each in texts)
    return perplexity(trained.losses_of(logits, texts))


@pytest.mark.parametrize("cache", ["fp16", "fp32", "int8"])
def test_what_int8_activations_cost(texts, exact, cache):
    """Perplexity, over that of float64 with activations as they are."""
    model = Model.from_pretrained(trained.FOLDER, threads=2, cache=cache)
    found = perplexity(trained.losses_of(map(model.logits, texts), texts))
    print(f"{found:.4f}, in float64 {exact:.4f}: {found / exact - 1:+.4%}")
    assert abs(found / exact - 1) < MAX_LOSS
