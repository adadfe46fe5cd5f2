"""Bytes of one- and two-bit codes, as trits: what several formats share."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ternops.decoder.formats.scales import Trits

Bytes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

#: Weights that readers turn into int8 at a time, so that these stay in cache.
WEIGHTS_AT_ONCE = 1 << 22
SHIFTS = np.array([0, 2, 4, 6], np.uint8)[:, None]


class Code3(Exception):
    """Both bits of a code are set, which is no trit; in which row."""

    def __init__(self, row: int) -> None:
        self.row = row


def check_codes(codes: Bytes) -> None:
    """Raises Code3 for bytes (rows, blocks, a multiple of 8) of two-bit codes that hold a 3."""
    words = codes.view(np.uint64)
    bad = words & words >> np.uint64(1) & np.uint64(0x5555555555555555)
    if bad.any():
        raise Code3(int(np.argwhere(bad)[0, 0]))


def fields(codes: Bytes, shifts: Bytes = SHIFTS) -> Trits:
    """Of two-bit fields: first those at the first shift in all bytes, then at the next one, ..."""
    check_codes(codes)
    found = (codes[:, :, None] >> shifts & np.uint8(3)).view(np.int8) - np.int8(1)
    return found.reshape(*codes.shape[:2], -1)


def neighbours(codes: Bytes) -> Trits:
    """Of two-bit fields: those of one byte side by side, the lowest bits first."""
    check_codes(codes)
    return _PAIRS.take(codes).view(np.int8)


def signs(codes: Bytes) -> Trits:
    """1 and -1 of bits, those of one byte side by side, the lowest bit first."""
    return _BITS.take(codes).view(np.int8)


def used_blocks(trits: Trits) -> Mask:
    """Which blocks, a multiple of 8 weights, have one that is not 0."""
    return np.asarray(trits.view(np.uint64).any(axis=2))


def _codes(bits: int) -> Bytes:
    """The codes of each byte: uint8 (256, 8 / bits)."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    return np.arange(256, dtype=np.uint8)[:, None] >> shifts & np.uint8(2**bits - 1)


#: The values of each byte's codes, int8 each, as one word.
_PAIRS = (_codes(2) - np.uint8(1)).view(np.uint32).reshape(256)
_BITS = (_codes(1) * np.uint8(2) - np.uint8(1)).view(np.uint64).reshape(256)
