"""TQ1_0, TQ2_0 and I2_S: what other engines' ternary blocks hold, as trits and scales.

The layouts are those of ggml-org/llama.cpp (ggml-quants.c: TQ1_0 and TQ2_0) and of
microsoft/BitNet (src/ggml-bitnet-mad.cpp: I2_S).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ternops.decoder.formats.ternary_floats import row_scales

#: Weights and bytes of a TQ block; both end with a float16 scale.
TQ_WEIGHTS, TQ1_0_BYTES, TQ2_0_BYTES = 256, 54, 66
#: Weights and bytes of an I2_S block, and the bytes after the last of them.
I2_S_WEIGHTS, I2_S_BYTES = 128, 32

_POWERS = np.array([1, 3, 9, 27, 81], np.uint8)[:, None]
_SHIFTS = np.array([0, 2, 4, 6], np.uint8)[:, None]
_ROWS_AT_ONCE = 1 << 22  # weights

Trits = npt.NDArray[np.int8]
Floats = npt.NDArray[np.float32]


def decode_tq(blocks: npt.NDArray[np.uint8], shape: tuple[int, int]) -> tuple[Trits, Floats]:
    """Trits of the shape and the scale (or one a row) of TQ1_0 or TQ2_0 blocks.

    blocks: uint8 (rows, blocks in a row, 54 for TQ1_0 or 66 for TQ2_0).
    Raises ValueError for what holds no trits or for scales that differ within a row.
    """
    digits = _tq1_digits if blocks.shape[2] == TQ1_0_BYTES else _tq2_digits
    trits = np.empty(shape, np.int8)
    is_zero = np.empty(blocks.shape[:2], bool)
    rows = max(1, _ROWS_AT_ONCE // shape[1])
    for start in range(0, shape[0], rows):
        part = slice(start, start + rows)
        codes = digits(blocks[part, :, :-2]).view(np.int8)
        codes -= 1
        is_zero[part] = ~codes.any(axis=2)
        trits[part] = codes.reshape(-1, shape[1])
    scales = np.ascontiguousarray(blocks[:, :, -2:]).view("<f2")[:, :, 0].astype(np.float32)
    return trits, _common_scale(scales, is_zero)


def decode_i2_s(data: npt.NDArray[np.uint8], shape: tuple[int, int]) -> tuple[Trits, Floats]:
    """Trits of the shape and the scale of an I2_S tensor.

    data: uint8 (weights/4 + 32,). Blocks run on over the ends of rows.
    Raises ValueError for what holds no trits or no positive scale. Other interleaves that were
    written under the same type cannot be distinguished if their bytes are valid here.
    """
    count = shape[0] * shape[1]
    blocks = data[: count // 4].reshape(-1, I2_S_BYTES)
    trits = np.empty((len(blocks), I2_S_WEIGHTS), np.int8)
    step = _ROWS_AT_ONCE // I2_S_WEIGHTS
    for start in range(0, len(blocks), step):
        codes = _two_bit_codes(blocks[start : start + step, None, :], _SHIFTS[::-1])
        codes = codes.reshape(-1, I2_S_WEIGHTS)
        trits[start : start + step] = codes.view(np.int8) - np.int8(1)
    scale = data[count // 4 : count // 4 + 4].copy().view("<f4")[0]
    check_scales(scale)
    return trits.reshape(shape), np.asarray(scale, np.float32)


def check_scales(scales: Any) -> None:
    """Raise ValueError for a scale that is not positive and finite."""
    bad = np.extract(~(np.isfinite(scales) & (np.asarray(scales) > 0)), scales)
    if bad.size:
        raise ValueError(f"holds the scale {bad[0]}, expected positive numbers")


def _tq1_digits(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """uint8 (rows, blocks, 256) in 0..2 of (rows, blocks, 52).

    A byte is ceil(q * 256 / 243) for five digits q in base 3: times 3^n modulo 256 leaves digit n
    on top, the first weight the most significant.
    """
    parts = []
    for first, last, fields in ((0, 32, 5), (32, 48, 5), (48, 52, 4)):
        part = codes[:, :, None, first:last] * _POWERS[:fields]
        parts.append(part.reshape(*codes.shape[:2], -1))
    return (np.concatenate(parts, axis=2).astype(np.uint16) * 3 >> 8).astype(np.uint8)


def _tq2_digits(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """uint8 (rows, blocks, 256) in 0..2 of (rows, blocks, 64)."""
    halves = codes.reshape(*codes.shape[:2], 2, 1, 32)
    return _two_bit_codes(halves, _SHIFTS).reshape(*codes.shape[:2], TQ_WEIGHTS)


def _two_bit_codes(
    codes: npt.NDArray[np.uint8], shifts: npt.NDArray[np.uint8]
) -> npt.NDArray[np.uint8]:
    fields: npt.NDArray[np.uint8] = codes >> shifts & np.uint8(3)
    if (fields == 3).any():
        raise ValueError("holds the code 3, expected only 0, 1 and 2 (another interleave?)")
    return fields


def _common_scale(scales: Floats, is_zero: npt.NDArray[np.bool_]) -> Floats:
    """One scale, shape (), or one a row, of the scales (rows, blocks) of blocks.

    Blocks of zeros say nothing: quantisers leave any scale in them.
    """
    used = ~is_zero
    check_scales(scales[used])
    least = np.where(used, scales, np.float32(np.inf)).min(axis=1)
    most = np.where(used, scales, np.float32(0)).max(axis=1)
    rows: Any = used.any(axis=1)
    mixed = np.flatnonzero(rows & (least != most))
    if len(mixed):
        row = int(mixed[0])
        raise ValueError(
            f"has blocks of the scales {least[row]} and {most[row]} in row {row}, expected one "
            "scale a row (quantised from weights that are not ternary?)"
        )
    return row_scales(most, rows)
