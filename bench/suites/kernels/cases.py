"""Making what bench.kernels times: our products, with and without Python, peers', and limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

import ternops
from bench.core.envelope import TIER
from bench.core.errors import first_line
from bench.core.kernels import (
    NO_PYTHON,
    OURS,
    PREPARING,
    PRODUCTS,
    REMARK,
    UNPACKING,
    VERSION,
    Product,
    describe,
)
from bench.core.measure import Case, loops_for
from bench.core.results import LOOK_UPS
from bench.engines import Engine, settle
from bench.limits.gemm_parts import part, prepare_alone
from bench.limits.levels import level_of
from bench.limits.peaks import multiply_alone, run_again
from ternops import float_matrix
from ternops.decoder.weights import random_ternary
from ternops.encodings import ENCODINGS
from ternops.float_matrix import FloatMatrix
from ternops.isa import HAS_TILES
from ternops.kernels.linear import linear
from ternops.kernels.operands import OPERANDS
from ternops.kernels.plan import kind_of
from ternops.matrix import TernaryMatrix
from ternops.memory import aligned_empty
from ternops.quantizers.fp8 import FORMATS
from ternops.simd import RowsKernel
from ternops.team import TEAM

#: With more tokens, no level of memory is slow enough to be the limit.
MAX_READ = 16

Matrix = TernaryMatrix | FloatMatrix

_GROUP = 64  # rows of a group of the look-up encodings
_BATCH = 0.005  # seconds that a product is repeated for between two looks at the clock


def tokens_of(count: int, columns: int, dtype: str = "float32") -> npt.NDArray[Any]:
    """Random activations."""
    random = np.random.default_rng((count, columns))
    if dtype == "int8":
        return random.integers(-127, 128, (count, columns), np.int8)
    return random.standard_normal((count, columns)).astype(np.float32)


def weights(
    encoding: str, rows: int, columns: int, group: int = 0, levels: tuple[int, ...] = ()
) -> TernaryMatrix:
    """A random matrix. group: columns that share a scale, 0 for all; levels: see `pack`."""
    random = np.random.default_rng(0)
    return random_ternary(rows, columns, encoding, random, group=group, levels=levels)


def floats(method: str, rows: int, columns: int) -> FloatMatrix:
    """A random matrix of fp8."""
    some = np.random.default_rng(0).standard_normal((_GROUP, columns))
    found = ternops.quantize(some, "fp8", method=method)
    codes = np.resize(found.to_codes(), (rows, columns))
    return float_matrix.of_codes(codes, np.resize(found.scale, rows), method)


def any_weights(name: str, rows: int, columns: int, *kind: Any) -> Matrix:
    """`floats` of a format of fp8, `weights` of an encoding."""
    return floats(name, rows, columns) if name in FORMATS else weights(name, rows, columns, *kind)


def rows_of(name: str, columns: int, size: int) -> int:
    """That make about `size` packed bytes."""
    group = _GROUP * columns if name in FORMATS else ENCODINGS[name].nbytes(_GROUP, columns)
    return max(1, size // group) * _GROUP


def weights_of(encoding: str, columns: int, size: int) -> TernaryMatrix:
    """A random matrix of about `size` packed bytes."""
    return weights(encoding, rows_of(encoding, columns, size), columns)


def _scaled_for(matrix: TernaryMatrix, x: npt.NDArray[Any]) -> TernaryMatrix:
    """Without a scale for int8, whose products are then exact."""
    return matrix.unscaled if x.dtype == np.int8 else matrix


def name_of(encoding: str, group: int = 0, levels: Sequence[int] = ()) -> str:
    """The encoding, the group and the number of levels, where these are not the usual ones."""
    usual = not levels or tuple(levels) == ENCODINGS[encoding].values
    return encoding + (f"/{group}" if group else "") + ("" if usual else f" {len(levels)} levels")


def _kind_of(matrix: Matrix) -> str:
    if isinstance(matrix, FloatMatrix):
        return matrix.method
    return name_of(matrix.encoding, matrix.group or 0, matrix.levels)


def _product(
    section: str, group: str, matrix: Matrix, x: npt.NDArray[Any], threads: int,
    level: str | None = None, how: str = "",
) -> Product:  # fmt: skip
    rows, columns = matrix.shape
    tokens = len(x)
    if level is None:
        level = level_of(matrix.nbytes, threads) if tokens <= MAX_READ else ""
    peak = ""
    if isinstance(matrix, TernaryMatrix) and matrix.encoding not in LOOK_UPS:
        kind = kind_of(matrix.encoding, tokens, matrix.nbytes, matrix.group or 0, matrix.levels)
        peak = "tile" if HAS_TILES and kind == "many" else "dot"
    return Product(
        section, group, OURS, tokens, rows, columns, threads, matrix.nbytes, TIER,
        _kind_of(matrix),
        str(x.dtype), level,
        peak, how,
    )  # fmt: skip


def matmul_case(
    section: str, group: str, matrix: Matrix, x: npt.NDArray[Any], threads: int,
    level: str | None = None, beside_peers: bool = False, seconds: float = _BATCH,
) -> Case:  # fmt: skip
    """`ternops.matmul` into an array that is there already, as most peers do.

    level: where the weights are, by default the fastest level of memory that may hold them.
    seconds: that products are repeated for.
    """
    operand = matrix if isinstance(matrix, FloatMatrix) else _scaled_for(matrix, x)
    transposed = operand.T
    out = ternops.matmul(x, transposed, threads=threads)
    once = partial(ternops.matmul, x, transposed, out, threads)
    case = _repeated(once, beside_peers, seconds)
    return describe(case, _product(section, group, matrix, x, threads, level))


class Prepared:
    """A product of OPERANDS as `ternops.matmul` makes it, for jobs that run it without Python."""

    def __init__(self, matrix: TernaryMatrix, x: npt.NDArray[Any], threads: int) -> None:
        packed, tokens = matrix._packed, len(x)
        scaled = packed.scale is not None or x.dtype != np.int8
        call = packed.call(tokens, x.dtype == np.float32, scaled)
        self._threads = threads
        self._out = np.empty((tokens, packed.rows), np.float32 if scaled else np.int32)
        memory = aligned_empty(call.memory_bytes(threads), np.uint8)
        self._kept = matrix, x, memory  # whose addresses the record has
        self._record = np.zeros((), OPERANDS)
        call.write(
            self._record.data.cast("B"), x.ctypes.data, self._out.ctypes.data,
            memory.ctypes.data, threads,
        )  # fmt: skip
        TEAM.run(linear, self._record, threads)

    def run(self, alone: bool, times: int) -> None:
        """The whole product, or only its multiplication, `times` times."""
        job = multiply_alone if alone else linear
        run_again(job, self._record.ctypes.data, self._threads, times)

    def part(self, kernel: RowsKernel | None, times: int) -> None:
        """A kernel instead of the one that multiplies, or, for None, the tokens' preparation."""
        job, record = prepare_alone, self._record.copy()
        if kernel:
            job, record["multiply"] = multiply_alone, kernel.address
        run_again(job, record.ctypes.data, self._threads, times)

    def result(self) -> npt.NDArray[Any]:
        """What the last run computed."""
        return self._out


def kernel_case(
    section: str, group: str, matrix: TernaryMatrix, x: npt.NDArray[Any], threads: int, alone: bool
) -> Case:
    """The kernels of a product, again and again without Python; alone: without preparing tokens."""
    prepared = Prepared(_scaled_for(matrix, x), x, threads)
    times = loops_for(_BATCH, partial(prepared.run, alone, 1))
    case = Case("", partial(prepared.run, alone, times), times)
    return describe(case, _product(section, group, matrix, x, threads, how=NO_PYTHON))


def gemm_part_cases(
    section: str, group: str, matrix: TernaryMatrix, x: npt.NDArray[Any], threads: int,
    seconds: float,
) -> list[Case]:  # fmt: skip
    """The kernels of a product with many tokens, whole and in parts, each repeated so long."""
    prepared = Prepared(_scaled_for(matrix, x), x, threads)
    parts: dict[str, Callable[[int], None]] = {
        NO_PYTHON: partial(prepared.run, False),
        PREPARING: partial(prepared.part, None),
        **{
            name: partial(prepared.part, part(name, matrix.encoding))
            for name in (UNPACKING, PRODUCTS)
        },
    }
    cases = []
    for how, run in parts.items():
        times = loops_for(seconds, partial(run, 1))
        what = _product(section, group, matrix, x, threads, how=how)
        if how in (PREPARING, UNPACKING):  # nothing is multiplied
            what = replace(what, peak="")
        cases.append(describe(Case("", partial(run, times), times), what))
    return cases


def peer_cases(
    section: str, group: str, engines: Sequence[Engine], trits: npt.NDArray[np.int8],
    x: npt.NDArray[np.float32], threads: int, notes: list[str],
) -> list[Case]:  # fmt: skip
    """The same product of each engine; one that cannot do it leaves a note."""
    cases = []
    rows, columns = trits.shape
    for engine in engines:
        try:
            product = engine.prepare(trits, x, threads)
        except Exception as error:
            notes.append(f"{engine.name}, {group}: {first_line(error)}")
            continue
        case = _repeated(product, True, _BATCH)
        case.close = product.close
        what = Product(
            section, group, engine.name, len(x), rows, columns, threads, product.nbytes,
            TIER,
        )  # fmt: skip
        cases.append(describe(case, what))
        case.metadata[VERSION] = engine.version
        if engine.remark:
            case.metadata[REMARK] = engine.remark
    return cases


def _repeated(once: Callable[[], object], beside_peers: bool, seconds: float) -> Case:
    loops = loops_for(seconds, once)

    def run() -> None:
        for _ in range(loops):
            once()

    case = Case("", run, loops)
    if beside_peers:
        # The threads of one engine must not take the cores of the next.
        case.before = partial(settle, once)
    return case
