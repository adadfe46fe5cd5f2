"""Memory that a product needs while it runs, kept for the next one, and addresses of arrays."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt

from ternops.kernels.operands import OPERANDS
from ternops.memory import HUGE, HoldsAddresses, aligned_empty

#: Of a scratch: 512 tokens of 6912 columns fit. New memory would be a page fault each 4 KB.
_KEPT_BYTES = 1 << 22


class Scratch(HoldsAddresses):
    """An OPERANDS record and room for prepared tokens. `record` is a buffer, the rest addresses."""

    __slots__ = ("_room", "address", "record", "room", "size")

    def __init__(self) -> None:
        memory = (ctypes.c_char * OPERANDS.itemsize)()
        self.record = memoryview(memory).cast("B")
        self.address = ctypes.addressof(memory)
        self._resize(1 << 14)

    def reserve(self, size: int) -> int:
        """The address of at least `size` bytes, at a multiple of 64; what they held is lost."""
        if size > self.size:
            # In huge pages, where it is worth them: 2% of a GEMM that reads prepared tokens again
            # and again.
            self._resize(max(size, HUGE) if size > HUGE // 4 else size)
        return self.room

    def _resize(self, size: int) -> None:
        self._room = aligned_empty(size, np.uint8)
        self.room = int(self._room.ctypes.data)
        self.size = size


# Taking from and adding to a list are atomic: products of several Python threads, or one inside
# a signal handler of another, each have a scratch of their own.
_free: list[Scratch] = []


def take_scratch() -> Scratch:
    """A scratch that nobody else uses until `give_back`."""
    try:
        return _free.pop()
    except IndexError:
        return Scratch()


def give_back(scratch: Scratch) -> None:
    """Keep a scratch for the next product, unless it is large."""
    if scratch.size <= _KEPT_BYTES:
        _free.append(scratch)


def address_of_array(array: npt.NDArray[Any]) -> int:
    """The address of a contiguous array's first element: as ``array.ctypes.data``, but faster."""
    try:
        memory: Any = array
        return ctypes.addressof(ctypes.c_char.from_buffer(memory))
    except (TypeError, ValueError, BufferError):  # read-only or empty
        return int(array.ctypes.data)
