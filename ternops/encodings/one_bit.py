"""one_bit: eight signs a byte, 1.0 bit a weight, as the codes 0 and 1 for -1 and +1.

A row is cut into blocks of 512 weights, 64 bytes (`blocks`). Byte m of a block holds the weights
m, m + 64, ..., m + 448 in its bits 0 to 7, so that one mask takes 64 neighbouring weights out of a
vector. Any byte is a valid one.
"""

from __future__ import annotations

from functools import partial

from ternops.encodings.blocks import Blocks, GemvTile, PanelTile, join_bits, split_bits
from ternops.encodings.common import no_flaw

_FIELDS = 8


ONE_BIT = Blocks(
    name="one_bit",
    values=(-1, 1),
    fields=_FIELDS,
    join=join_bits,
    split=partial(split_bits, _FIELDS),
    find_flaw=no_flaw,
    unpack_code="bit_fields",
    tiles={
        "generic": GemvTile(rows=1, apart=1, ahead=8192),
        # int16 partial sums have room for codes times 8.
        "avx2": GemvTile(rows=1, apart=4, ahead=8192),
        # 16 registers: with four accumulators a row, LLVM spills one.
        "avxvnni": GemvTile(rows=2, apart=2),
        # Sapphire Rapids, in the second-level cache: 23 GB/s, with 2 rows of 8 apart 22.
        "avx512vnni": GemvTile(rows=4, apart=4, ahead=2048, panel=3 << 18),
        "avx512vnni@zen": GemvTile(rows=2, apart=8),
        # As on AVX2. With four rows LLVM spills, and more instructions are needed.
        "neon": GemvTile(rows=2, apart=4),
    },
    batch_rows={},
    pair_apart={"generic": 2},
    stream_tiles={
        # The same, weights in DRAM, share of the fastest probe (1 thread): 4 rows of 4 apart
        # 98 to 104%, 2 of 8 apart 92 to 96%, and 80 to 85% in narrow vectors.
        "avx512vnni": GemvTile(rows=4, apart=4, ahead=2048, panel=3 << 18),
        # Zen 5: narrow vectors leave memory the most bandwidth.
        "avx512vnni@zen": GemvTile(rows=2, apart=8, is_narrow=True),
        # Zen 4, as two_bit's: 56 to 60 and 53 to 61%, 2 narrow rows 50 to 60 and 44 to 47%; 3 rows
        # of 8 apart, which spill, 60 to 73 and 55 to 60%.
        "avx512vnni@zen4": GemvTile(rows=4, apart=4, ahead=1024),
    },
    has_narrow=True,
    panel_tiles={
        # As nibble's: 2 panels, eight lines of each in turn, 94%, 2 or 4 panels of four 83 to 84%,
        # 3 panels 81 to 84%.
        "generic": PanelTile(streams=2, ahead=4096, run=8),
        # Zen 4, 1 and 2 threads: panel by panel 63 to 67 and 82 to 87%, 2 panels, four lines of
        # each in turn, 57 to 59 and 59 to 72%, eight 48 to 54 and 36 to 42%. From the second-level
        # cache 19 GB/s a thread: it computes.
        "avx512vnni@zen4": PanelTile(streams=1, ahead=8192, run=16),
    },
    color="#56B4E9",
    marker="s",
)
