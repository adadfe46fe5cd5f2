"""A checkpoint: what a decoder is loaded from, whatever wrote its files."""

from __future__ import annotations

import functools
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ternops.decoder.config import Config
from ternops.decoder.formats.gguf_file import MAGIC
from ternops.decoder.weights import HalfMatrix, Layer, Weights
from ternops.kernels.table import best_encoding
from ternops.matrix import TernaryMatrix, pack
from ternops.memory import Arena

if TYPE_CHECKING:
    from tokenizers import Tokenizer

#: The checkpoint that comes with the package.
TINY = Path(__file__).parents[2] / "checkpoints" / "tiny"


class Checkpoint(ABC):
    """One model's files, opened and checked as far as their headers tell.

    Every method reads from the files anew and raises ValueError, naming the tensor and what was
    expected, for one that is missing, of another shape or dtype, or not finite. Matrices are those
    of `transformers`: (outputs, inputs), heads one after another, the two halves of a head rotated
    against each other.
    """

    config: Config

    @abstractmethod
    def trits(self, layer: int, name: str) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
        """Trits (outputs, inputs) of a name in `Config.linear_shapes` and the scale they are
        multiplied by, of shape () or (outputs,)."""

    @abstractmethod
    def norm(self, layer: int, name: str) -> npt.NDArray[np.float32]:
        """The weight of a name in `Config.norm_sizes`."""

    @abstractmethod
    def final_norm(self) -> npt.NDArray[np.float32]:
        """The weight of the norm before the head, (hidden,)."""

    @abstractmethod
    def embedding(self) -> HalfMatrix:
        """(vocabulary, hidden)."""

    @abstractmethod
    def head(self) -> HalfMatrix:
        """(vocabulary, hidden); asked for only where `config.tied` is false."""

    @abstractmethod
    def tokenizer(self) -> Tokenizer:
        """Raises ModuleNotFoundError without the tokenizers package, FileNotFoundError or
        ValueError without an intact tokenizer."""

    @abstractmethod
    def chat_template(self) -> str | None:
        """The Jinja source that makes one text of the messages of a chat, if there is one."""

    @abstractmethod
    def special_tokens(self) -> dict[str, str]:
        """What a chat template may name: "bos_token" and "eos_token", each where there is one."""

    def matrix(self, layer: int, name: str, encoding: str) -> TernaryMatrix:
        """The matrix of a linear layer, packed."""
        trits, scale = self.trits(layer, name)
        return pack(trits, scale, encoding).moved(self._arena)

    @functools.cached_property
    def _arena(self) -> Arena:
        return Arena()

    def preferred_encoding(self) -> str:
        """The best encoding here for all the linear layers together."""
        return best_encoding(self.config.linear_weights)


def open_checkpoint(path: str | os.PathLike[str] | None = None) -> Checkpoint:
    """Open a Hugging Face folder, a GGUF file or what `python -m ternops quantize` wrote.

    path: a folder, which may hold one GGUF file in place of a config.json, or a file (default:
    the tiny checkpoint of this package).
    Raises FileNotFoundError and ValueError, naming the file and what is wrong with it, and
    ModuleNotFoundError without the gguf package where it is needed.
    """
    from ternops.decoder.formats.gguf import Gguf
    from ternops.decoder.formats.hugging_face import HuggingFace
    from ternops.decoder.formats.packed import PackedFile

    where = Path(path or TINY)
    if gguf := _gguf_file(where):
        return Gguf(gguf)
    return PackedFile(where) if where.is_file() else HuggingFace(where)


def _gguf_file(path: Path) -> Path | None:
    """The GGUF file that a path is or, without a config.json, holds."""
    if path.is_dir():
        files = [] if (path / "config.json").is_file() else sorted(path.glob("*.gguf"))
        if len(files) > 1:
            names = ", ".join(file.name for file in files)
            raise ValueError(f"model: {str(path)!r} holds {names}, expected the path of one")
        return files[0] if files else None
    if not path.is_file():
        return None
    with open(path, "rb") as file:
        is_gguf = file.read(len(MAGIC)) == MAGIC
    return path if is_gguf or path.suffix == ".gguf" else None


def load_weights(
    checkpoint: Checkpoint,
    kind: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> Weights:
    """Read a checkpoint.

    kind: how the linear layers are held: an encoding, "auto" for the best one for all of them
    together, or "float16" of the quantised values, for the baseline.
    progress: called with the layers done and their number.
    """
    config = checkpoint.config
    if kind == "auto":
        kind = checkpoint.preferred_encoding()
    layers = []
    for index in range(config.layers):
        linear = {name: _linear(checkpoint, index, name, kind) for name in config.linear_shapes()}
        norms = {name: checkpoint.norm(index, name) for name in config.norm_sizes()}
        layers.append(Layer(linear, norms))
        if progress:
            progress(index + 1, config.layers)
    embedding = checkpoint.embedding()
    head = embedding if config.tied else checkpoint.head()
    return Weights(config, layers, checkpoint.final_norm(), embedding, head)


def _linear(checkpoint: Checkpoint, layer: int, name: str, kind: str) -> TernaryMatrix | HalfMatrix:
    if kind != "float16":
        return checkpoint.matrix(layer, name, kind)
    trits, scale = checkpoint.trits(layer, name)
    return HalfMatrix.from_floats(trits * (scale if scale.ndim == 0 else scale[:, None]))
