"""three_bit: eight weights in three bytes, 3.0 bits a weight, as codes from 0 to 7: a plane of two
bits and a plane of one.

A row is cut into blocks of 512 weights, three times 64 bytes, in panels (`panels`). Byte m of the
first 64 holds the low two bits of the weights m, m + 64, m + 128 and m + 192 in its bits 0-1, 2-3,
4-5 and 6-7, byte m of the second those of the four weights after them, and byte m of the third the
high bits of all eight. Any byte is a valid one.
"""

from __future__ import annotations

import numpy as np

from ternops.encodings.blocks import PanelTile, join_bits, split_bits
from ternops.encodings.common import Array, no_flaw
from ternops.encodings.panels import Panels

_FIELDS = 8


def _join(codes: Array) -> Array:
    low, high = codes & 3, codes >> 2
    return np.stack([join_bits(low[:4]), join_bits(low[4:]), join_bits(high)])


def _split(table: Array) -> Array:
    low = np.concatenate([split_bits(4, table[0]), split_bits(4, table[1])])
    return low | split_bits(_FIELDS, table[2]) << 2


THREE_BIT = Panels(
    name="three_bit",
    values=tuple(range(-4, 4)),
    codes=8,
    fields=_FIELDS,
    planes=3,
    join=_join,
    split=_split,
    find_flaw=no_flaw,
    unpack_code="two_planes",
    panel_tiles={
        # As nibble's: 2 panels, four lines of each in turn, 91%, eight 87%, a unit's 79%, 4 panels
        # 86%, 3 panels 78%: the sums of two leave the registers some room.
        "generic": PanelTile(streams=2, ahead=2048, run=4),
        # Zen 4, 1 and 2 threads: panel by panel 74 to 76 and 84 to 91%, 2 panels, eight lines of
        # each in turn, 56 to 60 and 45 to 48%, four 38 to 48 and 35 to 55%.
        "avx512vnni@zen4": PanelTile(streams=1, ahead=8192, run=16),
    },
    color="#009E73",
    marker="<",
)
