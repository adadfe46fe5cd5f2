"""two_bit: four trits a byte, 2.0 bits a weight, as the codes 0, 1, 2 for -1, 0, +1.

A row is cut into blocks of 256 weights, 64 bytes (`blocks`). Byte m of a block holds the weights
m, m + 64, m + 128 and m + 192 in its bits 0-1, 2-3, 4-5 and 6-7, so that one mask takes 64
neighbouring weights out of a vector.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ternops.encodings.blocks import BLOCK_BYTES, Blocks
from ternops.encodings.common import PIECE, SLACK, Array, spans

__all__ = [
    "BLOCK", "BLOCK_BYTES", "FIELDS", "SLACK",
    "check", "nbytes", "pack", "place", "row_bytes", "unpack",
]  # fmt: skip

FIELDS = 4
BLOCK = FIELDS * BLOCK_BYTES


def check(packed: npt.NDArray[np.uint8], rows: int, columns: int) -> None:
    """Raise ValueError if any code is 3, which stands for no trit."""
    for start, stop in spans(0, nbytes(rows, columns), PIECE):
        part = packed[start:stop]
        if np.any(part & (part >> 1) & 0x55):
            raise ValueError("packed: holds the code 3, expected only 0, 1 and 2 (not two_bit?)")


def _join(codes: Array) -> Array:
    return codes[0] | codes[1] << 2 | codes[2] << 4 | codes[3] << 6


def _split(table: Array) -> Array:
    return np.stack([table >> 2 * field & 3 for field in range(FIELDS)])


_BLOCKS = Blocks(FIELDS, _join, _split)
row_bytes, nbytes, place = _BLOCKS.row_bytes, _BLOCKS.nbytes, _BLOCKS.place
pack, unpack = _BLOCKS.pack, _BLOCKS.unpack
