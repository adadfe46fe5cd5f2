"""Which shape of kernel each encoding and tier uses: literal numbers, each with its reason."""

from __future__ import annotations

from typing import NamedTuple

from ternops.simd import inlined, targets


class Tile(NamedTuple):
    """What a kernel keeps in registers while it walks along the columns.

    rows x tokens is the output tile. fields_apart: 1 adds the four shifted fields of a byte to one
    accumulator; 4 leaves them in place (three shifts fewer a load) in four accumulators.
    """

    rows: int
    tokens: int
    fields_apart: int


#: (encoding, tier) -> the tile for one token.
GEMV = {
    # Two streams came nearest to the read bandwidth (1: -4%, 4: -2%); 8 independent chains.
    ("two_bit", "avx512vnni"): Tile(rows=2, tokens=1, fields_apart=4),
    # 16 registers: with fields apart, two rows would spill.
    ("two_bit", "avx2"): Tile(rows=1, tokens=1, fields_apart=4),
    # Small enough for any register file.
    ("two_bit", "generic"): Tile(rows=1, tokens=1, fields_apart=1),
}

#: (encoding, tier) -> the tile for several tokens; what is left over goes one by one.
GEMM = {
    # 16 accumulators, 4 fields a row, and each field serves eight tokens.
    ("two_bit", "avx512vnni"): Tile(rows=2, tokens=8, fields_apart=1),
    # 8 accumulators and 4 fields fill the 16 registers.
    ("two_bit", "avx2"): Tile(rows=1, tokens=8, fields_apart=1),
    ("two_bit", "generic"): Tile(rows=1, tokens=4, fields_apart=1),
}

#: Weights are asked for so many bytes ahead, over all streams of a thread: the best of 2048 to
#: 32768 for weights in DRAM, with 1, 2 and 4 streams alike.
PREFETCH_AHEAD = 8192

#: A further thread must find this many bytes of weights times tokens, or waking it costs more.
BYTES_A_THREAD = 1 << 16


def tiles(encoding: str) -> tuple[Tile, Tile]:
    """The GEMV and GEMM tiles of an encoding on this process's tier."""
    key = (encoding, targets.TIER.name)
    return GEMV[key], GEMM[key]


def useful_threads(threads: int, work: int) -> int:
    """At most `threads`, fewer where `work` (bytes of weights times tokens) is too small."""
    return max(1, min(threads, work // BYTES_A_THREAD))


@inlined
def stream_step(count, rows):
    """How far apart the rows of a tile lie that walks down `count` rows as `rows` streams.

    Odd, so that the streams of a matrix with a power of two in its shape do not all start at the
    same offset of a page, and with it in the same bank of the memory.
    """
    step = count // rows
    return max(0, step - 1 + step % 2)
