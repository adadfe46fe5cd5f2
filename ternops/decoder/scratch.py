"""The memory that each thread of a forward pass has for itself."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ternops.decoder.low_activations import COUNTS
from ternops.decoder.weight_types import TypeTable
from ternops.kernels.int8 import placed_bytes
from ternops.kernels.operands import OPERANDS
from ternops.kernels.plan import UNPACKED
from ternops.memory import CACHE_LINE, aligned_zeros

PADDING = 256  #: bytes that kernels may touch after a buffer


def padded_bytes(size: int) -> int:
    """Of a buffer in whole cache lines, with what kernels may touch after it."""
    return -(-size // CACHE_LINE) * CACHE_LINE + PADDING


# int64 counts of rows and of columns that were read, and of what is active.
_COUNTS = 8 * (2 + COUNTS)


class ThreadScratch:
    """Per-thread scratch memory, laid out contiguously, with areas that threads share after it.

    With one token every thread prepares it for itself; several tokens are prepared once for all.
    """

    def __init__(
        self, types: TypeTable, capacity: int, hidden: int, longest: int,
        head: tuple[int, int, int], areas: Mapping[str, int],
    ) -> None:  # fmt: skip
        head_scratch, head_placed, head_offsets = head
        self._call = types.calls[0]
        # Of all tokens' offsets, and of as many steps.
        self._offsets = max(4 * types.prepared * types.groups, head_offsets)
        self._sizes = areas
        self._alone = capacity == 1
        self._placed = types.prepared * types.placed_bytes
        # As for int8 rows, which have the longest padding and take the most memory a token.
        self._head_row = placed_bytes(UNPACKED["int8"].stride(hidden))
        self._head_placed = max(capacity * self._head_row, head_placed)
        self._scratch = max(head_scratch, types.scratch_bytes)
        self._floats = 4 * longest
        #: The record of the head's product of each thread; where its tokens are prepared, with
        #: their offsets and steps, and its scratch.
        self.heads: list[tuple[memoryview, tuple[int, int, int, int]]] = []

    def allocate(self, threads: int, queries: int, scores: int) -> ThreadScratch:
        size = 0

        def add(count: int) -> int:
            nonlocal size
            start = size
            size += padded_bytes(count)
            return start

        linear, self.head = add(OPERANDS.itemsize), add(OPERANDS.itemsize)
        self.columns, self.counts = add(OPERANDS.itemsize), add(_COUNTS)
        self.areas = {name: add(size) for name, size in self._sizes.items()}
        self.floats, self.queries = add(self._floats), add(4 * queries)
        self.scores, scratch = add(4 * scores), add(self._scratch)
        prepared = [add(2 * self._offsets), add(self._placed), add(self._head_placed)]
        if not self._alone:
            # Behind the areas of all threads.
            size = prepared[0]
        self.bytes = size
        shared = 0 if self._alone else prepared[2] + self._head_placed + PADDING - size
        self._memory = aligned_zeros(threads * size + shared, np.uint8)
        self.address = self._memory.ctypes.data
        for thread in range(threads):
            own = self.address + thread * size
            base = own if self._alone else self.address + (threads - 1) * size
            sums, placed, head_placed = (base + each for each in prepared)
            record = self._record(thread * size + linear)
            steps = sums + self._offsets
            self._call.write_apart(record, 0, 0, placed, sums, steps, own + scratch)
            if self._sizes:
                listed, codes, column_sums = (own + each for each in self.areas.values())
                columns = self._record(thread * size + self.columns)
                self._call.write_apart(columns, 0, 0, codes, sums, steps, column_sums, listed)
            places = head_placed, sums, steps, own + scratch
            self.heads.append((self._record(thread * size + self.head), places))
        return self

    def total_counts(self) -> npt.NDArray[np.int64]:
        """The sum of all threads' counts, int64: rows and columns, and those of COUNTS."""
        table = self._memory[: len(self.heads) * self.bytes].reshape(len(self.heads), -1)
        counts = table[:, self.counts : self.counts + _COUNTS].view(np.int64)
        total: npt.NDArray[np.int64] = counts.sum(axis=0)
        return total

    def _record(self, offset: int) -> memoryview:
        return self._memory[offset : offset + OPERANDS.itemsize].data
