"""Engines that give logits of tokens: ternops by encoding, its float64 reference, and peers."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ternops.decoder import Model, reference
from ternops.encodings import PANELS, TERNARY
from ternops.matrix import TernaryMatrix

#: Tokens of one sequence -> float (tokens, vocabulary).
Logits = Callable[[list[int]], npt.NDArray[Any]]


class Forward(NamedTuple):
    """name: with what it holds weights in. rounds: what else."""

    name: str
    rounds: str
    logits: Logits


class LeftOut(ValueError):
    """Why an engine cannot run a model here, in one line."""


def ours(path: Path, threads: int) -> Iterator[Forward]:
    """ternops with each encoding that holds the weights, with a finer cache, in plain NumPy, and
    without rounded activations."""
    first, *_ = TERNARY
    model = Model.from_pretrained(path, weights=first, cache="fp32", threads=threads)
    matrices = [each for layer in model.weights.layers for each in layer.linear.values()]
    has_groups = any(isinstance(each, TernaryMatrix) and each.group for each in matrices)
    for encoding in TERNARY:
        if encoding in PANELS or not has_groups:
            other = Model.from_pretrained(path, weights=encoding, threads=threads)
            yield Forward(f"ternops, {encoding}", "int8 activations, float16 cache", other.logits)
    yield Forward(f"ternops, {first}", "int8 activations", model.logits)
    yield Forward("NumPy, float64", "int8 activations",
                 lambda tokens: reference.logits(model, tokens, reference.Double))  # fmt: skip
    floats = Model.from_pretrained(path, weights="fp16", cache="fp32", threads=threads)
    yield Forward("ternops, fp16", "nothing", floats.logits)


def transformers(path: Path, rounds: str, threads: int) -> Forward:
    """transformers in float32, of a folder or a GGUF file; LeftOut without it, or where it does not
    open that. rounds: what the model's own code rounds."""
    for name in ("torch", "transformers"):
        if importlib.util.find_spec(name) is None:
            raise LeftOut(f"transformers: {name} is not installed")
    import torch
    import transformers as package

    torch.set_num_threads(threads)
    package.utils.logging.disable_progress_bar()
    try:
        file = {"gguf_file": path.name} if path.is_file() else {}
        model = package.AutoModelForCausalLM.from_pretrained(
            path.parent if file else path, dtype=torch.float32, **file
        )
    except Exception as error:  # it raises what its hundred readers do
        raise LeftOut(f"transformers: {' '.join(str(error).split())[:200]}") from None

    def logits(tokens: list[int]) -> npt.NDArray[Any]:
        # It compiles layers of BitNet with a C++ compiler, where it may.
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            found: npt.NDArray[Any] = model(torch.tensor([tokens])).logits[0].numpy()
        return found

    return Forward(f"transformers {package.__version__}, float32", rounds, logits)


def llama_cpp(path: Path, kind: str, context: int, threads: int) -> Forward:
    """llama.cpp on a GGUF file; LeftOut without it, or where it does not load the file."""
    if importlib.util.find_spec("llama_cpp") is None:
        raise LeftOut("llama.cpp: llama-cpp-python is not installed")
    import llama_cpp as package

    try:
        model = package.Llama(
            str(path), n_ctx=context, n_threads=threads, verbose=False, logits_all=True
        )
    except ValueError:
        raise LeftOut(f"llama.cpp: does not load {kind} of this model") from None

    def logits(tokens: list[int]) -> npt.NDArray[Any]:
        model.reset()
        model.eval(tokens)
        return np.array(model.scores[: len(tokens)])

    version = importlib.metadata.version("llama-cpp-python")
    return Forward(
        f"llama.cpp (llama-cpp-python {version}), {kind}",
        "int8 activations in blocks, float16 cache", logits,
    )  # fmt: skip
