"""Which kernels multiply a packed matrix with so many tokens, and the memory that they need."""

from __future__ import annotations

import sys
from typing import NamedTuple

from ternops.cpu_caches import last_level_bytes
from ternops.encodings import ENCODINGS
from ternops.isa import LANES, NARROW, TIER, TOGETHER, WIDE
from ternops.kernels.amx import SPARE_BYTES
from ternops.kernels.fp16 import LINE_BYTES, gemv_bf16, gemv_fp16, place_floats
from ternops.kernels.gemm import PANEL_BYTES, PANEL_ROWS, gemm_base3, gemm_two_bit
from ternops.kernels.gemv import (
    batch_base3,
    batch_two_bit,
    gemv_base3,
    gemv_two_bit,
    stream_two_bit,
)
from ternops.kernels.int8 import gemv_i8, place_levels, placed_bytes
from ternops.kernels.linear import place_together, place_tokens
from ternops.kernels.lut import (
    PAIR_BYTES,
    PAIR_UNIT,
    ROWS,
    TRIPLE_BYTES,
    TRIPLE_UNIT,
    gemv_tl1,
    gemv_tl2,
    tables_tl1,
    tables_tl2,
)

_place_many = place_together if TOGETHER > 1 else place_tokens
_KINDS = ("one", "stream", "few", "many")
#: (encoding, shape class) -> the kernel that prepares tokens, and the one that multiplies. Classes:
#: one token, one with weights from memory ("stream"), a few, and many.
KERNELS = {
    ("two_bit", "one"): (place_tokens, gemv_two_bit),
    ("two_bit", "stream"): (place_tokens, gemv_two_bit if NARROW is WIDE else stream_two_bit),
    ("two_bit", "few"): (place_tokens, batch_two_bit),
    ("two_bit", "many"): (_place_many, gemm_two_bit),
    ("base3", "one"): (place_tokens, gemv_base3),
    ("base3", "stream"): (place_tokens, gemv_base3),
    ("base3", "few"): (place_tokens, batch_base3),
    ("base3", "many"): (_place_many, gemm_base3),
    **{("tl1", kind): (tables_tl1, gemv_tl1) for kind in _KINDS},
    **{("tl2", kind): (tables_tl2, gemv_tl2) for kind in _KINDS},
}
#: Weights that are no trits -> their bytes, and the same kernels for any number of tokens.
DENSE = {
    "fp16": (2, place_floats, gemv_fp16),
    "bf16": (2, place_floats, gemv_bf16),
    "int8": (1, place_levels, gemv_i8),
}
#: encoding -> the unit of its rows, and bytes of a table.
TABLES = {"tl1": (PAIR_UNIT, PAIR_BYTES), "tl2": (TRIPLE_UNIT, TRIPLE_BYTES)}
#: Tokens whose tables are made at once.
_MAX_TABLES = 16


class Plan(NamedTuple):
    """Fields of an OPERANDS record that depend on the matrix alone, and sizes in bytes.

    prepare, multiply: addresses of compiled kernels. placed_bytes: of one prepared token.
    scratch_bytes: of each thread. token_step: tokens are prepared in multiples of it.
    max_tokens: more are multiplied in several turns.
    """

    prepare: int
    multiply: int
    row_step: int
    stride: int
    fields: int
    placed_bytes: int
    scratch_bytes: int
    token_step: int
    max_tokens: int


def kind_of(tokens: int, weights: int) -> str:
    """The shape class of a product with so many bytes of weights."""
    if tokens == 1:
        return "one" if weights <= last_level_bytes() else "stream"
    return "few" if tokens <= TIER.batch.most else "many"


def make_plan(encoding: str, columns: int, kind: str) -> Plan:
    """The plan for an encoding, or a name of DENSE, the length of the rows and a shape class."""
    if encoding in DENSE:
        size, placer, gemv = DENSE[encoding]
        stride = dense_stride(columns, size)
        prepare, multiply = placer.address, gemv.address
        placed = placed_bytes(stride) if size == 1 else 4 * stride // size
        return Plan(prepare, multiply, LANES, stride, 0, placed, 0, 1, max_tokens(encoding))
    prepare, multiply = (kernel.address for kernel in KERNELS[encoding, kind])
    if encoding in TABLES:
        (unit, tables, _), table_bytes = TABLES[encoding]
        units = -(-columns // unit)
        # For one token in natural order, and later for the sums of a group's rows.
        scratch = -(-max(units * unit, 2 * ROWS) // 64) * 64
        placed = units * tables * table_bytes
        return Plan(prepare, multiply, ROWS, 0, 0, placed, scratch, 1, max_tokens(encoding))
    layout = ENCODINGS[encoding]
    placed = -(-columns // layout.BLOCK) * layout.BLOCK
    row_step, scratch, token_step = LANES, 0, 2 if kind == "few" else 1
    if kind == "many":
        row_step, token_step = PANEL_ROWS, TIER.gemm.tokens
        # Of the panel and a tile of sums, and before that of one token.
        scratch = max(PANEL_BYTES + SPARE_BYTES, placed)
    return Plan(
        prepare, multiply, row_step, layout.row_bytes(columns), layout.FIELDS, placed, scratch,
        token_step, max_tokens(encoding),
    )  # fmt: skip


def max_tokens(encoding: str) -> int:
    """The most tokens of one product."""
    return _MAX_TABLES if encoding in TABLES else sys.maxsize


def dense_stride(columns: int, size: int) -> int:
    """Bytes of a row of weights that are no trits, `size` bytes each."""
    return -(-columns * size // LINE_BYTES) * LINE_BYTES
