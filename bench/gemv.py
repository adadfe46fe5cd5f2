"""GEMV on more weights than any cache holds, beside the read bandwidth of the same run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

import ternops
from bench.measure import Case, interleave, probe_cases
from bench.probes import PROBES, Reader
from ternops.decoder.weights import HalfMatrix, random_half, random_ternary
from ternops.kernels.linear import linear
from ternops.kernels.operands import OPERANDS
from ternops.kernels.plan import make_plan
from ternops.team import TEAM

_COLUMNS = 4096


def _half_record(
    half: HalfMatrix, x: npt.NDArray[np.float32], placed: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
) -> npt.NDArray[Any]:  # fmt: skip
    """The OPERANDS of half @ x; `placed` is room for another x."""
    rows, columns = half.shape
    plan = make_plan("float16", columns, "stream")
    record: Any = np.zeros((), OPERANDS)
    for name, value in {
        "prepare": plan.prepare, "multiply": plan.multiply, "row_step": plan.row_step,
        "weights": half.bits.ctypes.data, "stride": plan.stride, "rows": rows, "columns": columns,
        "tokens": 1, "placed_stride": plan.placed_bytes, "out_stride": rows,
        "x": x.ctypes.data, "out": out.ctypes.data, "placed": placed.ctypes.data,
    }.items():  # fmt: skip
        record[name] = value
    return record


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
    placed = np.empty_like(x)
    record = _half_record(half, x, placed, out)
    results = {}
    for count in threads:

        def ternary_product(n: int = count) -> None:
            ternops.matmul(x, ternary.T, out, n)

        def half_product(n: int = count) -> None:
            TEAM.run(linear, record, n)

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
