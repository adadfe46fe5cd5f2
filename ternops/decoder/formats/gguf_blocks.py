"""Ternary blocks of GGUF files, as trits and scales.

The layouts are those of ggml-org/llama.cpp (ggml-quants.c: TQ1_0, TQ2_0, Q1_0, Q2_0), of
microsoft/BitNet (src/ggml-bitnet-mad.cpp: I2_S), of ikawrakow/ik_llama.cpp (iqk_quantize.cpp:
IQ1_BN, IQ2_BN) and of PrismML-Eng/llama.cpp (PQ2_0, PTQ1_0).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ternops.decoder.formats.codes import (
    SHIFTS,
    WEIGHTS_AT_ONCE,
    Bytes,
    Code3,
    Mask,
    fields,
    neighbours,
    signs,
    used_blocks,
)
from ternops.decoder.formats.gguf_types import Kind
from ternops.decoder.formats.scales import Floats, Trits, check_scales, fewest_scales
from ternops.packing import DIGITS, FIELDS, PAIRS, SIGNS, Codes

_POWERS = np.array([1, 3, 9, 27, 81], np.uint8)[:, None]


class Layout(NamedTuple):
    """How a type holds trits.

    trits: int8 (rows, blocks, weights) of uint8 (rows, blocks, bytes), the bytes of a block but for
    its scale. scale: where in a block that is, a float16; None for one before each row, which is
    then the whole prefix: float16 or float32.
    """

    trits: Callable[[Bytes], Trits]
    scale: slice | None
    codes: slice = slice(None)


def decode(kind: Kind, data: Bytes, shape: tuple[int, int], first: int = 0) -> tuple[Trits, Floats]:
    """Trits of the shape and the scale of a tensor, as few scales as give back every weight.

    kind: one of TERNARY. data: the tensor's bytes, or those of its rows from `first` on.
    Raises ValueError for what holds no trits, naming the row, or no positive scale.
    """
    if kind.name == "I2_S":
        return _decode_i2_s(kind, data, shape)
    layout, (rows, columns) = LAYOUTS[kind.name], shape
    table = data.reshape(rows, -1)
    blocks = table[:, kind.prefix :].reshape(rows, columns // kind.weights, kind.size)
    trits = np.empty(shape, np.int8)
    used: Mask = np.empty(blocks.shape[:2], bool)
    step = max(1, WEIGHTS_AT_ONCE // columns)
    for start in range(0, rows, step):
        part = slice(start, start + step)
        try:
            found = layout.trits(np.ascontiguousarray(blocks[part, :, layout.codes]))
        except Code3 as error:
            raise ValueError(
                f"holds the code 3 in row {first + start + error.row}, expected only 0, 1 and 2 "
                "(not ternary, or another interleave?)"
            ) from None
        used[part] = used_blocks(found)
        trits[part] = found.reshape(-1, columns)
    if layout.scale is None:
        scales = scales_of(kind, data, rows)
        used = np.asarray(used.any(axis=1, keepdims=True))
    else:
        scales = floats_of(blocks[:, :, layout.scale])
        if kind.name == "Q1_0" and not scales.all():  # the only zeros that signs can have
            trits.reshape(*blocks.shape[:2], kind.weights)[scales == 0] = 0
            used &= scales != 0
    return trits, fewest_scales(scales, used, columns)


def has_no_zeros(kind: Kind, data: Bytes) -> bool:
    """Whether all scales of a tensor of Q1_0 multiply anything."""
    return bool(floats_of(data.reshape(-1, 1, kind.size)[:, :, _FIRST]).all())


def scales_of(kind: Kind, data: Bytes, rows: int) -> Floats:
    """(rows, 1) of a tensor whose blocks have none: one before each row, or one of all, behind
    the blocks."""
    if kind.prefix:
        return floats_of(data.reshape(rows, 1, -1)[:, :, : kind.prefix])
    scale = floats_of(data[len(data) - kind.tail :][:4])
    return np.full((rows, 1), scale, np.float32)


def floats_of(data: Bytes) -> Floats:
    """The number in the last axis, float16 or float32."""
    return np.ascontiguousarray(data).view(f"<f{data.shape[-1]}")[..., 0].astype(np.float32)


def _decode_i2_s(kind: Kind, data: Bytes, shape: tuple[int, int]) -> tuple[Trits, Floats]:
    """Blocks run on over the ends of rows. Other interleaves that were written under the same type
    cannot be distinguished if their bytes are valid here."""
    count = shape[0] * shape[1]
    blocks = data[: count // 4].reshape(-1, 1, 32)
    trits = np.empty((len(blocks), 128), np.int8)
    step = WEIGHTS_AT_ONCE // 128
    for start in range(0, len(blocks), step):
        try:
            trits[start : start + step] = fields(blocks[start : start + step], SHIFTS[::-1])[:, 0]
        except Code3 as error:
            row = (start + error.row) * 128 // shape[1]
            raise ValueError(
                f"holds the code 3 in row {row}, expected only 0, 1 and 2 (another interleave?)"
            ) from None
    scale = scales_of(kind, data, 1)[0, 0]
    check_scales(scale)
    return trits.reshape(shape), np.asarray(scale)


def _digits(codes: Bytes, powers: npt.NDArray[np.uint8]) -> Bytes:
    """uint8 (rows, blocks, powers, bytes) in 0..2 of (rows, blocks, bytes).

    A byte is ceil(q * 256 / 243) for five digits q in base 3: times 3^n modulo 256 leaves digit n
    on top, the first one the most significant.
    """
    return ((codes[:, :, None] * powers).astype(np.uint16) * 3 >> 8).astype(np.uint8)


def _staged(*stages: tuple[int, int, int]) -> Callable[[Bytes], Trits]:
    """Of bytes [first, last) with a number of digits: first all their digits 0, then 1, ..."""

    def trits(codes: Bytes) -> Trits:
        parts = [
            _digits(codes[:, :, first:last], _POWERS[:count]).reshape(*codes.shape[:2], -1)
            for first, last, count in stages
        ]
        return np.concatenate(parts, axis=2).view(np.int8) - np.int8(1)

    return trits


def _iq1_bn(codes: Bytes) -> Trits:
    """13 bytes: in three of the first twelve 15 weights, the first the least significant; the 16th
    of each 16 is a digit of the last byte, in the same order."""
    five = np.moveaxis(_digits(codes[:, :, :12], _POWERS[::-1]), 2, 3)
    four = np.moveaxis(_digits(codes[:, :, 12:], _POWERS[:0:-1]), 2, 3)
    shape = *codes.shape[:2], 4
    found = np.concatenate([five.reshape(*shape, 15), four.reshape(*shape, 1)], axis=3)
    return found.reshape(*codes.shape[:2], 64).view(np.int8) - np.int8(1)


def _tq2_0(codes: Bytes) -> Trits:
    halves = codes.reshape(len(codes), -1, 32)
    return fields(halves).reshape(*codes.shape[:2], 256)


_FIRST, _LAST = slice(0, 2), slice(-2, None)
_Q2_0 = Layout(neighbours, _FIRST, slice(2, None))

#: By the name of the type.
LAYOUTS = {
    "TQ1_0": Layout(_staged((0, 32, 5), (32, 48, 5), (48, 52, 4)), _LAST, slice(-2)),
    "TQ2_0": Layout(_tq2_0, _LAST, slice(-2)),
    "Q1_0": Layout(signs, _FIRST, slice(2, None)),
    "Q2_0": _Q2_0,
    "PQ2_0": _Q2_0,
    "PTQ1_0": Layout(_staged((0, 16, 5), (16, 24, 5), (24, 26, 4)), _LAST, slice(-2)),
    "IQ1_BN": Layout(_iq1_bn, None),
    "IQ2_BN": Layout(fields, None),
}
_PAIRS = Codes(PAIRS, codes=2, scale=0)
#: Those that kernels pack, as what they read.
PACKED = {
    "TQ1_0": Codes(DIGITS, scale=52, stages=((32, 5), (16, 5), (4, 4))),
    "TQ2_0": Codes(FIELDS, scale=64, apart=32),
    "Q1_0": Codes(SIGNS, codes=2, scale=0),
    "Q2_0": _PAIRS,
    "PQ2_0": _PAIRS,
    "PTQ1_0": Codes(DIGITS, scale=26, stages=((16, 5), (8, 5), (2, 4))),
    "IQ2_BN": Codes(FIELDS, apart=16),
    "I2_S": Codes(FIELDS, apart=32, turned=3),
}
#: The types that hold trits.
TERNARY = (*LAYOUTS, "I2_S")
