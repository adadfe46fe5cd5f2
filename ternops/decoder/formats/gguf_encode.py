"""Trits and scales as blocks of llama.cpp's types: the type whose scales are the matrix's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ternops.decoder.formats.codes import WEIGHTS_AT_ONCE, Bytes
from ternops.decoder.formats.scales import Floats, Trits, products

_SHIFTS = np.arange(0, 8, 2, dtype=np.uint8)


class _Type(NamedTuple):
    """A type that is written. blocks: uint8 (blocks, size) of trits (blocks, weights) and float16
    scales, as uint8 (blocks, 2)."""

    number: int
    weights: int
    blocks: Callable[[Trits, Bytes], Bytes]


class Encoded(NamedTuple):
    """A matrix as it is written. number: of its type; factor: what its blocks are multiplied by, in
    a tensor of its own, None for 1; rounded: whether scales were rounded to float16."""

    number: int
    data: npt.NDArray[Any]
    factor: np.float32 | None = None
    rounded: bool = False


def encode(trits: Trits, scale: Floats, base3: bool = False, with_factor: bool = True) -> Encoded:
    """A matrix in the type that holds its scales, whose weights come back as they are.

    base3: 1.6875 bits a weight instead of 2.0625, where the scales allow blocks of 256.
    One scale that float16 has not becomes a factor, if there may be one; others are rounded, as
    llama.cpp's own quantiser does. What has rows or groups that no type's blocks fill is float16.
    """
    columns = trits.shape[1]
    with np.errstate(over="ignore"):
        half = scale.astype(np.float16)
    factor, rounded = None, not np.array_equal(half.astype(np.float32), scale)
    if rounded and scale.ndim == 0 and with_factor:
        factor, half, rounded = np.float32(scale), np.ones((), np.float16), False
    if not np.isfinite(half).all() or not half.all():
        raise ValueError(f"has the scale {_worst(scale)}, expected what float16 can hold")
    group = columns // scale.shape[1] if scale.ndim == 2 else columns
    kind = next((each for each in _types(trits, base3)
                 if columns % each.weights == 0 and group % each.weights == 0), None)  # fmt: skip
    if kind is None:
        floats = products(trits, half.astype(np.float32)).astype(np.float16)
        return Encoded(1, floats, factor, rounded)
    scales = np.broadcast_to(
        half.reshape(-1, 1) if half.ndim < 2 else np.repeat(half, group // kind.weights, axis=1),
        (len(trits), columns // kind.weights),
    )
    step = max(1, WEIGHTS_AT_ONCE // columns)
    parts = []
    for start in range(0, len(trits), step):
        part = slice(start, start + step)
        blocks = trits[part].reshape(-1, kind.weights)
        each = np.ascontiguousarray(scales[part]).reshape(-1, 1).view(np.uint8)
        parts.append(kind.blocks(blocks, each))
    return Encoded(kind.number, np.concatenate(parts).reshape(len(trits), -1), factor, rounded)


def _worst(scale: Floats) -> np.float32:
    """The one farthest from 1."""
    flat = scale.reshape(-1)
    with np.errstate(divide="ignore"):
        return np.float32(flat[np.abs(np.log(np.abs(flat))).argmax()])


def _types(trits: Trits, base3: bool) -> tuple[_Type, ...]:
    """Those that may be tried, in order."""
    ternary = (_TQ1_0 if base3 else _TQ2_0, _Q2_0)
    return (_Q1_0, *ternary) if trits.all() else ternary


def _tq1_0(trits: Trits, scales: Bytes) -> Bytes:
    """Five trits a byte in base 3, the first the most significant: of 160 weights, of 80, and four
    of the last 16."""
    parts = [
        _base3(trits[:, first:last].reshape(len(trits), count, -1))
        for first, last, count in ((0, 160, 5), (160, 240, 5), (240, 256, 4))
    ]
    return np.hstack([*parts, scales])


def _base3(digits: Trits) -> Bytes:
    """Bytes of trits (blocks, digits, bytes): ceil(q * 256 / 243)."""
    value = np.zeros((len(digits), digits.shape[2]), np.uint16)
    for digit in range(5):
        value *= 3
        if digit < digits.shape[1]:
            value += (digits[:, digit] + np.int8(1)).view(np.uint8)
    return ((value.astype(np.uint32) * 256 + 242) // 243).astype(np.uint8)


def _tq2_0(trits: Trits, scales: Bytes) -> Bytes:
    """In each half of 128, byte m holds the weights m, m + 32, m + 64 and m + 96."""
    codes = (trits + np.int8(1)).view(np.uint8).reshape(-1, 2, 4, 32)
    data = np.bitwise_or.reduce(codes << _SHIFTS[:, None], axis=2)
    return np.hstack([data.reshape(len(trits), -1), scales])


def _q2_0(trits: Trits, scales: Bytes) -> Bytes:
    """Byte m holds the weights 4m to 4m + 3."""
    codes = (trits + np.int8(1)).view(np.uint8).reshape(len(trits), -1, 4)
    return np.hstack([scales, np.bitwise_or.reduce(codes << _SHIFTS, axis=2)])


def _q1_0(trits: Trits, scales: Bytes) -> Bytes:
    """Bit j % 8 of byte j / 8: whether weight j is 1, not -1."""
    return np.hstack([scales, np.packbits(trits > 0, axis=1, bitorder="little")])


_TQ1_0, _TQ2_0 = _Type(34, 256, _tq1_0), _Type(35, 256, _tq2_0)
_Q1_0, _Q2_0 = _Type(41, 128, _q1_0), _Type(42, 64, _q2_0)
