"""Codes of files as packed bytes, without int8 values in between: a file is open in little more
than the time of reading it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ternops.decoder.formats import gguf_levels
from ternops.decoder.formats.codes import Bytes
from ternops.decoder.formats.gguf_blocks import PACKED, decode, scales_of
from ternops.decoder.formats.gguf_types import Kind
from ternops.decoder.formats.mlx import Parts
from ternops.decoder.formats.scales import GROUPS, Floats, check_scales, row_scales
from ternops.decoder.formats.tables import table_scale
from ternops.encodings import ENCODINGS, PANELS
from ternops.encodings.blocks import Blocks
from ternops.encodings.common import SLACK
from ternops.matrix import TernaryMatrix
from ternops.memory import Arena
from ternops.packed import Packed, halves_of
from ternops.packing import PAIRS, SIGNS, Codes, pack_codes, turn_scales

Order = npt.NDArray[np.intp]

#: These tell how far scales can be joined, in most matrices.
_FIRST_ROWS = 16


class _Source(NamedTuple):
    """rows: uint8 (rows, bytes) of codes; scales: float32 (rows, blocks), or (rows, 1), where they
    are not among these; has_dead: blocks whose scale is 0 are zeros."""

    codes: Codes
    rows: Bytes
    columns: int
    scales: Floats | None
    has_dead: bool


def pack_blocks(
    kind: Kind, data: Bytes, shape: tuple[int, int], encoding: str, arena: Arena,
    order: Order | None = None, is_table: bool = False,
) -> TernaryMatrix | None:  # fmt: skip
    """What `pack` makes of the trits and scales of `gguf_blocks.decode`, of a tensor's bytes.

    order: of its rows. is_table: with a scale a group of inputs, even if a row has a single one.
    None for what is not packed so, or damaged: `decode` tells what is wrong with it.
    """
    codes, (rows, columns) = PACKED.get(kind.name), shape
    if codes is None or columns % kind.weights:
        return None
    codes = codes._replace(weights=kind.weights, size=kind.size, first=kind.prefix)
    table = data[: len(data) - kind.tail].reshape(rows, -1)
    guess, scales = columns, None
    try:
        if codes.scale is None:
            scales = scales_of(kind, data, rows)
        else:
            first = table[:_FIRST_ROWS]
            _, scale = decode(kind, first.reshape(-1), (len(first), columns))
            guess = _inputs(scale, columns)
        source = _Source(codes, table, columns, scales, codes.form == SIGNS)
        return _pack(source, guess, encoding, arena, order, is_table)
    except ValueError:
        return None


def pack_levels(
    kind: Kind, data: Bytes, shape: tuple[int, int], arena: Arena, order: Order | None = None
) -> TernaryMatrix | None:
    """What `pack` makes of what `gguf_levels.decode` gives of a tensor's bytes, rows in an order.

    None for what is damaged: `decode` tells what is wrong with it.
    """
    layout, (rows, columns) = gguf_levels.check_kind(kind), shape
    panels, width = PANELS[layout.encoding], columns // kind.weights
    codes = layout.packed._replace(weights=kind.weights, size=kind.size)
    packed = arena.empty(panels.nbytes(rows, columns) + SLACK, np.uint8)
    halves = None if codes.scale is None else np.empty((rows, width), np.float16)
    used, table = np.empty((rows, width), np.bool_), data.reshape(rows, -1)
    if not pack_codes(panels, codes, table, columns, packed, used, halves, order):
        return None
    scale: npt.NDArray[Any] | None = halves
    if scale is None:
        scale = gguf_levels.scales_of(kind, data, shape)
        if not np.isfinite(scale).all():
            return None
        scale = halves_of(scale if order is None else scale[order])
    return TernaryMatrix(Packed(packed, rows, columns, scale, layout.encoding, layout.levels))


def pack_parts(
    parts: Parts, encoding: str, arena: Arena, is_table: bool = False
) -> TernaryMatrix | None:
    """The same of a matrix of MLX's, whose groups are zeros where the scale is 0."""
    words, scales = parts.words, parts.scales
    columns = 4 * words.shape[1]
    group = columns // scales.shape[1]
    source = _Source(Codes(PAIRS, group, group // 4), words, columns, scales, True)
    try:
        _, scale = Parts(parts.name, words[:_FIRST_ROWS], scales[:_FIRST_ROWS]).trits
        return _pack(source, _inputs(scale, columns), encoding, arena, None, is_table)
    except ValueError:
        return None


def _inputs(scale: Floats, columns: int) -> int:
    """How many of a row share a scale."""
    return columns // scale.shape[1] if scale.ndim == 2 else columns


def _pack(
    source: _Source, guess: int, encoding: str, arena: Arena, order: Order | None, is_table: bool
) -> TernaryMatrix | None:
    """guess: inputs that share a scale, as it seems, if no more than these do."""
    codes, data, columns, scales, has_dead = source
    rows, is_grouped, blocks = len(data), is_table or guess < columns, ENCODINGS[encoding]
    if not isinstance(blocks, Blocks) or (blocks.step > 1 and codes.form != SIGNS):
        return None
    layout = PANELS[encoding] if is_grouped else blocks
    if scales is not None and order is not None:
        scales = scales[order]
    packed = arena.empty(layout.nbytes(rows, columns) + SLACK, np.uint8)
    halves = None if codes.scale is None else np.empty((rows, columns // codes.weights), np.float16)
    used = np.empty((rows, columns // codes.weights), np.bool_)
    if has_dead and scales is not None:
        used[:] = scales != 0
    if not pack_codes(layout, codes, data, columns, packed, used, halves, order, has_dead):
        return None
    if halves is None:
        assert scales is not None
        is_used = used if scales.shape[1] > 1 else used.any(axis=1, keepdims=True)
        check_scales(scales[is_used])
        known = np.where(is_used, scales, np.float32(0))
    else:
        known = halves
    group, factors = _joined(known, columns, guess)
    if group < columns and not is_grouped:  # the first rows were others
        return _pack(source, group, encoding, arena, order, is_table)
    scale: npt.NDArray[Any] | None = factors
    if group == columns:
        joined = factors.reshape(-1)[:rows].astype(np.float32)
        scale = row_scales(joined, np.asarray(used.any(axis=1)))
        scale = table_scale(scale, rows, columns) if is_table else scale
    if is_grouped and scale is not None:
        scale = halves_of(scale)
    return TernaryMatrix(Packed(packed, rows, columns, scale, encoding))


def _joined(scales: npt.NDArray[np.floating], columns: int, most: int) -> tuple[int, Floats]:
    """The largest groups, `most` inputs at most, in which scales that are not 0 agree, and their
    scales as `turn_scales` gives them."""
    width = columns // scales.shape[1]
    for group in (columns, *GROUPS):
        if width <= group <= most and columns % group == 0 and group % width == 0:
            factors, flaws = turn_scales(scales, group // width, 1)
            if not flaws & 1:
                break
    return group, factors
