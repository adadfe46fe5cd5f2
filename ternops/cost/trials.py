"""Jobs that calibration times: a kernel again and again, with nothing else between two clocks.

Layout: records of addresses, as products have them. Trick: many matrices in a chain, so that each
is read from memory as in a decoder, with the barrier that follows there. Bound: the kernels'.
"""

# Jobs are typed by Numba when they are compiled; annotations there would say less.
from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ternops.absmean import BITNET_ABSMAX
from ternops.cost.workload import linear_bytes
from ternops.decoder.weights import HalfMatrix, operand_of, random_half, random_ternary
from ternops.kernels.attention import FP16, POSITIONS, attend_fp16
from ternops.kernels.call import Call, Operand
from ternops.kernels.elementwise import rms_norm
from ternops.kernels.operands import OPERANDS, Operands
from ternops.kernels.plan import Plan, make_plan
from ternops.matrix import TernaryMatrix
from ternops.memory import CACHE_LINE, Arena, aligned_empty, aligned_zeros
from ternops.simd import TeamJob, call_rows_kernel, pointer, record_at, record_type
from ternops.team import TEAM, barrier, share

_CHAIN = np.dtype([(name, np.intp) for name in ("records", "count", "times")])
_Chain = record_type(_CHAIN)
_VECTORS = np.dtype([(name, np.intp) for name in ("x", "weights", "out", "count", "times")])
_Vectors = record_type(_VECTORS)
_CACHED = np.dtype([
    (name, np.intp)
    for name in ("queries", "pages", "scores", "out", "head_dim", "positions", "times")
])  # fmt: skip
_Cached = record_type(_CACHED)
_RECORD_BYTES = OPERANDS.itemsize
_PADDING = 256  # bytes that kernels may touch behind a buffer


@TeamJob
def multiply_chain(record, team, thread, threads):
    """The products of all records, rows shared out, with a barrier behind each."""
    p = record_at(_Chain, record)
    for _ in range(p.times):
        for i in range(p.count):
            at = p.records + i * _RECORD_BYTES
            operands = record_at(Operands, at)
            first, last = share(operands.rows, operands.row_step, thread, threads)
            call_rows_kernel(operands.multiply, at, first, last, thread)
            barrier(team, threads)


@TeamJob
def prepare_chain(record, team, thread, threads):
    """Their tokens made ready, which are shared out."""
    p = record_at(_Chain, record)
    for _ in range(p.times):
        for i in range(p.count):
            at = p.records + i * _RECORD_BYTES
            operands = record_at(Operands, at)
            first, last = share(operands.tokens, 1, thread, threads)
            call_rows_kernel(operands.prepare, at, first, last, thread)


@TeamJob
def norms(record, team, thread, threads):
    """RMS norms of a row, each thread its own."""
    p = record_at(_Vectors, record)
    out = pointer(p.out) + thread * (4 * p.count + _PADDING)
    for _ in range(p.times):
        rms_norm(pointer(p.x), pointer(p.weights), p.count, 1e-5, out)


@TeamJob
def attentions(record, team, thread, threads):
    """One query of one head over a float16 cache; every thread the same."""
    p = record_at(_Cached, record)
    scores = pointer(p.scores) + thread * (4 * p.positions + 1024)
    for _ in range(p.times):
        attend_fp16(
            pointer(p.queries), 1, p.positions - 1, 1, p.positions, np.float32(1),
            pointer(p.pages), 0, p.head_dim, scores, p.positions + 256,
            pointer(p.out) + thread * (4 * p.head_dim + _PADDING), p.head_dim,
        )  # fmt: skip


@TeamJob
def meetings(record, team, thread, threads):
    """Barriers alone."""
    p = record_at(_Chain, record)
    for _ in range(p.times):
        barrier(team, threads)


def meet(threads: int, times: int) -> None:
    """So many barriers."""
    TEAM.run(meetings, np.array((0, 0, times), _CHAIN), threads)


def matrix_step(kind: str, rows: int, columns: int) -> int:
    """Bytes from the first one of a matrix to that of the next in a chain's source."""
    return -(-linear_bytes(kind, rows, columns) // CACHE_LINE) * CACHE_LINE


class Chain:
    """Products of the same shape with random weights.

    kind: "fp16" or an encoding. columns: of every matrix. tokens: random activations. shape: the
    class of `ternops.kernels.plan`. source: packed bytes that the matrices are to be, one behind
    the other, instead. total: packed bytes of all matrices together. out: what all of them write.
    """

    def __init__(
        self, kind: str, rows: int, columns: int, count: int, tokens: int, shape: str,
        threads: int, source: npt.NDArray[np.uint8] | None = None,
    ) -> None:  # fmt: skip
        random, arena = np.random.default_rng(0), Arena()
        self._x = aligned_empty(tokens * columns + 64, np.float32)
        self._x[:] = random.standard_normal(self._x.size)
        self.out = aligned_zeros(tokens * rows + 64, np.float32)
        self._memory = aligned_zeros(0, np.uint8)
        self._records = np.zeros(count, OPERANDS)
        # Keeps alive what the records have the addresses of.
        one = np.ones((), np.float32)
        self._kept: list[Any] = [source, one]
        self._operands: list[Operand] = []
        self.total = 0
        for _ in range(count):
            if source is None:
                operand = self._matrix(kind, rows, columns, random, arena)
            else:
                address = source.ctypes.data + self.total
                size = linear_bytes(kind, rows, columns)
                operand = Operand(kind, address, size, rows, columns, one.ctypes.data, 0)
                self.total += matrix_step(kind, rows, columns)
            self._operands.append(operand)
        self.macs = count * rows * columns * tokens
        self._tokens, self._columns, self._threads = tokens, columns * tokens * count, threads
        self._plan = make_plan(kind, columns, shape)
        self._write()

    def _matrix(
        self, kind: str, rows: int, columns: int, random: np.random.Generator, arena: Arena
    ) -> Operand:
        """New weights."""
        if kind == "fp16":
            matrix: HalfMatrix | TernaryMatrix = random_half(rows, columns, random, arena)
        else:
            matrix = random_ternary(rows, columns, kind, random, arena)
        self._kept.append(matrix)
        self.total += matrix.nbytes
        return operand_of(matrix)

    @property
    def prepared(self) -> int:
        """Activations of all products."""
        return self._columns

    def use(self, plan: Plan) -> None:
        """From now on multiply by the kernel of a plan for these columns."""
        before, self._plan = self._plan, plan
        if plan._replace(multiply=before.multiply) == before:
            self._records["multiply"] = plan.multiply
        else:
            self._write()

    def _write(self) -> None:
        """The records, as the plan says, and their tokens prepared."""
        records = self._records.view(np.uint8).reshape(len(self._operands), -1)
        for record, operand in zip(records, self._operands, strict=True):
            call = Call.of(operand, self._tokens, plan=self._plan, floor=BITNET_ABSMAX)
            if (size := call.memory_bytes(self._threads) + _PADDING) > self._memory.size:
                self._memory = aligned_zeros(size, np.uint8)
            x, out = self._x.ctypes.data, self.out.ctypes.data
            call.write(record.data, x, out, self._memory.ctypes.data, self._threads)
        self.prepare(1)

    def multiply(self, times: int, first: int = 0, last: int | None = None) -> None:
        """All products, or those of [first, last), `times` times."""
        TEAM.run(multiply_chain, self._chain(times, first, last), self._threads)

    def prepare(self, times: int) -> None:
        """Their activations prepared, `times` times."""
        TEAM.run(prepare_chain, self._chain(times), self._threads)

    def _chain(self, times: int, first: int = 0, last: int | None = None) -> npt.NDArray[Any]:
        part = self._records[first:last]
        return np.array((part.ctypes.data, len(part), times), _CHAIN)


class Rows:
    """Norms of rows of `count` float32, one a thread."""

    def __init__(self, count: int, threads: int) -> None:
        self.count, self._threads = count, threads
        self._x, self._weights = (aligned_zeros(count + 64, np.float32) + 1 for _ in range(2))
        self._out = aligned_zeros(threads * (4 * count + _PADDING), np.uint8)

    def run(self, times: int) -> None:
        """So many of each thread."""
        addresses = (each.ctypes.data for each in (self._x, self._weights, self._out))
        TEAM.run(norms, np.array((*addresses, self.count, times), _VECTORS), self._threads)


class Attention:
    """Attention of one query of one head over a number of positions, one a thread."""

    def __init__(self, head_dim: int, positions: int, threads: int) -> None:
        self._sizes, self._threads = (head_dim, positions), threads
        self.macs = 2 * head_dim * positions
        page, count = FP16.head_bytes(head_dim), -(-positions // POSITIONS)
        self._memory = aligned_zeros(page * count, np.uint8)
        self._pages = self._memory.ctypes.data + page * np.arange(count, dtype=np.int64)
        self._queries = aligned_zeros(head_dim + 64, np.float32)
        self._scores = aligned_zeros(threads * (4 * positions + 1024) + _PADDING, np.uint8)
        self._out = aligned_zeros(threads * (4 * head_dim + _PADDING), np.uint8)

    def run(self, times: int) -> None:
        """So many of each thread."""
        arrays = (self._queries, self._pages, self._scores, self._out)
        addresses = (each.ctypes.data for each in arrays)
        TEAM.run(attentions, np.array((*addresses, *self._sizes, times), _CACHED), self._threads)
