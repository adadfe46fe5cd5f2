"""The keys and values of one sequence, for all layers."""

from __future__ import annotations

import numpy as np

from ternops.decoder.attention import CACHES
from ternops.decoder.config import Config
from ternops.kernels.attention import CHUNK, POSITIONS
from ternops.memory import aligned_zeros


class Cache:
    """Room for the context of a model, in fp16 or int8; pages are taken when they are written.

    addresses: of keys, values, and the steps of int8 keys and values, as TOKEN has them.
    """

    def __init__(self, config: Config, kind: str) -> None:
        element = np.dtype(CACHES[kind][0])
        heads, context = config.layers * config.kv_heads, padded_context(config)
        keys = heads * context * config.head_dim
        values = heads * context * -(-config.head_dim // CHUNK) * CHUNK
        steps = heads * context if kind == "int8" else 0
        self._arrays = [
            aligned_zeros(keys, element), aligned_zeros(values, element),
            aligned_zeros(steps, np.float32), aligned_zeros(steps, np.float32),
        ]  # fmt: skip
        self.addresses = tuple(array.ctypes.data for array in self._arrays)


def padded_context(config: Config) -> int:
    """Positions that a cache has room for: whole turns of the attention kernel."""
    return -(-config.context // POSITIONS) * POSITIONS


def cache_bytes(config: Config, kind: str, positions: int) -> int:
    """Bytes of keys and values that a token reads which sees so many positions."""
    element = np.dtype(CACHES[kind][0]).itemsize
    steps = 4 if kind == "int8" else 0
    heads = config.layers * config.kv_heads
    return 2 * heads * positions * (config.head_dim * element + steps)
