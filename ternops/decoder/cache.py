"""The keys and values of one sequence, for all layers with attention, and the states of others."""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ternops.decoder.attention import CACHES
from ternops.decoder.config import Config
from ternops.decoder.states import States, layer_bytes
from ternops.kernels.attention import BLOCK, CHUNK, POSITIONS
from ternops.memory import HoldsAddresses, aligned_zeros

# Each head's keys and values are a place of their own that is written from its beginning: in huge
# pages the first token of a cache of gigabytes would take most of it.
_MAX_IN_HUGE_PAGES = 1 << 29
# Bytes behind keys and values that a kernel may load with the last of them.
_READ_BEYOND = 64


class Cache(HoldsAddresses):
    """Room for the context of a model, or another number of positions, in one of CACHES;
    pages are taken when they are written.

    positions: how many there are, rounded up to whole turns of the attention kernel.
    addresses: of keys, values, their steps where they have any, and states, as TOKEN has them.
    states: those of delta nets, None without any: of one sequence alone.
    """

    def __init__(self, config: Config, kind: str, positions: int | None = None) -> None:
        elements = CACHES[kind].elements
        self.positions = padded_context(config) if positions is None else padded(positions)
        heads, context = config.attention_layers * config.kv_heads, self.positions
        key = elements.key_bytes(config.head_dim)
        keys = heads * context * key
        values = heads * context * -(-config.head_dim // CHUNK) * elements.chunk_bytes
        steps = heads * context if elements.has_steps else 0
        is_large = keys + values > _MAX_IN_HUGE_PAGES
        zeros = _zeros_in_small_pages if is_large else aligned_zeros
        self._arrays = [
            zeros(keys + _READ_BEYOND, np.uint8), zeros(values + _READ_BEYOND, np.uint8),
            aligned_zeros(steps, np.float32), aligned_zeros(steps, np.float32),
        ]  # fmt: skip
        self.states = States(config) if config.attention_layers < config.layers else None
        state = self.states.address if self.states else 0
        self.addresses = (*(array.ctypes.data for array in self._arrays), state)
        #: Of keys, values and their steps: heads, or chunks of their values, and bytes of a BLOCK.
        chunks = -(-config.head_dim // CHUNK)
        self._shapes = {
            "keys": (heads, key * BLOCK),
            "values": (heads * chunks, elements.chunk_bytes * BLOCK),
            **(
                {name: (heads, 4 * BLOCK) for name in ("key_steps", "value_steps")} if steps else {}
            ),
        }
        # From one position to the next, where a multiple of BLOCK of them is left out.
        step = 4 if steps else 0
        self._strides = (key, elements.chunk_bytes, step, step, 0)

    def content(self, positions: int) -> dict[str, npt.NDArray[np.uint8]]:
        """A copy of what it holds of the first positions, and of states, as flat bytes: the same
        for any number of positions that there may be."""
        blocks = -(-positions // BLOCK)
        found = {name: rows[:, :blocks].reshape(-1) for name, rows in self._rows().items()}
        if self.states:
            found["states"] = self.states.content()
        return found

    def check_content(self, positions: int, content: Mapping[str, npt.NDArray[np.uint8]]) -> None:
        """Raises ValueError for what `content` does not give for so many positions."""
        sizes = {name: heads * size * -(-positions // BLOCK)
                 for name, (heads, size) in self._shapes.items()}  # fmt: skip
        if self.states:
            sizes["states"] = self.states.nbytes
        found = {name: each.nbytes for name, each in content.items()}
        if found != sizes:
            raise ValueError(f"cache: tensors of {found} bytes, expected {sizes}")

    def restore(self, positions: int, content: Mapping[str, npt.NDArray[np.uint8]]) -> None:
        """Hold what `content` gave, which has been checked."""
        blocks = -(-positions // BLOCK)
        for name, rows in self._rows().items():
            rows[:, :blocks] = content[name].reshape(len(rows), blocks, -1)
        if self.states:
            self.states.restore(positions, content["states"])

    def _rows(self) -> dict[str, npt.NDArray[np.uint8]]:
        """The arrays as (heads or chunks of them, BLOCKs, bytes), which are views."""
        blocks = self.positions // BLOCK
        return {
            name: array.view(np.uint8)[: heads * blocks * size].reshape(heads, blocks, size)
            for array, (name, (heads, size)) in zip(
                self._arrays, self._shapes.items(), strict=False
            )
        }

    def addresses_from(self, position: int) -> tuple[int, ...]:
        """The addresses for a sequence that begins at a position, a multiple of BLOCK."""
        if position % BLOCK:
            raise ValueError(f"position={position}: expected a multiple of {BLOCK}")
        pairs = zip(self.addresses, self._strides, strict=True)
        return tuple(address + position * stride for address, stride in pairs)


def _zeros_in_small_pages(size: int, element: type[np.uint8]) -> npt.NDArray[Any]:
    """As `aligned_zeros`, where the system has a way to ask for that."""
    if not hasattr(mmap, "MADV_NOHUGEPAGE"):
        return aligned_zeros(size, element)
    try:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        memory = mmap.mmap(-1, size, flags=flags)
    except OSError as error:
        raise MemoryError(f"cache: {size} bytes, {error.strerror}") from None
    with contextlib.suppress(OSError):  # of a kernel that has small pages alone
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(memory, element)


def padded_context(config: Config) -> int:
    """The context, rounded up to whole turns of the attention kernel."""
    return padded(config.context)


def padded(positions: int) -> int:
    """Positions, rounded up to whole turns of the attention kernel."""
    return -(-positions // POSITIONS) * POSITIONS


def kv_cache_bytes(config: Config, kind: str, positions: int) -> int:
    """Bytes of keys and values that a token reads which attends to `positions` positions, and of
    the states of delta nets."""
    elements = CACHES[kind].elements
    steps = 4 if elements.has_steps else 0
    seen = config.kv_heads * config.seen(positions)
    states = sum(config.delta_layers) * layer_bytes(config) if config.delta_layers else 0
    each = elements.key_bytes(config.head_dim) + steps
    return 2 * seen * each + states
