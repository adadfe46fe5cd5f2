"""Which shape of kernel each encoding and tier uses: literal numbers, each with its reason."""

from __future__ import annotations

from typing import NamedTuple

from ternops.caches import last_level_bytes
from ternops.encodings.two_bit import FIELDS as WEIGHTS_A_BYTE
from ternops.simd import inlined, targets


class Tile(NamedTuple):
    """What a kernel keeps in registers while it walks along the columns.

    rows: so many at a time. apart: how many of a byte's fields are left where they are, with an
    accumulator each; 1: every field is shifted down to one accumulator.
    """

    rows: int
    apart: int


#: (encoding, tier) -> the tile for one token.
GEMV = {
    # Two streams came nearest to the read bandwidth (1: -4%, 4: -2%); 8 independent chains.
    ("two_bit", "amx"): Tile(rows=2, apart=4),
    ("two_bit", "avx512vbmi"): Tile(rows=2, apart=4),
    ("two_bit", "avx512vnni"): Tile(rows=2, apart=4),
    ("two_bit", "avxvnni"): Tile(rows=2, apart=4),
    # int16 partial sums have no room for codes times 16.
    ("two_bit", "avx2"): Tile(rows=2, apart=2),
    # A code times 64 would not fit a signed byte; four rows share the activations' loads.
    ("two_bit", "neon-i8mm"): Tile(rows=4, apart=3),
    ("two_bit", "neon-dotprod"): Tile(rows=4, apart=3),
    # Codes times 16 fit int16 for the one field that has them; its sums take registers as well.
    ("two_bit", "neon"): Tile(rows=2, apart=3),
    # Small enough for any register file.
    ("two_bit", "generic"): Tile(rows=1, apart=1),
    ("base3", "amx"): Tile(rows=2, apart=4),
    ("base3", "avx512vbmi"): Tile(rows=2, apart=4),
    # Without the look-up every field comes out shifted down.
    ("base3", "avx512vnni"): Tile(rows=2, apart=1),
    ("base3", "avxvnni"): Tile(rows=2, apart=1),
    # The remainders take the registers that a second row would need.
    ("base3", "avx2"): Tile(rows=1, apart=1),
    # The table, too, is in registers: LLVM copies it about for a third field, or a second row.
    ("base3", "neon-i8mm"): Tile(rows=1, apart=2),
    ("base3", "neon-dotprod"): Tile(rows=1, apart=2),
    ("base3", "neon"): Tile(rows=1, apart=1),
    ("base3", "generic"): Tile(rows=1, apart=1),
}


class Batch(NamedTuple):
    """Several tokens with weights that are decoded where they are used: rows x tokens at a time.

    most: more tokens go to the GEMM. base3_rows: rows with base3, None for as many.
    """

    rows: int
    tokens: int
    most: int
    base3_rows: int | None = None


#: tier -> the tiles for several tokens.
BATCH = {
    # 16 sums, and each code serves eight tokens. AMX is faster from half a tile of tokens on.
    "amx": Batch(2, 8, 15),
    # Level with the GEMM at 512 tokens, 10% ahead of it at 128.
    "avx512vbmi": Batch(2, 8, 255),
    "avx512vnni": Batch(2, 8, 255),
    # 8 sums in 16 registers; at 64 tokens level with the GEMM, at 512 13% behind.
    "avxvnni": Batch(1, 8, 63),
    # The GEMM is 15% ahead from 16 tokens on, with base3 from 8.
    "avx2": Batch(1, 4, 7),
    # 8 sums, and the codes of two rows, in 32 registers; with base3 the table besides.
    "neon-i8mm": Batch(2, 4, 7, base3_rows=1),
    "neon-dotprod": Batch(2, 4, 7, base3_rows=1),
    "neon": Batch(1, 4, 7),
    "generic": Batch(1, 4, 7),
}


class Panel(NamedTuple):
    """rows x tokens of the product that the GEMM keeps in registers."""

    rows: int
    tokens: int


#: tier -> the tile of the GEMM; without AMX its rows divide the lanes of an i32, or are a multiple.
GEMM = {
    # Four tiles of sums, two of codes and two of activations.
    "amx": Panel(32, 32),
    # 24 sums, 4 lines of codes and 1 of activations in 32 registers.
    "avx512vbmi": Panel(4, 6),
    "avx512vnni": Panel(4, 6),
    # 8 sums, 2 lines and 1 in 16 registers.
    "avxvnni": Panel(2, 4),
    "avx2": Panel(2, 4),
    # 16 sums of two rows and two tokens, 4 lines and 4.
    "neon-i8mm": Panel(8, 8),
    "neon-dotprod": Panel(4, 4),
    # 8 sums, and 8 in int16.
    "neon": Panel(4, 2),
    "generic": Panel(2, 4),
}

#: Weights are asked for so many bytes ahead, over all streams of a thread: the best of 2048 to
#: 32768 for weights in DRAM, with 1, 2 and 4 streams alike.
PREFETCH_AHEAD = 8192

#: A further thread must find this many bytes of weights times tokens, or waking it costs more.
BYTES_A_THREAD = 1 << 17


#: tier -> what "auto" means for weights that the last-level cache holds, and for more of them.
AUTO = {
    # From memory bytes decide, and base3 has a fifth fewer; in a cache two_bit is 1.6x as fast.
    "amx": ("two_bit", "base3"),
    "avx512vbmi": ("two_bit", "base3"),
    # Without the look-up base3 decodes 120 G weights a second, while two_bit's come from memory at
    # 150; with 256-bit registers it is 60.
    "avx512vnni": ("two_bit", "two_bit"),
    "avxvnni": ("two_bit", "two_bit"),
    "avx2": ("two_bit", "two_bit"),
    # base3 takes half as many instructions again, which costs more than its fewer bytes bring
    # wherever the cores, and not the memory, are the bound: many an ARM machine, by the profiles.
    "neon-i8mm": ("two_bit", "two_bit"),
    "neon-dotprod": ("two_bit", "two_bit"),
    "neon": ("two_bit", "two_bit"),
    # Slower than any memory: what is decoded most cheaply.
    "generic": ("two_bit", "two_bit"),
}


def best_encoding(weights: int) -> str:
    """What "auto" stands for here, for so many weights that are used together."""
    cached, streamed = AUTO[targets.TIER.name]
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
