"""Keys and values of a cache as arrays, and back: what other programs keep them in."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ternops.decoder.attention import CACHES
from ternops.decoder.cache import Cache, pages_of
from ternops.decoder.config import Config
from ternops.kernels.attention import BLOCK, CHUNK, POSITIONS

Array = npt.NDArray[Any]

#: The kinds of cache that hold floats, by their names in `ternops.decoder.attention.CACHES`.
DTYPES: dict[str, npt.DTypeLike] = {"fp16": np.float16, "fp32": np.float32}


def read_floats(cache: Cache, config: Config, kind: str, positions: int) -> tuple[Array, Array]:
    """Copies of the keys, which are rotated, and of the values of the first positions, each
    (layers, kv_heads, positions, head_dim), as they are held."""
    pages = cache.content(positions)["pages"].view(DTYPES[kind])
    keys, values = _by_position(pages, config, kind)
    heads = config.layers, config.kv_heads
    return (
        keys.reshape(*heads, -1, config.head_dim)[:, :, :positions],
        values.reshape(*heads, -1, _padded(config))[:, :, :positions, : config.head_dim],
    )


def write_floats(cache: Cache, config: Config, kind: str, keys: Array, values: Array) -> None:
    """Let a cache hold what `read_floats` gives, rounded to its kind, and nothing else; in
    fp16 what exceeds its range becomes its largest number, as in kernels."""
    positions = keys.shape[2]
    count, dtype = pages_of(positions), DTYPES[kind]
    heads = config.layers, config.kv_heads
    pages = np.zeros(count * heads[0] * heads[1] * _elements(config, kind), dtype)
    views = _by_position(pages, config, kind)
    widths = config.head_dim, _padded(config)
    most = float(np.finfo(np.float16).max) if kind == "fp16" else np.inf
    for view, source, width in zip(views, (keys, values), widths, strict=True):
        whole = np.zeros((*heads, count * POSITIONS, width), dtype)
        whole[:, :, :positions, : config.head_dim] = np.clip(source, -most, most)
        view[:] = whole.reshape(view.shape)
    cache.restore(positions, {"pages": pages.view(np.uint8)})


def _by_position(pages: Array, config: Config, kind: str) -> tuple[Array, Array]:
    """Views of pages that lie one after another: keys (layers, heads, pages, blocks, BLOCK,
    head_dim) and values (layers, heads, pages, POSITIONS, chunks, CHUNK)."""
    heads = config.layers, config.kv_heads
    elements = _elements(config, kind)
    shape = len(pages) // (heads[0] * heads[1] * elements), *heads
    apart = pages.reshape(*shape, elements)
    first = POSITIONS * config.head_dim
    keys = apart[..., :first].reshape(*shape, POSITIONS // BLOCK, config.head_dim, BLOCK)
    values = apart[..., first:].reshape(*shape, _padded(config) // CHUNK, POSITIONS, CHUNK)
    return keys.transpose(1, 2, 0, 3, 5, 4), values.transpose(1, 2, 0, 4, 3, 5)


def _elements(config: Config, kind: str) -> int:
    """Of the keys and values of one head in a page."""
    nbytes = CACHES[kind].elements.head_bytes(config.head_dim)
    return nbytes // np.dtype(DTYPES[kind]).itemsize


def _padded(config: Config) -> int:
    """Dimensions of a value as it is held."""
    return -(-config.head_dim // CHUNK) * CHUNK
