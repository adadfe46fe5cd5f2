"""GEMV on more weights than any cache holds, beside the read bandwidth of the same run."""

from __future__ import annotations

from collections.abc import Callable

import numba
import numpy as np

import ternops
from bench.measure import Case, interleave, probe_cases
from bench.probes import PROBES, Reader
from ternops.decoder.weights import random_half, random_ternary
from ternops.kernels.half import gemv_half
from ternops.simd import Job, pointer, record_at
from ternops.team import TEAM, share

_COLUMNS = 4096

_RECORD = np.dtype([(name, np.intp) for name in ("weights", "rows", "columns", "x", "out")])
_Record = numba.from_dtype(_RECORD)


@Job
def _half_product(record, team, thread, threads):
    p = record_at(_Record, record)
    first, last = share(p.rows, 16, thread, threads)
    gemv_half(False, pointer(p.weights), p.columns, first, last, pointer(p.x), pointer(p.out))


def steps(threads: list[int], rounds: int) -> int:
    """How often `measure` calls advance."""
    return len(threads) * (2 + len(PROBES)) * (rounds + 1)


def measure(
    size: int, threads: list[int], rounds: int, advance: Callable[[str], None]
) -> dict[int, tuple[list[Case], list[Case]]]:
    """threads -> the GEMV cases (two_bit, fp16) and the probes, each over `size` bytes."""
    random = np.random.default_rng(0)
    reader = Reader(size)
    ternary = random_ternary(size // (_COLUMNS // 4), _COLUMNS, "two_bit", random)
    half = random_half(size // (_COLUMNS * 2), _COLUMNS, random)
    x = random.standard_normal(_COLUMNS).astype(np.float32)
    out = np.empty(ternary.shape[0], np.float32)
    record = np.zeros((), _RECORD)
    record[()] = (
        half.bits.ctypes.data, half.shape[0], _COLUMNS, x.ctypes.data, out.ctypes.data
    )  # fmt: skip
    results = {}
    for count in threads:

        def ternary_product(n: int = count) -> None:
            ternops.matmul(x, ternary.T, out, n)

        def half_product(n: int = count) -> None:
            TEAM.run(_half_product, record, n)

        kernels = [
            _case("two_bit", count, size, ternary_product),
            _case("fp16", count, size, half_product),
        ]
        probes = probe_cases("GEMV", reader, count)
        interleave([*kernels, *probes], rounds, advance)
        for case in (*kernels, *probes):
            case.release()
        results[count] = (kernels, probes)
    return results


def _case(engine: str, threads: int, size: int, run: Callable[[], object]) -> Case:
    metadata = {"ternops_engine": engine, "ternops_threads": threads, "ternops_bytes": size}
    return Case(f"GEMV {engine} {size >> 20} MiB, {threads} thread(s)", run, metadata=metadata)
