"""A checkpoint: what a decoder is loaded from, whatever wrote its files."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ternops.decoder.config import Config
from ternops.decoder.formats.pooling import Pooling
from ternops.decoder.formats.scales import products
from ternops.decoder.sampling import Sampling
from ternops.decoder.weights import HalfMatrix
from ternops.kernels.tuning import best_encoding
from ternops.matrix import TernaryMatrix, pack
from ternops.memory import Arena

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class Checkpoint(ABC):
    """One model's files, opened and checked as far as their headers say.

    Every method reads from the files anew and raises ValueError, naming the tensor and what was
    expected, for one that is missing, of another shape or dtype, or not finite. Matrices are those
    of `transformers`: (outputs, inputs), heads one after another, the two halves of a head rotated
    against each other.
    """

    config: Config

    @abstractmethod
    def trits(self, layer: int, name: str) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
        """Trits, or other levels, (outputs, inputs) of a name in `Config.linear_shapes` of the
        layer and the scale they are multiplied by, (), (outputs,) or (outputs, groups of
        neighbouring inputs)."""

    @abstractmethod
    def norm(self, layer: int, name: str) -> npt.NDArray[np.float32]:
        """The weight of a name in `Config.norm_sizes`."""

    def bias(self, layer: int, name: str) -> npt.NDArray[np.float32]:
        """The bias of a name in `Config.bias_sizes`."""
        raise ValueError(f"checkpoint: a bias of {name}, expected none in this format")

    def vector(self, layer: int, name: str) -> npt.NDArray[np.float32]:
        """What is called so in `Config.vector_shapes`."""
        raise ValueError(f"checkpoint: {name} of a delta net, expected none in this format")

    @abstractmethod
    def final_norm(self) -> npt.NDArray[np.float32]:
        """The weight of the norm before the head, (hidden,)."""

    @abstractmethod
    def embedding(self) -> HalfMatrix | TernaryMatrix:
        """(vocabulary, hidden); packed, with a scale a group of inputs, where it is ternary."""

    @abstractmethod
    def head(self) -> HalfMatrix | TernaryMatrix:
        """The same of the output head; called only if `config.tied` is false."""

    @abstractmethod
    def tokenizer(self) -> Tokenizer:
        """Raises ModuleNotFoundError without the tokenizers package, FileNotFoundError or
        ValueError without an intact tokenizer."""

    @abstractmethod
    def chat_template(self) -> str | None:
        """The Jinja source that makes one text of the messages of a chat, if there is one."""

    @abstractmethod
    def special_tokens(self) -> dict[str, str]:
        """What a chat template may name: "bos_token", "eos_token" and others, where there are."""

    def pooling(self) -> Pooling:
        """How texts are embedded; raises ValueError for files that are damaged."""
        return Pooling()

    def sampling(self) -> Sampling:
        """What the files recommend, greedy where they do not; raises ValueError for files that are
        damaged."""
        return Sampling()

    def matrix(self, layer: int, name: str, encoding: str) -> TernaryMatrix | HalfMatrix:
        """The matrix of a linear layer, packed; one that is not ternary in an encoding of its own,
        or, of neither trits nor other levels, in two bytes a weight."""
        trits, scale = self.trits(layer, name)
        return pack(trits, scale, encoding).moved(self._arena)

    def floats(self, layer: int, name: str) -> npt.NDArray[np.float32]:
        """The same, quantised as it is, as float32."""
        return products(*self.trits(layer, name))

    @functools.cached_property
    def _arena(self) -> Arena:
        return Arena()

    def half(self, layer: int, name: str) -> HalfMatrix:
        """The matrix of a linear layer that is not ternary, as it is; float32 rounded to float16.

        Raises ValueError where the files hold trits, or say that their floats are to become some.
        """
        raise ValueError(f"checkpoint: {name} in layer {layer} is ternary, expected floats")

    @property
    def is_float(self) -> bool:
        """Whether `half` is what linear layers are read by, judged by the first of them."""
        return False

    def preferred_encoding(self) -> str:
        """The best encoding here for all the linear layers together."""
        return best_encoding(self.config.linear_weights)
