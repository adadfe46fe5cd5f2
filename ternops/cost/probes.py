"""What the machine can do: the fastest of several loops that do nothing but read memory.

Layout: one buffer, shared out in contiguous parts. Trick: as many independent accumulators and
streams as hide the latency; with and without prefetch, because neither wins everywhere.
Bound: this is the bound.
"""

from __future__ import annotations

import mmap
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ternops.isa import BYTES, u8
from ternops.memory import CACHE_LINE, aligned_empty
from ternops.simd import (
    TeamJob,
    full,
    inlined,
    load,
    pointer,
    prefetch,
    record_at,
    record_type,
    registers,
    store,
)
from ternops.team import MAX_THREADS, TEAM, share

#: No cache is larger, so a larger buffer would only read slower for want of address translation.
MAX_PROBED = 1 << 30

_NAMES = ("source", "size", "ahead", "sink", "times")
RECORD = np.dtype([(name, np.intp) for name in _NAMES])
_Record = record_type(RECORD)
_UNROLLED = 256  # bytes of a stream in one step: four cache lines
_STREAMS = (1, 2, 4, 6, 8)
#: Sums of a step, over all streams: few enough for the registers of any CPU.
_SUMS = 8


def _make_read(streams):
    """A job that reads a thread's part as a number of neighbouring streams at once."""

    @inlined
    def read(record, team, thread, threads):
        p = record_at(_Record, record)
        first, last = share(p.size, _UNROLLED, thread, threads)
        source, sink = pointer(p.source) + first, pointer(p.sink) + thread * CACHE_LINE
        size = last - first
        part = size // (streams * _UNROLLED) * _UNROLLED
        sums = registers(u8, _SUMS)
        for _ in range(p.times):
            for i in range(_SUMS):
                sums[i] = full(u8, 0)
            for offset in range(0, part, _UNROLLED):
                for stream in range(streams):
                    at = source + (stream * part + offset)
                    for line in range(0, _UNROLLED, 64):
                        if p.ahead:
                            prefetch(at + (line + p.ahead))
                        for within in range(0, 64, BYTES):
                            i = (stream * 4 + line // 64) % _SUMS
                            sums[i] = sums[i] + load(u8, at + (line + within))
            for offset in range(streams * part, size, BYTES):
                sums[0] = sums[0] + load(u8, source + offset)
        for i in range(1, _SUMS):
            sums[0] = sums[0] + sums[i]
        store(sink, sums[0])

    return read


#: The job of each number of streams.
READS = {streams: TeamJob(_make_read(streams), f"read_{streams}") for streams in _STREAMS}


class Probe(NamedTuple):
    """One way to read: neighbouring streams, bytes of prefetch, and the kind of pages."""

    streams: int
    ahead: int
    huge_pages: bool

    def __str__(self) -> str:
        pages = "huge pages" if self.huge_pages else "small pages"
        return f"{self.streams} stream(s), prefetch {self.ahead} B, {pages}"


#: Each has been the fastest somewhere: one or two streams on AMD's Zen 5, four to eight on an Intel
#: server, where four reach their best with little prefetch, up to 10% more than with none or with
#: much.
PROBES = (
    *(Probe(streams, ahead, True) for streams, ahead in (
        (1, 0), (1, 4096), (2, 4096), (4, 0), (4, 512), (4, 1024), (4, 2048), (6, 4096), (8, 2048),
        (8, 4096),
    )),
    *(Probe(streams, ahead, False) for streams, ahead in ((1, 0), (4, 0), (4, 512), (8, 2048))),
)  # fmt: skip

#: Those of them that were the fastest in most places, for where there is little time.
FEW = (
    Probe(1, 4096, True), Probe(2, 4096, True), Probe(4, 512, True), Probe(4, 1024, True),
    Probe(6, 4096, True), Probe(8, 2048, True),
)  # fmt: skip


class Reader:
    """Buffers of one size, and every probe over them."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._buffers: dict[bool, npt.NDArray[np.uint8]] = {}
        self._sink = aligned_empty(MAX_THREADS * CACHE_LINE, np.uint8)

    def buffer(self, huge_pages: bool) -> npt.NDArray[np.uint8]:
        """What is read, in pages of that kind: ones."""
        if huge_pages not in self._buffers:
            make = aligned_empty if huge_pages else _small_pages
            self._buffers[huge_pages] = made = make(self.size, np.uint8)
            made[:] = 1
        return self._buffers[huge_pages]

    def run(
        self, probe: Probe, threads: int, times: int = 1, first: int = 0, last: int | None = None
    ) -> None:
        """Read the whole buffer, or its bytes [first, last), once or more often.

        Each thread always reads the same part.
        """
        record = np.zeros((), RECORD)
        source = self.buffer(probe.huge_pages).ctypes.data + first
        size = (self.size if last is None else last) - first
        record[()] = (source, size, probe.ahead, self._sink.ctypes.data, times)
        TEAM.run(READS[probe.streams], record, threads)


def _small_pages(size: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Memory that the system was asked not to back with huge pages, where it takes advice."""
    memory = mmap.mmap(-1, size)
    buffer = np.frombuffer(memory, dtype)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return buffer
