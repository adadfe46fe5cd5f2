"""eight_bit: a weight a byte, 8.0 bits a weight, the integers from -127 to 127, as 127 more.

A row is cut into blocks of 64 weights, 64 bytes, in panels (`panels`). The byte 255 is no weight.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from ternops.encodings.blocks import PanelTile, join_bits, split_bits
from ternops.encodings.common import Array
from ternops.encodings.encoding import MAX_LEVEL
from ternops.encodings.panels import Panels

_FIELDS = 1


def _find_flaw(piece: Array) -> str | None:
    found = np.any(piece > 2 * MAX_LEVEL)
    return f"the byte 255, expected 0 to {2 * MAX_LEVEL}" if found else None


EIGHT_BIT = Panels(
    name="eight_bit",
    values=tuple(range(-MAX_LEVEL, MAX_LEVEL + 1)),
    fields=_FIELDS,
    join=join_bits,
    split=partial(split_bits, _FIELDS),
    find_flaw=_find_flaw,
    unpack_code="bit_fields",
    panel_tiles={
        "generic": PanelTile(streams=3, ahead=2048, run=4),
        # Zen 4, 1 and 2 threads: panel by panel 94 to 98 and 83 to 93%, 2 panels, eight lines of
        # each in turn, 66 to 79 and 61 to 77%, 3 panels 70 and 53 to 66%.
        "avx512vnni@zen4": PanelTile(streams=1, ahead=4096, run=16),
    },
    usual_groups=(32, 64, 128),
    color="#F0E442",
    marker="P",
)
