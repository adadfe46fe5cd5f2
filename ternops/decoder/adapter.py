"""A LoRA adapter (arXiv 2106.09685) of a decoder: two low-rank matrices beside linear layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ternops.decoder.adapted import PROJECTED
from ternops.decoder.architectures import DELTA_SLOTS, LINEAR
from ternops.decoder.config import Config
from ternops.decoder.records import LOW_RANK
from ternops.decoder.weights import HalfMatrix, Layer
from ternops.kernels.low_rank import RANKS
from ternops.matrix import TernaryMatrix
from ternops.memory import HoldsAddresses, aligned_zeros

Array = npt.NDArray[np.float32]
_SLOTS = tuple(LINEAR)


class LowRank(NamedTuple):
    """a: float32 (rank, inputs); b: float32 (outputs, rank); their product is multiplied by scale,
    which is float32's."""

    a: Array
    b: Array
    scale: float


@dataclass(frozen=True)
class Adapter:
    """layers: of each layer, by name, what stands beside a linear layer: W x + scale B (A x), in
    float32 of the layer's input as it is before it is rounded."""

    layers: list[dict[str, LowRank]]

    @property
    def nbytes(self) -> int:
        """Bytes of both matrices, four a weight."""
        every = [each for layer in self.layers for each in layer.values()]
        return sum(each.a.nbytes + each.b.nbytes for each in every)

    @property
    def arrays(self) -> list[npt.NDArray[Any]]:
        """All that it consists of."""
        return [
            np.asarray(part, np.float32)
            for layer in self.layers
            for name in sorted(layer)
            for part in layer[name]
        ]


class AdaptedMatrix(NamedTuple):
    """A matrix of the base with what stands beside it."""

    base: TernaryMatrix | HalfMatrix
    beside: LowRank


def adapted_layers(layers: list[Any], adapter: Adapter | None) -> list[Any]:
    """Layers whose linear ones are an `AdaptedMatrix` where the adapter has something for them."""
    if adapter is None:
        return layers
    found = []
    for layer, beside in zip(layers, adapter.layers, strict=True):
        linear: dict[str, Any] = {
            name: AdaptedMatrix(each, beside[name]) if name in beside else each
            for name, each in layer.linear.items()
        }
        found.append(Layer(linear, layer.norms, layer.biases, layer.vectors))
    return found


class AdapterTable(HoldsAddresses):
    """What kernels read of an adapter: a table of LOW_RANK, (layers, slots), and copies of its
    matrices, with ranks of zeros up to a multiple of RANKS and the second matrix turned.

    Raises ValueError for an adapter of other layers or shapes.
    """

    def __init__(self, config: Config, adapter: Adapter) -> None:
        _check(config, adapter)
        self.ranks = 0
        self._table = np.zeros((config.layers, len(_SLOTS)), LOW_RANK)
        self._held: list[Array] = []
        for row, layer in zip(self._table, adapter.layers, strict=True):
            for name, each in layer.items():
                a, b = self._hold(each.a), self._hold(each.b.T)
                place = a.ctypes.data, b.ctypes.data, len(a), float(np.float32(each.scale))
                row[_SLOTS.index(DELTA_SLOTS.get(name, name))] = place
                self.ranks = max(self.ranks, len(a))

    def _hold(self, matrix: Array) -> Array:
        ranks = -(-len(matrix) // RANKS) * RANKS
        found = aligned_zeros(4 * ranks * matrix.shape[1], np.uint8).view(np.float32)
        found = found[: ranks * matrix.shape[1]].reshape(ranks, -1)
        found[: len(matrix)] = matrix
        self._held.append(found)
        return found

    @property
    def address(self) -> int:
        """Of the table."""
        return int(self._table.ctypes.data)


class AdapterScratch(HoldsAddresses):
    """A pass's memory for an adapter. fields: of the pass's record."""

    def __init__(self, table: AdapterTable, threads: int) -> None:
        own = PROJECTED + -(-4 * table.ranks // 64) * 64
        self._memory = aligned_zeros(threads * own, np.uint8)
        self.fields = {
            "adapter": table.address, "adapter_own": self._memory.ctypes.data,
            "adapter_bytes": own,
        }  # fmt: skip


def _check(config: Config, adapter: Adapter) -> None:
    if len(adapter.layers) != config.layers:
        raise ValueError(f"lora: {len(adapter.layers)} layers, expected {config.layers}")
    for number, layer in enumerate(adapter.layers):
        shapes = config.linear_shapes(number)
        for name, each in layer.items():
            found = len(each.b), each.a.shape[1]
            if found != shapes.get(name) or each.b.shape[1] != len(each.a):
                raise ValueError(
                    f"lora: {name} in layer {number} is {each.b.shape} times {each.a.shape}, "
                    f"expected {shapes.get(name)}"
                )
