"""Which shape of kernel each encoding and tier uses: literal numbers, each with its reason."""

from __future__ import annotations

from typing import NamedTuple

from ternops.cpu_caches import last_level_bytes
from ternops.encodings.two_bit import FIELDS as WEIGHTS_A_BYTE
from ternops.isa.detect import TIER
from ternops.isa.tier import Tier
from ternops.simd import inlined


class Tile(NamedTuple):
    """What a kernel keeps in registers while it walks along the columns.

    rows: so many at a time. apart: how many of a byte's fields are left where they are, with an
    accumulator each; 1: every field is shifted down to one accumulator.
    """

    rows: int
    apart: int


#: encoding -> the tile for one token by tier, for what is made from one too, without an own entry.
_GEMV = {
    "two_bit": {
        # Small enough for any register file.
        "generic": Tile(rows=1, apart=1),
        # int16 partial sums have no room for codes times 16.
        "avx2": Tile(rows=2, apart=2),
        # Two streams came nearest to the read bandwidth (1: -4%, 4: -2%); 8 independent chains.
        "avxvnni": Tile(rows=2, apart=4),
        "avx512vnni": Tile(rows=2, apart=4),
        # Codes times 16 fit int16 for the one field that has them; its sums take registers as well.
        "neon": Tile(rows=2, apart=3),
        # A code times 64 would not fit a signed byte; four rows share the activations' loads.
        "neon-dotprod": Tile(rows=4, apart=3),
    },
    "base3": {
        "generic": Tile(rows=1, apart=1),
        # The remainders take the registers that a second row would need.
        "avx2": Tile(rows=1, apart=1),
        # Without the look-up every field comes out shifted down.
        "avxvnni": Tile(rows=2, apart=1),
        "avx512vnni": Tile(rows=2, apart=1),
        "avx512vbmi": Tile(rows=2, apart=4),
        # The table, too, is in registers: LLVM copies it about for a third field, or a second row.
        "neon": Tile(rows=1, apart=1),
        "neon-dotprod": Tile(rows=1, apart=2),
    },
}
#: Weights are asked for so many bytes ahead, over all streams of a thread: the best of 2048 to
#: 32768 for weights in DRAM, with 1, 2 and 4 streams alike.
PREFETCH_AHEAD = 8192

#: A further thread must find this many bytes of weights times tokens, or waking it costs more.
BYTES_A_THREAD = 1 << 17


def gemv_tile(encoding: str, tier: Tier = TIER) -> Tile:
    """The tile for one token."""
    return tier.pick(_GEMV[encoding])


def best_encoding(weights: int) -> str:
    """What "auto" stands for here, for so many weights that are used together."""
    cached, streamed = TIER.auto
    return cached if weights // WEIGHTS_A_BYTE <= last_level_bytes() else streamed


def useful_threads(threads: int, work: int) -> int:
    """At most `threads`, fewer where `work` (bytes of weights times tokens) is too small."""
    return max(1, min(threads, work // BYTES_A_THREAD))


@inlined
def stream_step(count, rows):
    """How far apart the rows of a tile lie that walks down `count` rows as `rows` streams.

    Odd, so that the streams of a matrix with a power of two in its shape do not all start at the
    same offset of a page, and with it in the same bank of the memory. Up to 2 * rows - 1 rows are
    left over, none where there is one stream.
    """
    if rows == 1:
        return count
    step = count // rows
    return max(0, step - 1 + step % 2)
