"""base3: five trits a byte, 1.6 bits a weight, as a number of five digits in base 3.

A row is cut into blocks of 320 weights, 64 bytes (`blocks`). With the digits t = w + 1, byte m of
a block holds the weights m, m + 64, m + 128, m + 192 and m + 256 as the number
27 t[m] + 9 t[m + 64] + 3 t[m + 128] + t[m + 192] + 81 t[m + 256], which is 242 at most.
"""

from __future__ import annotations

import numpy as np

from ternops.encodings.blocks import Blocks, GemvTile, PanelTile
from ternops.encodings.common import Array, digits, number

_FIELDS = 5
_GREATEST = 3**_FIELDS - 1


def _find_flaw(piece: Array) -> str | None:
    greatest = piece.max()
    return f"the byte {greatest}, expected 0 to 242" if greatest > _GREATEST else None


def _join(codes: Array) -> Array:
    # The last field is the highest digit, then come the others in their order.
    return number(np.roll(codes, 1, axis=0))


def _split(table: Array) -> Array:
    return np.roll(digits(table, _FIELDS), -1, axis=0)


BASE3 = Blocks(
    name="base3",
    fields=_FIELDS,
    join=_join,
    split=_split,
    find_flaw=_find_flaw,
    unpack_code="base3",
    tiles={
        "generic": GemvTile(rows=1, apart=1, ahead=8192),
        # The remainders take the registers that a second row would need.
        "avx2": GemvTile(rows=1, apart=1, ahead=8192),
        # Without the look-up every field comes out shifted down.
        "avxvnni": GemvTile(rows=2, apart=1),
        "avx512vnni": GemvTile(rows=2, apart=1),
        "avx512vbmi": GemvTile(rows=2, apart=4),
        # The table, too, is in registers: LLVM copies it about for a third field, or a second row.
        "neon": GemvTile(rows=1, apart=1, ahead=8192),
        "neon-dotprod": GemvTile(rows=1, apart=2, ahead=8192),
    },
    # The table takes the registers of a second row's codes.
    batch_rows={"neon-dotprod": 1},
    # Without the look-up every field comes out shifted down.
    pair_apart={"generic": 1, "avx512vbmi": 2, "neon": 2},
    stream_tiles={
        # Sapphire Rapids, weights in DRAM, share of the fastest probe (1 thread, two shapes):
        # 4 rows of 2 apart 95 to 99%, 3 of 4 apart 90 to 99%, 2 of 4 apart 88 to 90%. Panels of
        # 768 KB bring 0 to 6% more with 1 and 2 threads, of 512 KB as much, of 128 and 256 KB less.
        "avx512vbmi": GemvTile(rows=4, apart=2, ahead=2048, panel=3 << 18),
        # Zen 5.
        "avx512vbmi@zen": GemvTile(rows=2, apart=4),
        # Zen 4, as two_bit's: 66 to 68 and 86 to 91%, 2 rows of 4 apart 67 to 70 and 79 to 82%.
        "avx512vbmi@zen4": GemvTile(rows=8, apart=1, ahead=512),
    },
    unpacks_slowly=True,
    panel_tiles={
        # As two_bit's: 3 panels 89% with 2 threads, 2 panels 85 to 87%, whole blocks 70%.
        "generic": PanelTile(streams=3, ahead=2048, run=4),
        # Zen 4, 1 and 2 threads: panel by panel 54 to 62 and 72 to 89%, 2 or 3 panels 48 to 54 and
        # 61 to 67%.
        "avx512vnni@zen4": PanelTile(streams=1, ahead=8192, run=16),
    },
    color="#D55E00",
    marker="D",
)
