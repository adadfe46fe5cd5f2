"""The GEMM's parts, each with the others left out: what its time goes into.

Layout and trick: the kernels' own; a part that is left out is a function that does nothing. What
the processor does at the same time counts in both parts: they may add up to more than the whole.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs
from __future__ import annotations

from functools import cache

from bench.core.kernels import UNPACKING
from ternops.encodings import ENCODINGS
from ternops.isa import HAS_TILES
from ternops.isa.tier import GemmTile
from ternops.kernels.gemm import decode_of, make_gemm, make_multiply
from ternops.kernels.operands import Operands
from ternops.kernels.tiles import MANY
from ternops.kernels.tuning import chosen_tile
from ternops.simd import (
    RowsKernel,
    TeamJob,
    call_rows_kernel,
    inlined,
    pointer,
    record_at,
    store,
)
from ternops.team import share


@TeamJob
def prepare_alone(record, team, thread, threads):
    """The tokens of OPERANDS, as `linear` prepares them."""
    p = record_at(Operands, record)
    first, last = share(p.tokens, 1, thread, threads)
    call_rows_kernel(p.prepare, record, first, last, thread)


@inlined
def _unpack_nothing(p, row, n, first, last, panel):
    pass


@inlined
def _multiply_nothing(p, panel, spare, row, n, first, end, depth, lines, is_last):
    pass


@inlined
def _keep(p, total, row, token, count, depth, is_last):
    """All sums to one place, or LLVM would leave the products out as well."""
    store(pointer(p.out), total)


@cache
def part(name: str, encoding: str) -> RowsKernel:
    """The kernel of an encoding that only unpacks, or that only multiplies."""
    record, tile = ENCODINGS[encoding], chosen_tile(encoding, MANY)
    assert isinstance(tile, GemmTile)
    if name == UNPACKING:
        made = make_gemm(record, tile, decode_of(record, tile), _multiply_nothing)
    else:
        multiply = make_multiply(tile, None if HAS_TILES else _keep)
        made = make_gemm(record, tile, _unpack_nothing, multiply)
    return RowsKernel(made, f"gemm_{name}_{encoding}_{tile}")
