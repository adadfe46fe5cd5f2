"""What linear layers are multiplied with while a model reads a text, in plain NumPy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from ternops.decoder.arithmetics import Unquantised
from ternops.decoder.formats.checkpoint import Checkpoint
from ternops.decoder.reference import states
from ternops.decoder.weights import Layer

Array = npt.NDArray[Any]

#: A linear layer: its number and its name.
Key = tuple[int, str]
#: Of a text, of which activations are kept.
MAX_TOKENS = 1024


def float_matrix(checkpoint: Checkpoint, layer: int, name: str) -> npt.NDArray[np.float32]:
    """float32 (outputs, inputs) of a linear layer, ternary or not."""
    try:
        return checkpoint.half(layer, name).to_dense()
    except ValueError:  # which `floats` says again, where it is not that they are ternary
        return checkpoint.floats(layer, name)


class _Watched:
    """A matrix that is read when it is multiplied with, and tells with what."""

    def __init__(self, dense: Callable[[], Array], tell: Callable[[Array], None]) -> None:
        self.dense, self.tell = dense, tell


class _Watching(Unquantised):
    @staticmethod
    def ternary(x: Array, matrix: Any, is_int4: bool = False) -> Array:
        matrix.tell(x)
        return x @ matrix.dense().astype(np.float64).T


def watch(
    checkpoint: Checkpoint, tokens: Sequence[int], note: Callable[[Key, Array], None]
) -> None:
    """Read one sequence in float64, and call `note` with each linear layer and what comes into it,
    (tokens, inputs). One matrix is in memory at a time."""
    c = checkpoint.config

    def layer_of(number: int) -> Layer:
        def watched(name: str) -> Any:
            return _Watched(
                lambda: float_matrix(checkpoint, number, name), lambda x: note((number, name), x)
            )

        return Layer(
            {name: watched(name) for name in c.linear_shapes(number)},
            {name: checkpoint.norm(number, name) for name in c.norm_sizes(number)},
            {name: checkpoint.bias(number, name) for name in c.bias_sizes(number)},
            {name: checkpoint.vector(number, name) for name in c.vector_shapes(number)},
        )

    weights = SimpleNamespace(
        layers=[layer_of(number) for number in range(c.layers)],
        embedding=checkpoint.embedding(), norm=checkpoint.final_norm(),
    )  # fmt: skip
    none = SimpleNamespace(layers=lambda of, name: of.layers)
    model: Any = SimpleNamespace(
        config=c, weights=weights, cache="fp32", deltas=none, adapter=None
    )  # fmt: skip
    states(model, tokens, _Watching)


def activations(
    checkpoint: Checkpoint, windows: Iterator[list[int]], most: int = MAX_TOKENS
) -> dict[Key, npt.NDArray[np.float32]]:
    """What comes into each linear layer, float32 (tokens, inputs), while the first `most` tokens of
    some sequences are read."""
    found: dict[Key, list[Array]] = {}
    left = most
    for window in windows:
        if left <= 0:
            break
        watch(
            checkpoint, window[:left],
            lambda key, x: found.setdefault(key, []).append(x.astype(np.float32)),
        )  # fmt: skip
        left -= len(window)
    return {key: np.concatenate(parts) for key, parts in found.items()}
