"""What a core can compute: the products a second of instructions that have their operands at hand.

Layout: a few kilobytes in the first-level cache. Trick: as many independent sums as hide the
latency. Bound: this is the bound. Beside that, the cost of a barrier, and jobs that run again and
again without Python in between.
"""

# Jobs are typed by Numba when they are compiled; annotations there would say less.
# mypy: allow-untyped-defs, allow-incomplete-defs
from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ternops.isa import (
    BYTES,
    HAS_TILES,
    PARTIAL,
    close_sums,
    dot,
    i8,
    i32,
    open_sums,
    tile_dot,
    tile_load,
    tile_store,
    tile_zero,
    u8,
)
from ternops.kernels.amx import SPARE_BYTES, close_tiles, open_tiles
from ternops.kernels.operands import Operands
from ternops.memory import aligned_empty
from ternops.simd import (
    TeamJob,
    call_rows_kernel,
    call_team_job,
    f32,
    fma,
    full,
    inlined,
    load,
    pointer,
    record_at,
    record_type,
    registers,
    store,
)
from ternops.team import MAX_THREADS, TEAM, barrier, share

_PEAK = np.dtype([(name, np.intp) for name in ("source", "ones", "rounds", "scratch")])
_Peak = record_type(_PEAK)
_REPEAT = np.dtype([(name, np.intp) for name in ("job", "record", "times")])
_Repeat = record_type(_REPEAT)

#: Dots of one sum between `open_sums` and `close_sums`: as many as in the GEMM, and the operands of
#: twelve sums still fit the first-level cache.
_STEPS = 2048 // BYTES
_SIDE, _LINE = 16, 64  # rows and bytes of a tile
_TILE_BYTES = _SIDE * _LINE
_DOTS_A_ROUND = 16  # of tiles
_LANES = 16  # floats of a vector, which are one register or two
_ROWS, _TOKENS = (4, 3) if BYTES == 64 else (2, 2)  # sums of floats that the registers hold
_FLOAT_STEPS = 32


def _make_dots(codes, tokens):
    """A function that adds codes x tokens dots up in as many sums, step after step."""
    count = codes * tokens
    each = codes + tokens

    @inlined
    def dots(source, rounds, sink):
        sums = registers(i32, count)
        partial = registers(PARTIAL, count)
        for i in range(count):
            sums[i] = full(i32, 0)
        for number in range(rounds):
            into = open_sums(sums, partial, count)
            # From another place each time, or LLVM would keep products instead of computing them.
            start = source + number % 2 * BYTES
            for step in range(_STEPS):
                at = start + step * each * BYTES
                for t in range(tokens):
                    activations = load(i8, at + (codes + t) * BYTES)
                    for c in range(codes):
                        i = t * codes + c
                        into[i] = dot(into[i], load(u8, at + c * BYTES), activations)
            close_sums(sums, partial, count)
        for i in range(1, count):
            sums[0] = sums[0] + sums[i]
        store(sink, sums[0])

    return dots


def _make_fmas(rows, tokens):
    """A function like that of `_make_dots`, for float32."""
    count = rows * tokens

    @inlined
    def fmas(source, rounds, sink):
        sums, xs = registers(f32, count), registers(f32, tokens)
        for i in range(count):
            sums[i] = full(f32, 0.0)
        for number in range(rounds):
            start = source + number % 2 * _LINE
            for step in range(_FLOAT_STEPS):
                at = start + step * (rows + tokens) * _LINE
                for t in range(tokens):
                    xs[t] = load(f32, at + (rows + t) * _LINE)
                for r in range(rows):
                    weights = load(f32, at + r * _LINE)
                    for t in range(tokens):
                        sums[r * tokens + t] = fma(weights, xs[t], sums[r * tokens + t])
        for i in range(1, count):
            sums[0] = sums[0] + sums[i]
        store(sink, sums[0])

    return fmas


_fmas = _make_fmas(_ROWS, _TOKENS)
_dots_12 = _make_dots(1, 12)
_dots_4x3 = _make_dots(4, 3)


@TeamJob
def dots_12(record, team, thread, threads):
    """One line of codes times twelve of activations: fits 16 registers."""
    p = record_at(_Peak, record)
    _dots_12(pointer(p.source), p.rounds, pointer(p.scratch) + thread * SPARE_BYTES)


@TeamJob
def dots_4x3(record, team, thread, threads):
    """Four lines of codes times three of activations: fewer loads."""
    p = record_at(_Peak, record)
    _dots_4x3(pointer(p.source), p.rounds, pointer(p.scratch) + thread * SPARE_BYTES)


@TeamJob
def multiply_adds(record, team, thread, threads):
    """Some lines of float32 weights times some of activations, as the fp16 kernels do it."""
    p = record_at(_Peak, record)
    _fmas(pointer(p.ones), p.rounds, pointer(p.scratch) + thread * SPARE_BYTES)


@TeamJob
def tiles(record, team, thread, threads):
    """Two tiles of codes times two of activations, into four tiles of sums."""
    p = record_at(_Peak, record)
    scratch, source = pointer(p.scratch) + thread * SPARE_BYTES, pointer(p.source)
    open_tiles(scratch)
    tile_zero(0)
    tile_zero(1)
    tile_zero(2)
    tile_zero(3)
    tile_load(4, source, _LINE)
    tile_load(5, source + _TILE_BYTES, _LINE)
    tile_load(6, source + 2 * _TILE_BYTES, _LINE)
    tile_load(7, source + 3 * _TILE_BYTES, _LINE)
    for _ in range(p.rounds):
        for _ in range(_DOTS_A_ROUND // 4):
            tile_dot(0, 4, 6)
            tile_dot(1, 4, 7)
            tile_dot(2, 5, 6)
            tile_dot(3, 5, 7)
    tile_store(0, scratch, _LINE)
    tile_store(1, scratch + _TILE_BYTES, _LINE)
    tile_store(2, scratch + 2 * _TILE_BYTES, _LINE)
    tile_store(3, scratch + 3 * _TILE_BYTES, _LINE)
    close_tiles()


@TeamJob
def barriers(record, team, thread, threads):
    """Nothing but meetings of all threads."""
    p = record_at(_Peak, record)
    for _ in range(p.rounds):
        barrier(team, threads)


@TeamJob
def repeat(record, team, thread, threads):
    """Another job, again and again."""
    p = record_at(_Repeat, record)
    for _ in range(p.times):
        call_team_job(p.job, p.record, team, thread, threads)


@TeamJob
def multiply_alone(record, team, thread, threads):
    """A product of OPERANDS whose tokens are prepared already."""
    p = record_at(Operands, record)
    first, last = share(p.rows, p.row_step, thread, threads)
    call_rows_kernel(p.multiply, record, first, last, thread)


class Peak(NamedTuple):
    """A job. macs: multiply-accumulates in a round of each thread; 0: barriers."""

    what: str
    how: str
    job: TeamJob
    macs: int


_DOTS = 12 * _STEPS * BYTES
_FLOATS = _ROWS * _TOKENS * _FLOAT_STEPS * _LANES
#: The instructions that kernels of this tier add products up with; the fastest of a name counts.
#: "multiply-add" is of float32, which fp16 weights are turned into.
PEAKS = (
    Peak("dot", "1 line of codes x 12 of activations", dots_12, _DOTS),
    Peak("dot", "4 lines of codes x 3 of activations", dots_4x3, _DOTS),
    Peak("multiply-add", f"{_ROWS} lines of weights x {_TOKENS}", multiply_adds, _FLOATS),
    *([Peak("tile", "2 x 2 tiles", tiles, _DOTS_A_ROUND * _SIDE * _SIDE * _LINE)] * HAS_TILES),
)
BARRIER = Peak("barrier", "all threads", barriers, 0)


class Unit:
    """The data that peaks are measured on."""

    def __init__(self) -> None:
        # Codes of trits, which as activations are small: no sum overflows what it may.
        self._source = aligned_empty((_STEPS * 13 + 1) * BYTES, np.uint8)
        self._source[:] = np.random.default_rng(0).integers(0, 3, self._source.size)
        count = (_FLOAT_STEPS * (_ROWS + _TOKENS) + 1) * _LANES
        self._ones = aligned_empty(count, np.float32)
        self._ones[:] = 1
        self._scratch = aligned_empty(MAX_THREADS * SPARE_BYTES, np.uint8)

    def run(self, peak: Peak, threads: int, rounds: int) -> None:
        """So many rounds of each thread."""
        record = np.zeros((), _PEAK)
        record["source"], record["ones"] = self._source.ctypes.data, self._ones.ctypes.data
        record["rounds"], record["scratch"] = rounds, self._scratch.ctypes.data
        TEAM.run(peak.job, record, threads)


def run_again(job: TeamJob, record: int, threads: int, times: int) -> None:
    """Run the job on the record at an address `times` times, as one job."""
    TEAM.run(repeat, np.array((job.address, record, times), _REPEAT), threads)
