"""nibble: two weights a byte, 4.0 bits a weight, as codes from 0 to 15 of levels that a matrix has.

A row is cut into blocks of 128 weights, 64 bytes, in panels (`panels`). Byte m of a block holds the
weight m in its low four bits and the weight m + 64 in its high ones. Levels are any integers from
-127 to 127, so that a byte shuffle turns codes into what the dot instruction takes: those of int4,
NF4, FP4 (E2M1, times 2), MXFP4 and NVFP4, and powers of two. Any byte is a valid one.
"""

from __future__ import annotations

from functools import partial

from ternops.encodings.blocks import PanelTile, join_bits, split_bits
from ternops.encodings.common import no_flaw
from ternops.encodings.panels import Panels

_FIELDS = 2


NIBBLE = Panels(
    name="nibble",
    values=tuple(range(-8, 8)),
    codes=16,
    is_table=True,
    fields=_FIELDS,
    join=join_bits,
    split=partial(split_bits, _FIELDS),
    find_flaw=no_flaw,
    unpack_code="bit_fields",
    panel_tiles={
        # An Intel server with AMX, weights in DRAM, group 128, of the fastest probe with 2 threads:
        # 2 panels, four lines of each in turn, 83%, a unit's 85%, 3 panels 76 to 83%, 4 panels 81%.
        "generic": PanelTile(streams=2, ahead=2048, run=4),
        # Zen 4, of the fastest probe, 1 and 2 threads, group 32: panel by panel 72 to 74 and 71 to
        # 73%, 2 or 3 panels 60 to 66 and 56 to 61%; group 128: 66 to 70 and 61 to 70%, 3 panels 73
        # to 81 and 67 to 74%, 2 panels 49 to 55%. Files have groups of 32.
        "avx512vnni@zen4": PanelTile(streams=1, ahead=8192, run=16),
    },
    usual_groups=(16, 32, 64, 128),
    color="#CC79A7",
    marker="p",
)
