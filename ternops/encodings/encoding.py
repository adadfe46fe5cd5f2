"""What an encoding is: a record of how a matrix of few values becomes bytes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from ternops.absmean import absmean, absmean_groups
from ternops.encodings.common import PIECE, Array, spans


@dataclass(frozen=True, kw_only=True)
class Encoding(ABC):
    """One way to pack a matrix. Kernels and benchmarks read from it all that they need to know.

    values: what a weight may be, evenly spaced: the code i stands for values[i].
    find_flaw: for some of the packed bytes, what they hold that no matrix has, or None.
    unpack_code: the module of `ternops.encodings.unpack` that has the kernel code.
    quantize: float (rows, columns) -> int8 values of that shape and their scale; quantize_groups:
    the same with a scale a group of columns, (rows, groups).
    unpacks_slowly: on tiers whose "auto" does not choose it. color, marker: in plots (Matplotlib).
    """

    name: str
    find_flaw: Callable[[Array], str | None]
    unpack_code: str
    color: str
    marker: str
    values: tuple[int, ...] = (-1, 0, 1)
    unpacks_slowly: bool = False
    quantize: Callable[[npt.ArrayLike], tuple[npt.NDArray[np.int8], np.float32]] = absmean
    quantize_groups: Callable[
        [npt.ArrayLike, int], tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]
    ] = absmean_groups

    @property
    def step(self) -> int:
        """From one value to the next: values[i] is values[0] + i * step."""
        return self.values[1] - self.values[0]

    @property
    def kernel_code(self) -> Any:
        """That module, imported when kernels are made: it needs Numba."""
        return import_module(f"ternops.encodings.unpack.{self.unpack_code}")

    @property
    @abstractmethod
    def bits(self) -> float:
        """Bits of a weight, padding aside."""

    @abstractmethod
    def nbytes(self, rows: int, columns: int) -> int:
        """Bytes of the packed rows, without slack."""

    @abstractmethod
    def pack(self, values: npt.NDArray[np.int8]) -> npt.NDArray[np.uint8]:
        """int8 (rows, columns) of `values` -> uint8 (nbytes + SLACK,)."""

    @abstractmethod
    def unpack(
        self,
        packed: npt.NDArray[np.uint8],
        rows: int,
        columns: int,
        first: int = 0,
        last: int | None = None,
    ) -> npt.NDArray[np.int8]:
        """The inverse of `pack`: the rows first..last of `rows`, int8 (last - first, columns)."""

    def pieces(self, packed: npt.NDArray[np.uint8], rows: int, columns: int) -> Iterator[Array]:
        """Every byte, about 1 MB at a time, as `find_flaw` takes them."""
        for start, stop in spans(0, self.nbytes(rows, columns), PIECE):
            yield packed[start:stop]

    def check(self, packed: npt.NDArray[np.uint8], rows: int, columns: int) -> None:
        """Raise ValueError if the bytes are not those of a packed matrix."""
        for piece in self.pieces(packed, rows, columns):
            if flaw := self.find_flaw(piece):
                raise ValueError(f"packed: holds {flaw} (not {self.name}?)")

    def check_values(self, name: str, array: npt.NDArray[np.int8]) -> None:
        """Raise ValueError, naming the argument, if a weight is not one of `values`."""
        low, high = self.values[0], self.values[-1]
        if not array.size or (self.step == 1 and low <= array.min() and array.max() <= high):
            return
        for start, stop in spans(0, len(array), max(1, PIECE // array.shape[1])):
            part = array[start:stop]
            bad = np.logical_and.reduce([part != value for value in self.values])
            if not bad.any():
                continue
            i, j = np.argwhere(bad)[0]
            *most, last = map(str, self.values)
            raise ValueError(
                f"{name}: {name}[{start + i}, {j}] is {part[i, j]}, "
                f"expected {', '.join(most)} or {last}"
            )
