"""two_bit: four weights a byte, 2.0 bits a weight, as the codes 0, 1, 2 for -1, 0, +1, or 0 to 3
for four levels.

A row is cut into blocks of 256 weights, 64 bytes (`blocks`). Byte m of a block holds the weights
m, m + 64, m + 128 and m + 192 in its bits 0-1, 2-3, 4-5 and 6-7, so that one mask takes 64
neighbouring weights out of a vector.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from ternops.encodings.blocks import Blocks, GemvTile, PanelTile, join_bits, split_bits
from ternops.encodings.common import Array

_FIELDS = 4


def _find_flaw(piece: Array) -> str | None:
    return "the code 3, expected only 0, 1 and 2" if np.any(piece & (piece >> 1) & 0x55) else None


TWO_BIT = Blocks(
    name="two_bit",
    codes=4,
    fields=_FIELDS,
    join=join_bits,
    split=partial(split_bits, _FIELDS),
    find_flaw=_find_flaw,
    unpack_code="bit_fields",
    tiles={
        # Small enough for any register file.
        "generic": GemvTile(rows=1, apart=1, ahead=8192),
        # int16 partial sums have no room for codes times 16.
        "avx2": GemvTile(rows=2, apart=2),
        # 8 independent chains.
        "avxvnni": GemvTile(rows=2, apart=4),
        "avx512vnni": GemvTile(rows=2, apart=4),
        # Zen 4, in the second-level cache: 1.15 times as fast as 2 rows.
        "avx512vnni@zen4": GemvTile(rows=4, apart=4, ahead=1024),
        # Codes times 16 fit int16 for the one field that has them; its sums take registers as well.
        "neon": GemvTile(rows=2, apart=3),
        # A code times 64 would not fit a signed byte; four rows share the activations' loads.
        "neon-dotprod": GemvTile(rows=4, apart=3, ahead=2048),
    },
    batch_rows={},
    pair_apart={"generic": 2},
    stream_tiles={
        # Sapphire Rapids, weights in DRAM, share of the fastest probe, 1 and 2 threads: 4 rows of
        # 1 apart in panels of 768 KB, four lines of each at a time, 95 to 97%, a line 92 to 96%; of
        # 2 apart 94 to 96%; without panels 92 to 94%; 2 rows of 4 apart 90 to 95%.
        "avx512vnni": GemvTile(rows=4, apart=1, ahead=2048, panel=3 << 18, run=4),
        # Zen 5: narrow vectors leave memory the most bandwidth, two streams come nearest to it.
        "avx512vnni@zen": GemvTile(rows=2, apart=4, is_narrow=True),
        # Zen 4, weights in DRAM, share of the fastest probe, three shapes, 1 and 2 threads: 8 rows
        # of 1 apart 78 to 89 and 88 to 99%, 12 rows as many, 4 rows 65 to 70 and 66 to 93%, 2 rows
        # in narrow vectors 55 to 78 and 76 to 85%.
        "avx512vnni@zen4": GemvTile(rows=8, apart=1, ahead=512),
    },
    has_narrow=True,
    panel_tiles={
        # An Intel server with AMX, weights in DRAM, group 128, of the bandwidth without groups (1
        # and 2 threads): 3 panels 95 and 88%, 2 or 4 panels 91 and 84 to 87%; a panel's whole
        # blocks instead of 4 lines in turn 83 and 78%.
        "generic": PanelTile(streams=3, ahead=2048, run=4),
        # Zen 4, of the fastest probe, 1 and 2 threads: 2 panels 76 to 89 and 82 to 87%, 3 panels 56
        # to 66 and 59 to 71%, eight lines in turn 53 to 61%.
        "avx512vnni@zen4": PanelTile(streams=2, ahead=2048, run=4),
    },
    color="#0072B2",
    marker="o",
)
