"""Memory for packed weights: aligned to cache lines."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

CACHE_LINE = 64


def aligned_empty(shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """`numpy.empty` at a multiple of 64 bytes (NumPy asks for huge pages from 4 MB on)."""
    return _aligned(np.empty, shape, dtype)


def aligned_zeros(shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """`numpy.zeros` at a multiple of 64 bytes; pages that are never written cost nothing."""
    return _aligned(np.zeros, shape, dtype)


def _aligned(make: Any, shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    kind = np.dtype(dtype)
    size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
    memory: npt.NDArray[Any] = make(size + CACHE_LINE, np.uint8)
    start = -memory.ctypes.data % CACHE_LINE
    return memory[start : start + size].view(kind).reshape(shape)


def aligned_copy(source: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A contiguous copy at a multiple of 64 bytes; the array itself where it is that already."""
    if source.flags.c_contiguous and source.ctypes.data % CACHE_LINE == 0:
        return source
    copy = aligned_empty(source.shape, source.dtype)
    copy[...] = source
    return copy
