"""What an encoding is: a record of how a matrix of few values becomes bytes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from ternops.encodings.common import PIECE, Array, spans

#: A level is at most this, either way: so that the product of two with an int8 fits int16.
MAX_LEVEL = 127


@dataclass(frozen=True, kw_only=True)
class Encoding(ABC):
    """One way to pack a matrix. Kernels and benchmarks read from it all that they need to know.

    values: what a weight may be unless a matrix has levels of its own: the code i stands for
    values[i]. codes: how many levels a matrix may have, evenly spaced by 1 or 2, or, if it
    is_table, any that int8 has but -128; 0: `values` and no others.
    find_flaw: for some of the packed bytes, what they hold that no matrix of `values` has, or None.
    unpack_code: the module of `ternops.encodings.unpack` that has the kernel code.
    unpacks_slowly: on tiers whose "auto" does not choose it. color, marker: in plots (Matplotlib).
    """

    name: str
    find_flaw: Callable[[Array], str | None]
    unpack_code: str
    color: str
    marker: str
    values: tuple[int, ...] = (-1, 0, 1)
    codes: int = 0
    is_table: bool = False
    unpacks_slowly: bool = False

    @property
    def step(self) -> int:
        """From one value to the next: values[i] is values[0] + i * step."""
        return self.values[1] - self.values[0]

    @property
    def greatest(self) -> int:
        """The greatest code of `values`."""
        return len(self.values) - 1

    def check_levels(self, levels: Sequence[int]) -> tuple[int, ...]:
        """Levels that a matrix may have; raises TypeError and ValueError for others."""
        given = tuple(levels)
        for each in given:
            if isinstance(each, bool) or not isinstance(each, int | np.integer):
                raise TypeError(f"levels={levels!r}: {each!r} is no integer")
        found = tuple(map(int, given))
        if flaw := self._find_level(found):
            raise ValueError(f"levels={found}: {flaw}, of encoding {self.name!r}")
        return found

    def can_have(self, levels: tuple[int, ...]) -> bool:
        """Whether a matrix may have such levels."""
        return self._find_level(levels) is None

    def _find_level(self, levels: tuple[int, ...]) -> str | None:
        if levels == self.values:
            return None
        if not self.codes:
            return f"expected {self.values}"
        if not 2 <= len(levels) <= self.codes:
            return f"{len(levels)} of them, expected 2 to {self.codes}"
        if any(low >= high for low, high in pairwise(levels)):
            return "expected ascending integers"
        if levels[0] < -MAX_LEVEL or levels[-1] > MAX_LEVEL:
            return f"expected integers from -{MAX_LEVEL} to {MAX_LEVEL}"
        if self.is_table or are_even(levels):
            return None
        return "expected neighbours that are all 1 or all 2 apart"

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

    @abstractmethod
    def by_rows(self, packed: npt.NDArray[np.uint8], rows: int, columns: int) -> list[Array]:
        """The packed bytes row by row, as views: of so many rows (groups, rows of a group, items).

        Rows of two matrices with as many columns have the same items for the same weights.
        """

    def pieces(self, packed: npt.NDArray[np.uint8], rows: int, columns: int) -> Iterator[Array]:
        """Every byte, about 1 MB at a time, as `find_flaw` takes them."""
        for start, stop in spans(0, self.nbytes(rows, columns), PIECE):
            yield packed[start:stop]

    def check(self, packed: npt.NDArray[np.uint8], rows: int, columns: int) -> None:
        """Raise ValueError if the bytes are not those of a packed matrix of `values`."""
        for piece in self.pieces(packed, rows, columns):
            if flaw := self.find_flaw(piece):
                raise ValueError(f"packed: holds {flaw} (not {self.name}?)")


def check_values(name: str, array: npt.NDArray[np.int8], levels: Sequence[int]) -> None:
    """Raise ValueError, naming the argument, if a weight is not one of the levels."""
    low, high = levels[0], levels[-1]
    if not array.size:
        return
    if len(levels) == high - low + 1 and low <= array.min() and array.max() <= high:
        return
    known = np.zeros(256, np.bool_)
    known[np.array(levels, np.int8).view(np.uint8)] = True
    for start, stop in spans(0, len(array), max(1, PIECE // array.shape[1])):
        part = array[start:stop]
        good = known[part.view(np.uint8)]
        if good.all():
            continue
        i, j = np.argwhere(~good)[0]
        *most, last = map(str, levels)
        expected = f"{', '.join(most)} or {last}" if len(levels) <= 16 else f"{low} to {high}"
        raise ValueError(f"{name}: {name}[{start + i}, {j}] is {part[i, j]}, expected {expected}")


def are_even(levels: tuple[int, ...]) -> bool:
    """Whether neighbours are all 1 or all 2 apart: what a shift makes of codes."""
    step = levels[1] - levels[0]
    return step in (1, 2) and levels == tuple(range(levels[0], levels[-1] + 1, step))


def code_of(levels: Sequence[int]) -> npt.NDArray[np.uint8]:
    """uint8 (256,): for the byte of a level, its code; 0 for others."""
    codes = np.zeros(256, np.uint8)
    codes[np.array(levels, np.int8).view(np.uint8)] = np.arange(len(levels))
    return codes
