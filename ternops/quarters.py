"""Trits as transformers packs them: four rows in a byte, a quarter of the matrix apart.

Row i of the packed matrix holds the rows i, i + n, i + 2n and i + 3n, n = ceil(rows / 4), the first
in the lowest two bits, as trit + 1 (transformers, integrations/bitnet.py).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

#: Rows in a byte.
FIELDS = 4


def packed_rows(rows: int) -> int:
    """Of the packed matrix. Rounded up, as transformers writes it (but does not read it)."""
    return -(-rows // FIELDS)


def pack_quarters(trits: npt.NDArray[np.int8]) -> npt.NDArray[np.uint8]:
    """int8 (rows, columns) of -1, 0 and 1 -> uint8 (packed_rows(rows), columns)."""
    step = packed_rows(len(trits))
    packed = np.zeros((step, trits.shape[1]), np.uint8)
    for field in range(FIELDS):
        part = trits[field * step : (field + 1) * step]
        packed[: len(part)] |= (part + np.int8(1)).view(np.uint8) << np.uint8(2 * field)
    return packed


def unpack_quarters(packed: npt.NDArray[Any], rows: int, name: str) -> npt.NDArray[np.int8]:
    """The trits, int8 (rows, columns); what a last field has beyond them is left out.

    Raises ValueError, beginning with the name, for a code that stands for no trit.
    """
    step = len(packed)
    trits = np.empty((FIELDS * step, packed.shape[1]), np.uint8)
    for field in range(FIELDS):
        codes = trits[field * step : (field + 1) * step]
        np.right_shift(packed, 2 * field, out=codes)
        codes &= 3
        if codes.size and codes.max() == 3:
            i, j = np.argwhere(codes == 3)[0]
            raise ValueError(
                f"{name} holds the code 3 at bit {2 * field} of [{i}, {j}], expected 0, 1 or 2"
            )
        codes -= 1
    return trits[:rows].view(np.int8)
