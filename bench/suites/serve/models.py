"""The models that are served: the tiny checkpoint, or a random one of a size's layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.models import byte_tokenizer, random_folder, random_gguf
from ternops.cost.layouts import SIZES
from ternops.decoder.formats.gguf_tokenizer import build_tokenizer
from ternops.decoder.formats.loading import TINY as TINY_FOLDER
from ternops.decoder.formats.safetensors_file import map_file

TINY = "tiny"
NAMES = (TINY, *SIZES)
#: The embedding and the head, whose rows a random folder repeats.
_TABLES = ("model.embed_tokens.weight", "lm_head.weight")
#: Rows that are made at once.
_ROWS = 4096


def folder(size: str, parent: Path) -> Path:
    """A Hugging Face folder, written below `parent` unless it is the tiny one.

    Every token has a text, and greedy text is of all kinds of them, so that a stream has an event
    for nearly each: bytes of characters alone wait for what follows.
    """
    if size == TINY:
        return TINY_FOLDER
    config, found = SIZES[size], parent / size
    found.mkdir()
    random_folder.write_folder(found, config, lambda nbytes: None)
    keys = byte_tokenizer.gguf_keys(config.vocabulary)
    numbers = ("tokenizer.ggml.token_type", "tokenizer.ggml.scores")
    tokenizer = build_tokenizer(keys | {key: np.array(keys[key]) for key in numbers})
    (found / "tokenizer.json").write_text(tokenizer.to_str(), "utf-8")
    _randomize(found / "model.safetensors")
    return found


def _randomize(path: Path) -> None:
    """Give the tables independent Gaussian rows: of equal ones the first would always be chosen,
    and a screened head would have to compute all."""
    _, tensors = map_file(path)
    random = np.random.default_rng(0)
    for name in _TABLES:
        if name not in tensors:
            continue
        rows, columns = tensors[name].shape
        table = np.memmap(path, np.uint16, "r+", tensors[name].start, (rows, columns))
        for start in range(0, rows, _ROWS):
            part = table[start : start + _ROWS]
            values = random.standard_normal(part.shape, np.float32) / np.float32(columns**0.5)
            part[...] = values.view(np.uint32) >> 16  # bfloat16
        table.flush()


def gguf(size: str, parent: Path, linear: str, head: str) -> Path:
    """A GGUF file of about the same layout, as llama.cpp can hold it."""
    layout, _ = random_gguf.for_llama_cpp(SIZES["125M" if size == TINY else size], linear, head)
    path = parent / f"{size}-{linear}.gguf"
    random_gguf.write_gguf(path, layout, linear, head, f"Random {size}", lambda nbytes: None)
    return path
