"""Small models beside llama.cpp: files of them, its logits and tokens, and how near ours are."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from ternops.decoder import Model
from tests.helpers import gguf_files

llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")

CONFIGS = {
    "llama": replace(gguf_files.LLAMA, ffn=256, vocabulary=256, context=256),
    "bitnet": replace(gguf_files.BITNET, ffn=256, vocabulary=256, context=256, activation="silu"),
    "qwen3": replace(gguf_files.QWEN3, ffn=256, head_dim=64, vocabulary=256, context=256),
    "qwen2": replace(gguf_files.QWEN2, ffn=256, vocabulary=256, context=256),
    "minicpm": replace(gguf_files.MINICPM, ffn=256, vocabulary=256, context=256, logit_scale=1.5),
    "gemma3": replace(gguf_files.GEMMA3, ffn=256, head_dim=64, vocabulary=256, context=256),
    "qwen35": replace(gguf_files.QWEN35, ffn=256, vocabulary=256, context=256),
}
#: With an embedding and a head of their own.
UNTIED = ("llama", "qwen2", "minicpm", "qwen35")
PROMPTS = ([5, 9, 30, 7], [255], list(range(60, 100)))
#: Of logits whose standard deviation is 16 to 25; a permuted head or another rope makes it 60.
LARGEST_DIFFERENCE = 5
#: The same in the root of the mean square.
MEAN_DIFFERENCE = 1


def their_model(path, **settings):
    """llama.cpp's, on two threads."""
    return llama_cpp.Llama(str(path), n_ctx=256, n_threads=2, verbose=False, **settings)


def their_logits(path, tokens):
    """llama.cpp's logits after each token."""
    model = their_model(path, logits_all=True)
    model.eval(tokens)
    return np.array(model.scores[: len(tokens)])


def their_tokens(path, prompt, count):
    """What llama.cpp goes on with, always taking the likeliest token."""
    steps = their_model(path).generate(prompt, temp=0.0, repeat_penalty=1.0)
    return list(itertools.islice(steps, count))


def write(path, architecture, kind, values, embedding="F32", config=None, more=None):
    """A file of a model without a vocabulary."""
    return gguf_files.write_gguf(
        path, values, architecture, kind, embedding=embedding,
        config=config or CONFIGS[architecture],
        metadata={
            "tokenizer.ggml.model": "no_vocab",
            **({"bitnet.hidden_activation": "silu"} if architecture == "bitnet" else {}),
            **(more or {}),
        },
    )  # fmt: skip


def random_values(architecture, gain, configs=CONFIGS):
    """Random, with the blocks' outputs times `gain`, so that they outweigh the embedding or not."""
    values = gguf_files.random_values(configs[architecture])
    for (layer, name), (trits, scale) in values.linear.items():
        if name in ("o", "out", "down"):
            values.linear[layer, name] = trits, scale * np.float32(gain)
    return values


def decided_values(architecture, configs=CONFIGS):
    """Random blocks between an embedding and a head that are a Hadamard matrix: rows of 1 and -1,
    all at right angles. The head's row after a token's own is that of the next token; where both
    are tied, the last norm has the signs of a row, which make another row of each."""
    gain = {"llama": 2, "minicpm": 2, "qwen35": 0.5}.get(architecture, 1)
    values = random_values(architecture, gain, configs)
    values.biases = {name: bias / 16 for name, bias in values.biases.items()}
    rows = np.ones((1, 1), np.float32)
    while len(rows) < 256:
        rows = np.block([[rows, rows], [rows, -rows]])
    values.embedding = rows
    if architecture in UNTIED:
        values.head, values.norm = np.roll(rows, 1, axis=0), rows[0]
    else:
        values.head, values.norm = rows, rows[77]
    return values


def check_logits(path, tokens):
    """Ours are near theirs; gives ours."""
    logits = Model.from_pretrained(path, threads=2).logits(tokens)
    differences = logits - their_logits(path, tokens)
    assert np.abs(differences).max() < LARGEST_DIFFERENCE
    assert np.sqrt(np.square(differences).mean()) < MEAN_DIFFERENCE
    assert logits.std() > 15
    return logits
