"""The trained checkpoint whose weights alone are ternary, and the files that are made of it.

examples/train_trunk.py made it: Qwen3's trunk, a scale for 128 inputs, the embedding ternary and
the head as well.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ternops.decoder import open_checkpoint
from ternops.decoder.formats import convert
from ternops.decoder.formats.convert_gguf import convert_to_gguf
from ternops.decoder.perplexity import negative_log_likelihoods, windows
from tests.helpers import gguf_files

FOLDER = Path(__file__).parents[1] / "checkpoints" / "tiny-qwen3"
CONTEXT = 512
#: A file of the standard library that it was not trained on: the hash of its name says so.
HELD_OUT = "json/encoder.py"
_WINDOWS = 6


def texts() -> list[list[int]]:
    """Tokens of a text that it has not seen, in windows of its context."""
    source = (Path(sysconfig.get_path("stdlib")) / HELD_OUT).read_text("utf-8")
    return list(windows(open_checkpoint(FOLDER).tokenizer(), source, CONTEXT))[:_WINDOWS]


def losses_of(logits: Iterable[Any], parts: list[list[int]]) -> list[float]:
    """The negative log-likelihood of each token but the first of each window."""
    return [
        loss
        for each, tokens in zip(logits, parts, strict=True)
        for loss in negative_log_likelihoods(each[:-1], tokens[1:])
    ]


def write_files(folder: Path) -> dict[str, Path]:
    """The checkpoint in each of its formats."""
    checkpoint = open_checkpoint(FOLDER)
    config = checkpoint.config
    embedding = checkpoint.embedding().to_dense()
    values = gguf_files.Values(
        linear={
            (layer, name): checkpoint.trits(layer, name)
            for layer in range(config.layers)
            for name in config.linear_shapes()
        },
        norms={
            (layer, name): checkpoint.norm(layer, name)
            for layer in range(config.layers)
            for name in config.norm_sizes()
        },
        norm=checkpoint.final_norm(), embedding=embedding, head=embedding,
    )  # fmt: skip
    paths = {
        "Hugging Face": FOLDER, "Q2_0": folder / "q2_0.gguf", "Q2_0 of 128": folder / "q128.gguf",
        "packed": folder / "packed.safetensors",
    }  # fmt: skip
    convert_to_gguf(FOLDER, paths["Q2_0"])
    gguf_files.write_gguf(
        paths["Q2_0 of 128"], values, "qwen3", "Q2_0 of 128", embedding="Q2_0 of 128",
        config=config, tokenizer=gguf_files.tokenizer_metadata(FOLDER / "tokenizer.json", "gpt-2"),
    )  # fmt: skip
    convert.convert(FOLDER, paths["packed"])
    return paths
