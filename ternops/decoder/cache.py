"""The keys and values of one sequence, for all layers with attention, and the states of others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ternops.decoder.attention import CACHES
from ternops.decoder.config import Config
from ternops.decoder.states import States, layer_bytes
from ternops.kernels.attention import POSITIONS
from ternops.memory import HoldsAddresses, mapped_zeros
from ternops.ranks.split import Split

if TYPE_CHECKING:
    from ternops.decoder.whole_pages import WholePages

#: A page: keys and values of POSITIONS positions, uint8.
PageArray = npt.NDArray[np.uint8]


class Cache(HoldsAddresses):
    """Room for the context of a model, or another number of positions, in pages of POSITIONS, each
    with all layers' keys and values in one of CACHES; `reserve` makes them as they are needed.

    new_page: makes the one of a number (default: zeros). reuses_layers: whether all layers have the
    same memory, for passes that hold whole sequences. split: what this process has of a model
    (default: all); whole: makes whole pages of what all processes have, and parts of them.
    positions: how many there can be, in whole pages. layer_step: bytes of a page from a layer to
    the next. states: those of delta nets, None without any: of one sequence alone.
    """

    def __init__(
        self, config: Config, kind: str, positions: int | None = None,
        new_page: Callable[[int], PageArray] | None = None, reuses_layers: bool = False,
        split: Split | None = None, whole: WholePages | None = None,
    ) -> None:  # fmt: skip
        one = layer_bytes_of_page(config, kind, split)
        self._size = size = one if reuses_layers else page_bytes(config, kind, split)
        self.layer_step = 0 if reuses_layers else one
        self.positions = padded(config.context if positions is None else positions)
        self._new_page = new_page or (lambda number: mapped_zeros(size))
        self._pages: list[PageArray] = []
        self._whole = whole
        self._table = np.zeros(self.positions // POSITIONS, np.int64)
        self.states = States(config) if config.attention_layers < config.layers else None
        self._address = self._table.ctypes.data
        self._state = self.states.address if self.states else 0

    def reserve(self, positions: int) -> None:
        """Have pages for the first so many positions. MemoryError where the system has none."""
        while len(self._pages) * POSITIONS < positions:
            page = self._new_page(len(self._pages))
            self._table[len(self._pages)] = page.ctypes.data
            self._pages.append(page)

    def content(self, positions: int) -> dict[str, npt.NDArray[np.uint8]]:
        """A copy of the pages of the first positions, one after another, and of states, as flat
        bytes: the same for any number of positions that there may be."""
        pages = np.empty((pages_of(positions), self._size), np.uint8)
        for row, page in zip(pages, self._pages, strict=False):
            row[:] = page
        if self._whole is not None:
            pages = self._whole.gather(pages, self._table[: len(pages)].tolist())
        found = {"pages": pages.reshape(-1)}
        if self.states:
            found["states"] = self.states.content()
        return found

    def check_content(self, positions: int, content: Mapping[str, npt.NDArray[np.uint8]]) -> None:
        """Raises ValueError for what `content` does not give for so many positions."""
        size = self._size if self._whole is None else self._whole.nbytes
        sizes = {"pages": pages_of(positions) * size}
        if self.states:
            sizes["states"] = self.states.nbytes
        found = {name: each.nbytes for name, each in content.items()}
        if found != sizes:
            raise ValueError(f"cache: tensors of {found} bytes, expected {sizes}")

    def restore(self, positions: int, content: Mapping[str, npt.NDArray[np.uint8]]) -> None:
        """Hold what `content` gave, which has been checked."""
        self.reserve(positions)
        pages, count = content["pages"], pages_of(positions)
        pages = pages.reshape(count, len(pages) // max(1, count))
        if self._whole is not None:
            pages = self._whole.scatter(pages, self._table[: len(pages)].tolist())
        for row, page in zip(pages, self._pages, strict=False):
            page[:] = row
        if self.states:
            self.states.restore(positions, content["states"])

    def addresses(self, start: int = 0) -> tuple[int, int]:
        """Of the table of pages and of states, as TOKEN has them, for a sequence that begins at a
        position, a multiple of POSITIONS."""
        if start % POSITIONS:
            raise ValueError(f"start={start}: expected a multiple of {POSITIONS}")
        return self._address + start // POSITIONS * 8, self._state


def page_bytes(config: Config, kind: str, split: Split | None = None) -> int:
    """Of POSITIONS positions' keys and values, of all layers with attention; split: of the
    layers and heads that a process has (default: all)."""
    layers = config.attention_layers if split is None or split.is_whole else split.layers.size
    return layers * layer_bytes_of_page(config, kind, split)


def layer_bytes_of_page(config: Config, kind: str, split: Split | None = None) -> int:
    """The same of one layer."""
    heads = split.keys.size if split else config.kv_heads
    return heads * CACHES[kind].elements.head_bytes(config.head_dim)


def padded_context(config: Config) -> int:
    """The context, in whole pages."""
    return padded(config.context)


def padded(positions: int) -> int:
    """Positions, rounded up to whole pages."""
    return pages_of(positions) * POSITIONS


def pages_of(positions: int) -> int:
    """That so many positions take."""
    return -(-positions // POSITIONS)


def kv_cache_bytes(config: Config, kind: str, positions: int) -> int:
    """Bytes of keys and values that a token reads which attends to `positions` positions, and of
    the states of delta nets."""
    elements = CACHES[kind].elements
    steps = 4 if elements.has_steps else 0
    seen = config.kv_heads * config.seen(positions)
    states = sum(config.delta_layers) * layer_bytes(config) if config.delta_layers else 0
    each = elements.key_bytes(config.head_dim) + steps
    return 2 * seen * each + states
