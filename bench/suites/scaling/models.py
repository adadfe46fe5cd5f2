"""Float models of a few sizes: trained on the standard library, or loaded; their perplexity.

The training is that of examples/train_trunk.py, on bytes. torch and transformers are imported here
only when a model is needed.
"""

from __future__ import annotations

import argparse
import importlib
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parents[3]
CONTEXT = 512
VOCABULARY = 258  # bytes, a beginning and an end
_HEAD = 16  # columns of the width that bring a head
#: Of training: steps, tokens a step, learning rate.
STEPS, TOKENS, RATE = 2500, 1024, 5e-3


class Size(NamedTuple):
    width: int
    layers: int

    @property
    def name(self) -> str:
        return f"{self.width}x{self.layers}"

    def config(self) -> dict[str, int]:
        heads = self.width // _HEAD
        return {
            "vocab_size": VOCABULARY, "hidden_size": self.width,
            "intermediate_size": 2 * self.width, "num_hidden_layers": self.layers,
            "num_attention_heads": heads,
            "num_key_value_heads": heads // 4 if heads % 4 == 0 else 1,
        }  # fmt: skip


SIZES = (Size(32, 2), Size(64, 2), Size(96, 3), Size(128, 4))


def folder_of(size: Size, cache: Path) -> Path:
    return cache / size.name


def _examples(name: str) -> Any:
    """A script of examples/, which lie beside this package."""
    folder = str(ROOT / "examples")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return importlib.import_module(name)


def train(sizes: list[Size], cache: Path, threads: int, steps: int = STEPS) -> None:
    """Make the folders of models that are not in the cache."""
    missing = [each for each in sizes if not (folder_of(each, cache) / "config.json").is_file()]
    if not missing:
        return
    import torch

    training, train_trunk = _examples("training"), _examples("train_trunk")
    torch.set_num_threads(threads)
    text = training.read_text(VOCABULARY)
    options = argparse.Namespace(steps=steps, minutes=math.inf, tokens=TOKENS, lr=RATE, seed=0)
    # Compiling takes longer than it saves in so few steps.
    with torch.compiler.set_stance("force_eager"):
        for size in missing:
            config = {**train_trunk.SIZES, **size.config()}
            folder = folder_of(size, cache)
            train_trunk.train("llama", "float", "float", folder, text, options, config)


def held_out(cache: Path, size: Size, count: int) -> npt.NDArray[np.int64]:
    """Whole windows of the files that no model was trained on, from all of them."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder_of(size, cache) / "tokenizer.json"))
    texts = _examples("training").read_sources()[1]
    streams = [np.array(each.ids) for each in tokenizer.encode_batch(texts)]
    windows = [
        stream[start : start + CONTEXT]
        for stream in streams
        for start in range(0, len(stream) - CONTEXT + 1, CONTEXT)
    ]
    return np.stack([windows[at * len(windows) // count] for at in range(count)]).astype(np.int64)


class Model:
    """A float model whose linear layers can be given other weights."""

    def __init__(self, folder: Path) -> None:
        import torch
        import transformers

        self._model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        parameters = dict(self._model.named_parameters())
        self.linear = {
            name: each.detach().numpy().copy()
            for name, each in parameters.items()
            if "_proj" in name
        }
        #: Embedding, which is the head as well, and norms.
        self.others = sum(each.numel() for name, each in parameters.items() if "_proj" not in name)

    def perplexity(
        self, windows: npt.NDArray[np.int64], weight_of: Callable[[str], npt.NDArray[np.float32]]
    ) -> float:
        """Of a byte, with other weights by name."""
        import torch
        import torch.nn.functional as F

        total = 0.0
        with torch.no_grad():
            for name, parameter in self._model.named_parameters():
                if name in self.linear:
                    parameter.copy_(torch.from_numpy(weight_of(name)))
            for part in torch.from_numpy(windows).split(8):
                logits = self._model(input_ids=part[:, :-1], use_cache=False).logits
                losses = F.cross_entropy(
                    logits.flatten(0, 1), part[:, 1:].flatten(), reduction="none"
                )
                total += losses.double().sum().item()
        return math.exp(total / (windows[:, 1:].size))
