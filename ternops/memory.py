"""Memory for packed weights: aligned to cache lines."""

from __future__ import annotations

import contextlib
import mmap
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

CACHE_LINE = 64
#: NumPy asks for huge pages for arrays of at least this many bytes.
HUGE = 1 << 22
_HUGE_PAGE = 1 << 21
_SLAB = 1 << 26
# Where it is less, the allocator takes it from what it has.
_MAPPED = 1 << 17


def aligned_empty(shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """`numpy.empty` at a multiple of 64 bytes (NumPy asks for huge pages from 4 MB on)."""
    return _aligned(np.empty, shape, dtype)


def aligned_zeros(shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """`numpy.zeros` at a multiple of 64 bytes; pages that are never written cost nothing."""
    return _aligned(np.zeros, shape, dtype)


def _aligned(make: Any, shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    kind = np.dtype(dtype)
    size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
    # At the boundary of a huge page, or the first 2 MB would have small ones: 3% of a GEMV's time
    # where a matrix has 16 MB.
    boundary = _HUGE_PAGE if size >= HUGE else CACHE_LINE
    memory: npt.NDArray[Any] = make(size + boundary, np.uint8)
    start = -memory.ctypes.data % boundary
    return memory[start : start + size].view(kind).reshape(shape)


def mapped_zeros(size: int) -> npt.NDArray[np.uint8]:
    """Zeroed bytes at a multiple of 64, of which the system gets all back with the array, while an
    allocator would keep some; in huge pages, where they fill any. Raises MemoryError."""
    if size < _MAPPED or not hasattr(mmap, "MAP_ANONYMOUS"):
        return aligned_zeros(size, np.uint8)
    boundary = _HUGE_PAGE if size >= _HUGE_PAGE else 0
    try:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        memory = mmap.mmap(-1, size + boundary, flags=flags)
    except OSError as error:
        raise MemoryError(f"{size} bytes: {error.strerror}") from None
    if boundary and hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # of a system that has small pages alone
            memory.madvise(mmap.MADV_HUGEPAGE)
    whole = np.frombuffer(memory, np.uint8)
    start = -whole.ctypes.data % boundary if boundary else 0
    return whole[start : start + size]


class HoldsAddresses:
    """Of objects whose records tell compiled code where their memory lies: a copy's records would
    tell of the original's, which another process has not and which may be gone."""

    __slots__ = ()

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} cannot be copied or pickled; make another one")


class Arena:
    """Room for many arrays that are used together and let go of together.

    They lie in huge pages however small they are, and side by side, so that no part of a matrix has
    small ones: a model whose matrices have pages of 4 KB spends 2 to 10% of a token on finding
    them. The memory is free again once no array of it is left.
    """

    def __init__(self) -> None:
        self._room = np.empty(0, np.uint8)

    def empty(self, shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """As `aligned_empty`."""
        kind = np.dtype(dtype)
        size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
        if size >= _SLAB // 2:
            return aligned_empty(shape, dtype)  # has huge pages of its own
        taken = -(-size // CACHE_LINE) * CACHE_LINE
        if taken > len(self._room):
            memory = np.empty(_SLAB + _HUGE_PAGE, np.uint8)
            start = -memory.ctypes.data % _HUGE_PAGE
            self._room = memory[start : start + _SLAB]
        array, self._room = self._room[:size], self._room[taken:]
        return array.view(kind).reshape(shape)

    def copy(self, source: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """A contiguous copy."""
        array = self.empty(source.shape, source.dtype)
        array[...] = source
        return array


def aligned_copy(source: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A contiguous copy at a multiple of 64 bytes; the array itself where it is that already."""
    if source.flags.c_contiguous and source.ctypes.data % CACHE_LINE == 0:
        return source
    copy = aligned_empty(source.shape, source.dtype)
    copy[...] = source
    return copy
