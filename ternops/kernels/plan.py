"""Which kernels multiply a packed matrix with a number of tokens, and the memory they need."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import NamedTuple

from ternops.cpu_caches import last_level_bytes
from ternops.encodings import ENCODINGS, PANELS, layout_of
from ternops.encodings.blocks import BLOCK_BYTES, Blocks, GemvTile
from ternops.encodings.panels import ROWS as PANEL_ROWS
from ternops.encodings.panels import Panels
from ternops.encodings.row_groups import ROWS, RowGroups
from ternops.isa import HAS_TILES, LANES, TIER, TOGETHER
from ternops.isa.tier import GemmTile
from ternops.kernels.amx import SPARE_BYTES as TILES_BYTES
from ternops.kernels.fp16 import (
    LINE_BYTES,
    gemv_bf16,
    gemv_e4m3,
    gemv_e5m2,
    gemv_fp16,
    place_floats,
)
from ternops.kernels.gemm import gemm_kernel, panel_bytes
from ternops.kernels.gemv import blocks_kernel
from ternops.kernels.grouped import MAX_UNIT, grouped_gemv, panel_tile, place_groups
from ternops.kernels.grouped import scratch_bytes as sums_bytes
from ternops.kernels.grouped_few import IS_WORTH_IT, few_bytes, grouped_few
from ternops.kernels.grouped_gemm import PANELS as GEMM_PANELS
from ternops.kernels.grouped_gemm import SPARE_BYTES, codes_bytes, grouped_gemm
from ternops.kernels.grouped_tiles import (
    MIN_GROUP,
    MIN_TOKENS,
    TOKENS,
    grouped_tiles,
    place_group_tiles,
    scratch_bytes,
)
from ternops.kernels.grouped_tiles import PANELS as TILE_PANELS
from ternops.kernels.grouped_tiles import placed_bytes as tiles_placed_bytes
from ternops.kernels.int8 import gemv_i8, place_levels, placed_bytes
from ternops.kernels.linear import gathered_bytes, place_together, place_tokens
from ternops.kernels.lut import lut_kernels
from ternops.kernels.stacked import STACK, gemv_stack
from ternops.kernels.stacked import scratch_bytes as stack_bytes
from ternops.kernels.tiles import KINDS, MANY, Tile, kinds_of
from ternops.kernels.tuning import chosen_tile
from ternops.simd import RowsKernel

#: Tokens from which on their codes as bytes pay, with a scale a group and without tiles.
MIN_MANY = 16
#: Of the GEMM's, in a block of tokens: fewer, and unpacking takes as long as the products.
_MIN_TILES = 3
#: Tokens whose tables are made at once. From 9 on unpacking for the GEMM takes less time than
#: looking up for each of them.
_MAX_TABLES = 8


@dataclass(frozen=True)
class Unpacked:
    """Weights that are not packed, and the same kernels for any number of tokens.

    placed: bytes of a prepared token, by those of a row.
    """

    itemsize: int
    prepare: RowsKernel
    multiply: RowsKernel
    placed: Callable[[int], int]

    def stride(self, columns: int) -> int:
        """Bytes of a row."""
        return -(-columns * self.itemsize // LINE_BYTES) * LINE_BYTES


def _floats_of_two(stride: int) -> int:
    """Bytes of float32, as many as weights of two bytes in a row."""
    return 2 * stride


def _floats_of_one(stride: int) -> int:
    """As many as weights of a byte."""
    return 4 * stride


UNPACKED = {
    "fp16": Unpacked(2, place_floats, gemv_fp16, _floats_of_two),
    "bf16": Unpacked(2, place_floats, gemv_bf16, _floats_of_two),
    "int8": Unpacked(1, place_levels, gemv_i8, placed_bytes),
    "e4m3": Unpacked(1, place_floats, gemv_e4m3, _floats_of_one),
    "e5m2": Unpacked(1, place_floats, gemv_e5m2, _floats_of_one),
}


class Kernels(NamedTuple):
    """What prepares tokens, what multiplies, and the tile of that, where there is a choice."""

    prepare: RowsKernel
    multiply: RowsKernel
    tile: Tile | None = None


def tiled(name: str, tile: Tile) -> Kernels:
    """The kernels of an encoding by a tile."""
    if isinstance(tile, GemmTile):
        place = place_together if TOGETHER > 1 else place_tokens
        return Kernels(place, gemm_kernel(name, tile), tile)
    return Kernels(place_tokens, blocks_kernel(name, tile), tile)


@cache
def _kernels_of(name: str) -> dict[str, Kernels]:
    """Those of each of KINDS. Kept together with their tiles, which tell how much memory they
    need, so that no kernel ever meets the memory of another's."""
    encoding = ENCODINGS[name]
    if isinstance(encoding, Panels):
        return {kind: Kernels(*grouped_kernels(name, kind, 0)[:2]) for kind in KINDS}
    kernels = {kind: tiled(name, chosen_tile(name, kind)) for kind in kinds_of(encoding)}
    if isinstance(encoding, RowGroups):
        return {**dict.fromkeys(KINDS, Kernels(*lut_kernels(encoding))), **kernels}
    if isinstance(encoding, Blocks):
        return kernels
    raise TypeError(f"encoding {name!r}: no kernels for {type(encoding).__name__}")


def forget_kernels() -> None:
    """Let new matrices choose anew: other tiles were found. What is in use stays as it is."""
    _kernels_of.cache_clear()


class _Kernels(Mapping[tuple[str, str], tuple[RowsKernel, RowsKernel]]):
    """Kernels are made when their encoding is first asked for: most programs use one or two."""

    def __getitem__(self, key: tuple[str, str]) -> tuple[RowsKernel, RowsKernel]:
        name, kind = key
        return _kernels_of(name)[kind][:2]

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return product(ENCODINGS, KINDS)

    def __len__(self) -> int:
        return len(ENCODINGS) * len(KINDS)


#: (encoding, shape class) -> the kernel that prepares tokens, and the one that multiplies.
KERNELS = _Kernels()


class Plan(NamedTuple):
    """Fields of an OPERANDS record that depend on the matrix alone, and sizes in bytes.

    prepare, multiply: addresses of compiled kernels. is_biased: whether the latter adds up codes.
    placed_bytes: of one prepared token.
    scratch_bytes: of each thread. token_step: tokens are prepared in multiples of it.
    token_block: tokens that the GEMM multiplies with a panel before the next one. streams, panel:
    as which streams GEMV reads the rows, and the panel of a GemvTile; unit: rows in one piece.
    """

    prepare: int
    multiply: int
    row_step: int
    placed_bytes: int
    stride: int = 0
    fields: int = 0
    is_biased: bool = False
    scratch_bytes: int = 0
    token_step: int = 1
    token_block: int = sys.maxsize
    streams: int = 0
    panel: int = 0
    unit: int = 1


def has_panels(encoding: str, levels: Sequence[int]) -> bool:
    """Whether matrices without a scale a group of columns are in panels as well."""
    return encoding in ENCODINGS and isinstance(layout_of(encoding, 0, levels), Panels)


def kind_of(
    encoding: str, tokens: int, weights: int, group: int = 0, levels: Sequence[int] = ()
) -> str:
    """The shape class of a product, by its tokens and bytes of weights."""
    if tokens == 1:
        return "one" if weights <= last_level_bytes() else "stream"
    if group or has_panels(encoding, levels):
        least = MIN_TOKENS if _takes_tiles(group) else MIN_MANY
        return "few" if tokens < least else MANY
    is_grouped = isinstance(ENCODINGS.get(encoding), RowGroups)
    return "few" if tokens <= (_MAX_TABLES if is_grouped else TIER.batch.most) else MANY


def _takes_tiles(group: int) -> bool:
    return HAS_TILES and (group == 0 or group >= MIN_GROUP)


class GroupedKernels(NamedTuple):
    """What prepares tokens and multiplies with a scale a group of columns. scratch: bytes of each
    thread, by the number of columns. panels: that are multiplied together. token_step: tokens are
    prepared in multiples of it."""

    prepare: RowsKernel
    multiply: RowsKernel
    scratch: Callable[[int], int]
    panels: int = 1
    token_step: int = 1


def grouped_kernels(name: str, kind: str, group: int, levels: int = 0) -> GroupedKernels:
    """The kernels of an encoding with a scale a group of columns, or of panels whose columns share
    a scale (0). levels: how many a matrix has, 0 for as many as the encoding's values."""
    unit = min(group or MAX_UNIT, MAX_UNIT)
    encoding = PANELS[name]
    # Sums of int16 have room for so many.
    is_wide = TIER.close is not None and levels > len(encoding.values)
    if kind in ("one", "stream"):
        size = sums_bytes(encoding, unit, panel_tile(encoding).streams, 1)
        return GroupedKernels(place_groups, grouped_gemv(name, unit, is_wide), lambda _: size)
    if kind == MANY and _takes_tiles(group):
        return GroupedKernels(
            place_group_tiles, grouped_tiles(name, group),
            lambda columns: scratch_bytes(columns, group), TILE_PANELS, TOKENS,
        )  # fmt: skip
    if IS_WORTH_IT and kind != MANY:
        few = few_bytes(encoding, unit)
        return GroupedKernels(place_groups, grouped_few(name, unit, is_wide), lambda _: few)
    return GroupedKernels(
        place_groups, grouped_gemm(name, is_wide),
        lambda columns: SPARE_BYTES + codes_bytes(columns), GEMM_PANELS,
    )  # fmt: skip


def _grouped_plan(name: str, columns: int, kind: str, group: int, levels: int) -> Plan:
    panels, kernels = PANELS[name], grouped_kernels(name, kind, group, levels)
    # A row behind another at a multiple of 4 KB would compete for the same few places of a cache.
    placed = -(-tiles_placed_bytes(columns, group) // BLOCK_BYTES) * BLOCK_BYTES + BLOCK_BYTES
    block = max(_MIN_TILES, TIER.gemm.block_bytes // placed // TOKENS) * TOKENS
    return Plan(
        kernels.prepare.address, kernels.multiply.address, kernels.panels * PANEL_ROWS, placed,
        panels.row_bytes(columns), panels.fields, True,
        kernels.scratch(columns), kernels.token_step, block, panel_tile(panels).streams,
        unit=PANEL_ROWS,
    )  # fmt: skip


def make_plan(
    name: str, columns: int, kind: str, tile: Tile | None = None, group: int = 0,
    levels: Sequence[int] = (),
) -> Plan:  # fmt: skip
    """The plan for an encoding, STACK or a name of UNPACKED, the row length and a shape class.

    tile: instead of the one that was chosen for the encoding and the shape class. group: columns
    that share a scale, 0 for all of them. levels: what codes stand for, by default the values.
    """
    if group or has_panels(name, levels):
        return _grouped_plan(name, columns, kind, group, len(levels))
    if name == STACK:
        stride = UNPACKED["fp16"].stride(columns)
        return Plan(
            place_floats.address, gemv_stack.address, LANES, 2 * stride, stride,
            scratch_bytes=stack_bytes(columns),
        )  # fmt: skip
    if name in UNPACKED:
        each = UNPACKED[name]
        stride = each.stride(columns)
        return Plan(each.prepare.address, each.multiply.address, LANES, each.placed(stride), stride)
    encoding = ENCODINGS[name]
    kernels = tiled(name, tile) if tile else _kernels_of(name)[kind]
    prepare, multiply = kernels.prepare.address, kernels.multiply.address
    if isinstance(encoding, RowGroups) and kind != MANY:
        tiles = encoding.tiles(columns)
        placed = tiles * encoding.tuples * encoding.kernel_code.TABLE_BYTES
        # For one token in natural order, and later for the sums of a group's rows.
        scratch = -(-max(tiles * encoding.columns, 2 * ROWS) // 64) * 64
        return Plan(prepare, multiply, ROWS, placed, scratch_bytes=scratch)
    assert isinstance(encoding, Blocks | RowGroups)
    placed = -(-columns // encoding.block) * encoding.block
    row_step, scratch, token_step, block = LANES, 0, 2 if kind == "few" else 1, sys.maxsize
    # The codes of row groups are unpacked in the order of their columns, which 0 stands for.
    stride, fields = 0, 0
    if isinstance(encoding, Blocks):
        stride, fields = encoding.row_bytes(columns), encoding.fields
    streams, panel = 0, 0
    if isinstance(kernels.tile, GemvTile):
        streams, panel = kernels.tile.rows, kernels.tile.panel
    if isinstance(kernels.tile, GemmTile):
        row_step, token_step = kernels.tile.panel_rows, kernels.tile.tokens
        # Of the panel and a tile of sums, and before that of the tokens that share lines.
        scratch = max(panel_bytes(kernels.tile) + TILES_BYTES, gathered_bytes(placed))
        block = max(_MIN_TILES * token_step, kernels.tile.block_bytes // max(1, placed))
        block = block // token_step * token_step
    return Plan(
        prepare, multiply, row_step, placed, stride, fields, True, scratch, token_step, block,
        streams, panel,
    )  # fmt: skip
