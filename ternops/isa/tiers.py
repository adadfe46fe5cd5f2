"""The instruction-set tiers, literally: each says what it has that its parent has not."""

from __future__ import annotations

from ternops.isa import arm, portable, x86
from ternops.isa.tier import BatchTile, ByteTable, GemmTile, Tier
from ternops.simd import host

_X86 = ("x86_64", "amd64")
_AVX512 = ("avx512f", "avx512bw", "avx512vl", "avx512vnni")

GENERIC = Tier(
    "generic", machines=(), features=(), vector_bytes=16, registers=16,
    dot=portable.dot_portable, dot_signed=portable.dot_portable,
    batch=BatchTile(1, 4, most=7), gemm=GemmTile(2, 4),
    # Slower than any memory: what is decoded most cheaply.
    auto=("two_bit", "two_bit"),
)  # fmt: skip

AVX2 = GENERIC.extended(
    "avx2", "avx2", "f16c", "fma", machines=_X86, vector_bytes=32,
    dot=x86.dot_avx2, close=x86.close_avx2, dot_signed=x86.dot_signed_avx2,
    shuffle_bytes=x86.shuffle_bytes, look_up_16=x86.shuffle_bytes,
    # The GEMM is 15% ahead from 16 tokens on, with base3 from 8.
    batch=BatchTile(1, 4, most=7),
    # 8 sums, 2 lines and 1 in 16 registers.
    gemm=GemmTile(2, 4),
    # Without the look-up base3 decodes 60 G weights a second, while two_bit's come from memory at
    # 150.
    auto=("two_bit", "two_bit"),
)  # fmt: skip
AVXVNNI = AVX2.extended(
    "avxvnni", "avxvnni", dot=x86.dot_avxvnni, close=None, dot_signed=None,
    # 8 sums in 16 registers; at 64 tokens level with the GEMM, at 512 13% behind.
    batch=BatchTile(1, 8, most=63),
)  # fmt: skip
AVXVNNIINT8 = AVXVNNI.extended(
    # The int8 output head needs no bias: an XOR less for each line of its weights.
    "avxvnniint8", "avxvnniint8", dot_signed=x86.dot_signed_avxvnniint8,
)  # fmt: skip
AVX512VNNI = AVX2.extended(
    "avx512vnni", *_AVX512, vector_bytes=64, registers=32,
    dot=x86.dot_avx512vnni, close=None, dot_signed=None, narrow_dot=x86.dot_avxvnni,
    shuffle_words=x86.permute_words, shuffle_bytes=None, look_up_16=x86.shuffle_bytes_512,
    # 16 sums, and each code serves eight tokens. Level with the GEMM at 512, 10% ahead at 128.
    batch=BatchTile(2, 8, most=255),
    # 24 sums, 4 lines of codes and 1 of activations in 32 registers. Activations that come from the
    # third level cost 2 to 4%.
    gemm=GemmTile(4, 6, block_bytes=512 << 10),
    # As with AVX2, but 120 G.
    auto=("two_bit", "two_bit"),
)  # fmt: skip
AVX512VBMI = AVX512VNNI.extended(
    "avx512vbmi", "avx512vbmi", byte_table=ByteTable(128, x86.look_up_128),
    # From memory bytes decide, and base3 has a fifth fewer; in a cache two_bit is 1.6x as fast.
    auto=("two_bit", "base3"),
)  # fmt: skip
AMX = AVX512VBMI.extended(
    "amx", "amx-tile", "amx-int8", has_tiles=True,
    # AMX is faster from half a tile of tokens on.
    batch=BatchTile(2, 8, most=15),
    # Six tiles of sums, one of codes and one of activations: 13% ahead of four, two and two.
    # Activations that come from the third level cost three quarters of the rate.
    gemm=GemmTile(48, 32, panel_rows=48, depth=8320, block_bytes=1152 << 10),
)  # fmt: skip

NEON = GENERIC.extended(  # every 64-bit ARM core has it
    "neon", machines=host.ARM, registers=32,
    dot=arm.dot_neon, close=arm.close_neon, dot_lanes=arm.dot_lanes_neon,
    dot_signed=arm.dot_signed_neon, dot_signed_lanes=arm.dot_signed_lanes_neon,
    byte_table=ByteTable(96, arm.look_up_96, is_arm=True),
    shuffle_bytes=arm.shuffle_bytes, look_up_16=arm.shuffle_bytes,
    batch=BatchTile(1, 4, most=7),
    # 8 sums, and 8 in int16.
    gemm=GemmTile(4, 2),
    # base3 takes half as many instructions again, which costs more than its fewer bytes bring
    # wherever the cores, and not the memory, are the bound: many an ARM machine, by the profiles.
    auto=("two_bit", "two_bit"),
)  # fmt: skip
NEON_DOTPROD = NEON.extended(
    "neon-dotprod", "dotprod", dot=arm.dot_dotprod, close=None, dot_lanes=None,
    dot_signed=arm.dot_dotprod, dot_signed_lanes=None,
    # 8 sums, and the codes of two rows, in 32 registers.
    batch=BatchTile(2, 4, most=7), gemm=GemmTile(4, 4),
)  # fmt: skip
NEON_I8MM = NEON_DOTPROD.extended(
    "neon-i8mm", "i8mm", dot_pairs=arm.dot_pairs,
    # 16 sums of two rows and two tokens, 4 lines and 4.
    gemm=GemmTile(8, 8),
)  # fmt: skip

#: Best first.
TIERS = (
    AMX, AVX512VBMI, AVX512VNNI, AVXVNNIINT8, AVXVNNI, AVX2, NEON_I8MM, NEON_DOTPROD, NEON, GENERIC,
)  # fmt: skip
