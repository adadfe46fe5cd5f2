"""two_bit: four trits a byte, 2.0 bits a weight, as the codes 0, 1, 2 for -1, 0, +1.

A row is cut into blocks of 256 weights, 64 bytes (one cache line). Byte m of a block holds the
weights m, m + 64, m + 128 and m + 192 in its bits 0-1, 2-3, 4-5 and 6-7, so that one mask takes
64 neighbouring weights out of a vector. The last, shorter block of r weights has the stride
s = ceil(r / 4) instead of 64 and takes s bytes: a row is ceil(k / 4) bytes long. Codes of no
weight are 0. SLACK bytes after the last row let a kernel read whole vectors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

BLOCK = 256
BLOCK_BYTES = 64
FIELDS = 4
SLACK = 64


def row_bytes(columns: int) -> int:
    """Bytes of one packed row."""
    return -(-columns // FIELDS)


def pack(trits: npt.NDArray[np.int8]) -> npt.NDArray[np.uint8]:
    """int8 (rows, columns) of -1, 0, 1 -> uint8 (rows * row_bytes + SLACK,)."""
    rows, columns = trits.shape
    full, rest = divmod(columns, BLOCK)
    packed = np.zeros(rows * row_bytes(columns) + SLACK, np.uint8)
    table = packed[: rows * row_bytes(columns)].reshape(rows, row_bytes(columns))
    codes = (trits + 1).view(np.uint8)
    blocks = codes[:, : full * BLOCK].reshape(rows, full, FIELDS, BLOCK_BYTES)
    table[:, : full * BLOCK_BYTES] = _join(blocks).reshape(rows, full * BLOCK_BYTES)
    if rest:
        stride = row_bytes(rest)
        tail = np.zeros((rows, FIELDS * stride), np.uint8)
        tail[:, :rest] = codes[:, full * BLOCK :]
        table[:, full * BLOCK_BYTES :] = _join(tail.reshape(rows, FIELDS, stride))
    return packed


def unpack(packed: npt.NDArray[np.uint8], rows: int, columns: int) -> npt.NDArray[np.int8]:
    """The inverse of `pack`: int8 (rows, columns)."""
    full, rest = divmod(columns, BLOCK)
    table = packed[: rows * row_bytes(columns)].reshape(rows, row_bytes(columns))
    trits = np.empty((rows, columns), np.int8)
    blocks = table[:, : full * BLOCK_BYTES].reshape(rows, full, BLOCK_BYTES)
    trits[:, : full * BLOCK] = _split(blocks).reshape(rows, full * BLOCK)
    if rest:
        tail = _split(table[:, full * BLOCK_BYTES :]).reshape(rows, FIELDS * row_bytes(rest))
        trits[:, full * BLOCK :] = tail[:, :rest]
    return trits


def place(activations: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
    """Activations (m, k) in the order in which a kernel meets them: (m, ceil(k / 256) * 256).

    Whole blocks stay as they are; in the last one, field f's activations start at 64 f, and zeros
    stand where the vector holds no weight of this row.
    """
    m, columns = activations.shape
    full, rest = divmod(columns, BLOCK)
    placed = np.zeros((m, -(-columns // BLOCK) * BLOCK), np.int8)
    placed[:, : full * BLOCK] = activations[:, : full * BLOCK]
    stride = row_bytes(rest)
    for field in range(FIELDS if rest else 0):
        part = activations[:, full * BLOCK :][:, field * stride : (field + 1) * stride]
        start = full * BLOCK + field * BLOCK_BYTES
        placed[:, start : start + part.shape[1]] = part
    return placed


def check(packed: npt.NDArray[np.uint8]) -> None:
    """Raise ValueError if any code is 3, which stands for no trit."""
    for start in range(0, len(packed), 1 << 20):
        part = packed[start : start + (1 << 20)]
        if np.any(part & (part >> 1) & 0x55):
            raise ValueError("packed: holds the code 3, expected only 0, 1 and 2 (not two_bit?)")


def _join(codes: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
    """(..., FIELDS, n) codes -> (..., n) bytes."""
    return codes[..., 0, :] | codes[..., 1, :] << 2 | codes[..., 2, :] << 4 | codes[..., 3, :] << 6


def _split(table: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
    """(..., n) bytes -> (..., FIELDS, n) trits."""
    shifts = np.arange(0, 8, 2, dtype=np.uint8)[:, None]
    return (table[..., None, :] >> shifts & 3).astype(np.int8) - 1
