"""base3: five trits a byte, 1.6 bits a weight, as a number of five digits in base 3.

A row is cut into blocks of 320 weights, 64 bytes (`blocks`). With the digits t = w + 1, byte m of
a block holds the weights m, m + 64, m + 128, m + 192 and m + 256 as the number
27 t[m] + 9 t[m + 64] + 3 t[m + 128] + t[m + 192] + 81 t[m + 256], which is 242 at most.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ternops.encodings.blocks import BLOCK_BYTES, Blocks
from ternops.encodings.common import PIECE, SLACK, Array, digits, number, spans

__all__ = [
    "BLOCK", "BLOCK_BYTES", "FIELDS", "SLACK",
    "check", "nbytes", "pack", "place", "row_bytes", "unpack",
]  # fmt: skip

FIELDS = 5
BLOCK = FIELDS * BLOCK_BYTES
_GREATEST = 3**FIELDS - 1


def check(packed: npt.NDArray[np.uint8], rows: int, columns: int) -> None:
    """Raise ValueError if any byte is above 242, which stands for no five trits."""
    for start, stop in spans(0, nbytes(rows, columns), PIECE):
        greatest = packed[start:stop].max()
        if greatest > _GREATEST:
            raise ValueError(f"packed: holds the byte {greatest}, expected 0 to 242 (not base3?)")


def _join(codes: Array) -> Array:
    # The last field is the highest digit, then come the others in their order.
    return number(np.roll(codes, 1, axis=0))


def _split(table: Array) -> Array:
    return np.roll(digits(table, FIELDS), -1, axis=0)


_BLOCKS = Blocks(FIELDS, _join, _split)
row_bytes, nbytes, place = _BLOCKS.row_bytes, _BLOCKS.nbytes, _BLOCKS.place
pack, unpack = _BLOCKS.pack, _BLOCKS.unpack
