"""The same tokens and, nearly, the same logits as llama.cpp, out of the same GGUF files.

llama.cpp rounds activations to int8 as BitNet does, but in blocks of 256, where this decoder does
it a row at a time. Here hidden, feed-forward and head sizes make all rows 256 long, so that both
take the same steps. But llama.cpp rounds queries and attention weights to float16, too, not only
the cache: then some activation lies so near the middle of two steps that it is rounded the other
way, by one step of 127, which moves logits by some percent of their spread. Greedy tokens are
therefore compared on models that choose theirs by a wider margin.
"""

from __future__ import annotations

import ctypes
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ternops.decoder import Model, reference
from ternops.decoder.formats.convert_gguf import convert_to_gguf
from ternops.decoder.formats.gguf import Gguf
from ternops.decoder.formats.gguf_file import GgufFile
from ternops.decoder.formats.loading import TINY
from tests.helpers import cases, gguf_files
from tests.peers.llama_models import (
    CONFIGS,
    LARGEST_DIFFERENCE,
    PROMPTS,
    UNTIED,
    check_logits,
    decided_values,
    random_values,
    their_logits,
    their_model,
    their_tokens,
    write,
)

llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
pytestmark = pytest.mark.peers

#: Of a type, the inputs that share a scale.
GROUPS = {"Q2_0": 64, "Q1_0": 128, "TQ2_0": 256}
#: Delta nets make more of the steps of activations, which llama.cpp has for 32 inputs with Q2_0 and
#: Q1_0, and we for 64 and 128.
GROUPED = [(name, kind) for name in ("llama", "qwen3", "gemma3") for kind in GROUPS]
GROUPED += [("qwen35", "TQ2_0")]
#: The same with rows of more than one block.
WIDE = {name: replace(config, ffn=512) for name, config in CONFIGS.items()}
KINDS = ("TQ1_0", "TQ2_0")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("architecture", CONFIGS)
def test_the_same_greedy_tokens(tmp_path, architecture, kind):
    """48 steps after each prompt, on models whose margins are wider than all differences."""
    path = write(tmp_path / "a.gguf", architecture, kind, decided_values(architecture))
    model = Model.from_pretrained(path, threads=2)
    for prompt in PROMPTS:
        tokens = list(model.generate(prompt, max_new_tokens=48))
        assert len(tokens) == 48
        assert tokens == their_tokens(path, prompt, 48)
        best = np.sort(check_logits(path, prompt + tokens), axis=1)
        assert (best[:, -1] - best[:, -2]).min() > 4 * LARGEST_DIFFERENCE


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("architecture", CONFIGS)
def test_nearly_the_same_logits(tmp_path, architecture, kind):
    """Of models that are all random, whose blocks outweigh the embedding."""
    path = write(tmp_path / "a.gguf", architecture, kind, random_values(architecture, 4))
    for prompt in PROMPTS:
        tokens = np.random.default_rng(len(prompt)).integers(0, 256, 60).tolist()
        check_logits(path, prompt + tokens)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("architecture", CONFIGS)
def test_files_that_llama_cpp_quantised(tmp_path, architecture, kind):
    """Out of float16: the same trits and scales, an embedding and a head of its own choice."""
    values = random_values(architecture, 1)
    plain = write(tmp_path / "plain.gguf", architecture, "F16", values, embedding="F16")
    path = tmp_path / "quantised.gguf"
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}")
    paths = str(plain).encode(), str(path).encode()
    assert llama_cpp.llama_model_quantize(*paths, ctypes.byref(settings)) == 0
    kinds = {name: tensor.kind.name for name, tensor in GgufFile(path).tensors.items()}
    assert kinds["blk.0.ffn_up.weight"] == kind
    assert kinds["token_embd.weight"] == ("Q4_K" if architecture in UNTIED else "Q6_K")
    assert kinds.get("output.weight") == ("Q6_K" if architecture in UNTIED else None)
    before, after = Gguf(plain), Gguf(path)
    for layer, name in values.linear:
        for ours, theirs in zip(before.trits(layer, name), after.trits(layer, name), strict=True):
            assert cases.same_bits(ours, theirs)
    check_logits(path, [3, 100, 200, 55])


@pytest.mark.parametrize(
    "pre", ["gpt-2", "llama-bpe", "falcon3", "smollm", "qwen2", "qwen35", "default", None]
)
def test_the_same_tokens_of_text(tmp_path, pre):
    """Byte-level BPE, cut in each way."""
    keys = gguf_files.tokenizer_metadata(TINY / "tokenizer.json", "gpt-2")
    compare_tokens(tmp_path, keys | {"tokenizer.ggml.pre": pre})


def test_the_same_tokens_of_sentence_piece(tmp_path):
    """Merges by score, with and without the space in front."""
    _, keys = gguf_files.sentence_piece()
    for prefix in (True, False):
        compare_tokens(tmp_path, keys | {"tokenizer.ggml.add_space_prefix": prefix})


def compare_tokens(tmp_path, keys):
    config = replace(CONFIGS["llama"], vocabulary=len(keys["tokenizer.ggml.tokens"]))
    path = gguf_files.write_gguf(
        tmp_path / "a.gguf", gguf_files.random_values(config), config=config, tokenizer=keys
    )
    ours, theirs = Gguf(path).tokenizer(), their_model(path, vocab_only=True)
    sources = sorted(Path(gguf_files.__file__).parents[1].rglob("*.py"))
    for text in [*gguf_files.TEXTS, *(source.read_text("utf-8") for source in sources)]:
        expected = theirs.tokenize(text.encode(), add_bos=True, special=True)
        assert ours.encode(text).ids == expected, text[:100]


def grouped_values(architecture, kind, gain=None):
    """Those of `decided_values`, or random ones of a gain, with a scale a block of the type."""
    values = random_values(architecture, gain, WIDE) if gain else decided_values(architecture, WIDE)
    random = np.random.default_rng(7)
    for at, (trits, scale) in values.linear.items():
        if kind == "Q1_0":
            trits = random.choice(np.array([-1, 1], np.int8), trits.shape)
            scale = scale * np.float32(np.sqrt(0.5))  # half of the trits were 0
        groups = trits.shape[1] // GROUPS[kind]
        spread = random.uniform(0.5, 1.5, (len(trits), groups)) * scale
        values.linear[at] = trits, spread.astype(np.float16).astype(np.float32)
    return values


@pytest.mark.parametrize(("architecture", "kind"), GROUPED)
def test_the_same_greedy_tokens_of_groups(tmp_path, architecture, kind):
    """With a scale for 64, 128 or 256 inputs, whose activations have steps of blocks in both; out
    of the same file, and of the one that we write of it."""
    values = grouped_values(architecture, kind)
    path = write(tmp_path / "a.gguf", architecture, kind, values, config=WIDE[architecture])
    convert_to_gguf(path, tmp_path / "b.gguf")
    ours = [Model.from_pretrained(tmp_path / each, threads=2) for each in ("a.gguf", "b.gguf")]
    for prompt in PROMPTS:
        tokens = list(ours[0].generate(prompt, max_new_tokens=48))
        assert tokens == list(ours[1].generate(prompt, max_new_tokens=48))
        for each in ("a.gguf", "b.gguf"):
            assert tokens == their_tokens(tmp_path / each, prompt, 48)
        best = np.sort(check_logits(path, prompt + tokens), axis=1)
        assert (best[:, -1] - best[:, -2]).min() > 2 * LARGEST_DIFFERENCE


@pytest.mark.parametrize(("architecture", "kind"), GROUPED)
def test_nearly_the_same_logits_of_groups(tmp_path, architecture, kind):
    """Of models that are all random, whose blocks outweigh the embedding."""
    values = grouped_values(architecture, kind, 4)
    path = write(tmp_path / "a.gguf", architecture, kind, values, config=WIDE[architecture])
    assert Gguf(path).matrix(0, "down", "two_bit").group == GROUPS[kind]
    check_logits(path, np.random.default_rng(1).integers(0, 256, 60).tolist())


@pytest.mark.parametrize("kind", ["Q2_0", "Q1_0"])
def test_delta_nets_with_other_steps_of_activations(tmp_path, kind):
    """About as near to activations that are not rounded as llama.cpp is."""
    values = grouped_values("qwen35", kind, 1)
    path = write(tmp_path / "a.gguf", "qwen35", kind, values, config=WIDE["qwen35"])
    tokens = np.random.default_rng(1).integers(0, 256, 60).tolist()
    model = Model.from_pretrained(path, threads=2)
    exact = reference.logits(model, tokens, reference.Unquantised)
    ours, theirs = (
        np.sqrt(np.square(each - exact).mean())
        for each in (model.logits(tokens), their_logits(path, tokens))
    )
    assert exact.std() > 15
    assert ours < 1.8 * theirs < 3


@pytest.mark.parametrize("layers", [(0, 1, 1, 0), (1, 0, 0, 1)])
def test_delta_nets_in_any_layers(tmp_path, layers):
    """Out of a file that lists them, and of the one that we write of it."""
    config = replace(CONFIGS["qwen35"], delta_layers=layers)
    values = random_values("qwen35", 1, {"qwen35": config})
    listed = {"qwen35.attention.recurrent_layers": list(layers)}
    path = write(tmp_path / "a.gguf", "qwen35", "TQ2_0", values, config=config, more=listed)
    convert_to_gguf(path, tmp_path / "b.gguf")
    assert Gguf(path).config.attention_layers == 4 - sum(layers)
    found = [check_logits(each, list(range(60))) for each in (path, tmp_path / "b.gguf")]
    assert cases.same_bits(*found)


@pytest.mark.parametrize("encoding", ["two_bit", "base3"])
@pytest.mark.parametrize("architecture", CONFIGS)
def test_files_that_we_wrote(tmp_path, architecture, encoding):
    """The same greedy tokens out of a file of ours, of a model whose scales float16 has not."""
    values = decided_values(architecture)
    for (layer, name), (trits, scale) in values.linear.items():
        values.linear[layer, name] = trits, scale * np.float32(1.0001)
    source = write(tmp_path / "source.gguf", architecture, "F32", values)
    path = tmp_path / "target.gguf"
    convert_to_gguf(source, path, encoding)
    model = Model.from_pretrained(path, threads=2)
    original = Model.from_pretrained(source, threads=2)
    # llama.cpp's programs of two architectures do not use the factors that keep float32 scales.
    exact = architecture not in ("qwen2", "minicpm")
    assert cases.same_bits(model.logits(PROMPTS[0]), original.logits(PROMPTS[0])) == exact
    for prompt in PROMPTS:
        tokens = list(model.generate(prompt, max_new_tokens=48))
        assert tokens == their_tokens(path, prompt, 48)
        check_logits(path, prompt + tokens)


@pytest.mark.parametrize("kind", ["llama-bpe", "qwen2", "qwen35", "sentence piece"])
def test_tokenizers_that_we_wrote(tmp_path, kind):
    """llama.cpp makes the same tokens of what we make of its keys, and write."""
    keys = gguf_files.sentence_piece()[1]
    if kind != "sentence piece":
        keys = gguf_files.tokenizer_metadata(TINY / "tokenizer.json", kind)
    config = replace(CONFIGS["llama"], vocabulary=len(keys["tokenizer.ggml.tokens"]))
    path = gguf_files.write_gguf(
        tmp_path / "a.gguf", gguf_files.random_values(config), config=config, tokenizer=keys
    )
    convert_to_gguf(path, tmp_path / "b.gguf")
    ours, theirs = Gguf(path).tokenizer(), their_model(tmp_path / "b.gguf", vocab_only=True)
    for text in gguf_files.TEXTS:
        assert ours.encode(text).ids == theirs.tokenize(text.encode(), add_bos=True, special=True)
