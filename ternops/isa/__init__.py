"""The operations that tiers have different instructions for, as this process's tier has them.

Integer vectors are as wide as the tier's registers, because integer sums are exact in any order.
What is the same on every tier is in `ternops.simd`.
"""

from typing import Any, NamedTuple

import numpy as np

from ternops.isa import portable, x86
from ternops.isa.detect import REASON, TIER, TIERS, available, choose, missing
from ternops.simd import (
    Vector,
    bitcast,
    convert,
    f16,
    f32,
    fma,
    full,
    inlined,
    instruction,
    load,
    load_bf16,
    select_greater,
    u16,
)
from ternops.simd.host import ARM, features, machine

BYTES = TIER.vector_bytes
LANES = BYTES // 4
#: Of the CPU, for vectors: what tells how large a tile may be.
REGISTERS = TIER.registers

u8, i8, i32 = Vector("u8", BYTES), Vector("i8", BYTES), Vector("i32", LANES)
#: As many floats as an i32 has lanes: for arithmetic lane by lane, where the width cannot show.
f32_lanes = Vector("f32", LANES)

# Dot products add up in registers that `open_sums` gives and `close_sums` adds to i32 sums. Where
# an instruction adds to int32 they are the sums themselves. AVX2 and plain NEON add to int16 in
# between: two products a lane and dot, of at most 128 times a code, so that the greatest codes of
# the dots between the two may add up to 128, and -2**15 just fits.
#   dot(partial, unsigned u8, signed i8): partial + 4 (to int16: 2) products a lane.
dot = TIER.dot
#: The same where lanes are rows: the four products of a lane are those of its own bytes.
dot_lanes = TIER.dot_lanes or dot
if TIER.close is not None:
    PARTIAL = Vector("i16", BYTES // 2)
    _close = TIER.close

    @inlined
    def open_sums(sums, partial, count):
        """The registers for dots until `close_sums`."""
        for i in range(count):
            partial[i] = full(PARTIAL, 0)
        return partial

    @inlined
    def close_sums(sums, partial, count):
        """Add up what the dots since `open_sums` gave."""
        for i in range(count):
            sums[i] = _close(sums[i], partial[i])

else:
    PARTIAL = i32

    @inlined
    def open_sums(sums, partial, count):
        """The registers for dots until `close_sums`."""
        return sums

    @inlined
    def close_sums(sums, partial, count):
        """Add up what the dots since `open_sums` gave."""


# dot_signed(i32 acc, i8, i8): acc + 4 products a lane, and SIGNED_OFFSET times the sum of the
# second factors, which are at least -127.
if TIER.dot_signed is not None:
    SIGNED_OFFSET = 0
    dot_signed = TIER.dot_signed
else:
    SIGNED_OFFSET = 128

    @inlined
    def dot_signed(acc, left, right):
        """The dot of unsigned bytes, the left ones moved up."""
        return dot(acc, bitcast(u8, left ^ SIGNED_OFFSET), right)


# dot_levels(i32 acc, u8, i8): acc + 4 products a lane, its own four bytes', of levels that exceed
# what they stand for by LEVEL_OFFSET; these are at least -127.
if TIER.dot_signed is not None:
    LEVEL_OFFSET = 0
    _dot_signed_lanes = TIER.dot_signed_lanes or TIER.dot_signed

    @inlined
    def dot_levels(acc, levels, right):
        """The dot of signed bytes."""
        return _dot_signed_lanes(acc, right, bitcast(i8, levels))

else:
    LEVEL_OFFSET, dot_levels = 128, dot_lanes

# A look-up of 16 bytes: the registers of a table, which `hold_table` fills from `at` on, and
# look_up_level(held, at, index).
if TIER.look_up_16 is not None:
    TABLE_REGISTERS = 1
    _look_up_16 = TIER.look_up_16

    @inlined
    def hold_table(held, at, table):
        """Fill registers with a table of 16 bytes, over and over."""
        held[at] = load(u8, table)

    @inlined
    def look_up_level(held, at, index):
        """The entries of a vector of indices below 16."""
        return _look_up_16(held[at], index)

else:
    TABLE_REGISTERS = 16

    @inlined
    def hold_table(held, at, table):
        """Fill registers with an entry each."""
        for i in range(TABLE_REGISTERS):
            held[at + i] = full(u8, load(np.uint8, table + i))

    @inlined
    def look_up_level(held, at, index):
        """The entries of a vector of indices below 16."""
        found = held[at]
        for i in range(1, TABLE_REGISTERS):
            found = select_greater(index, full(u8, i - 1), held[at + i], found)
        return found


class Width(NamedTuple):
    """Integer vectors of one width, and the dot product on them."""

    bytes: int
    u8: Vector
    i8: Vector
    i32: Vector
    dot: Any


#: The widest vectors of the tier, and those that leave memory the most bandwidth.
WIDE = NARROW = Width(BYTES, u8, i8, i32, dot)
if TIER.narrow_dot is not None:
    NARROW = Width(32, Vector("u8", 32), Vector("i8", 32), Vector("i32", 8), TIER.narrow_dot)

#: Rows, and tokens, that share a vector of the GEMM's `dot_lines`: 1, or 2 with half as many
#: columns each, whose sums are then the lanes row by row, complete.
PAIRED = 1 if TIER.dot_pairs is None else 2
dot_lines = TIER.dot_pairs or dot

#: Whether there are tile registers: 16 rows of 64 bytes, numbered by literals.
HAS_TILES = TIER.has_tiles
tile_configure, tile_release, tile_zero = x86.tile_configure, x86.tile_release, x86.tile_zero
tile_load, tile_store = x86.tile_load, x86.tile_store  #: (tile, pointer, bytes from row to row)
tile_load_once = x86.tile_load_once  #: of what need not stay in the first-level cache
tile_dot = x86.tile_dot  #: tile 0 += unsigned bytes of tile 1 times signed ones of tile 2
tile_dot_signed = x86.tile_dot_signed  #: the same, both signed
#: Tokens that share a line of BYTES bytes in what the GEMM reads.
TOGETHER = 16 if HAS_TILES else PAIRED

_MAX_HALF = np.float32(65504)
#: All bits of an int16 but that below the sign, which a sign extended seven bits further down left.
_SIGN_AND_MAGNITUDE = ~0x4000
_CONVERTS_HALF = "f16c" in features() or machine() in ARM

if _CONVERTS_HALF:

    @inlined
    def load_fp16(source):
        """16 float16 as float32."""
        return convert(f32, load(f16, source))

    @inlined
    def _widen(bits):
        return convert(f32, bitcast(f16, bits))

    @inlined
    def _to_half(value):
        return bitcast(u16, convert(f16, value))

else:

    @inlined
    def load_fp16(source):
        """16 float16 as float32."""
        return portable.widen_half(load(u16, source))

    _widen, _to_half = portable.widen_half, portable.narrow_half


def _loads_of_bytes(lanes, widen):
    """load_e4m3 and load_e5m2 of so many lanes; widen: float16, given as u16, to float32."""
    unsigned, signed = Vector("u8", lanes), Vector("i8", lanes)
    words, signed_words = Vector("u16", lanes), Vector("i16", lanes)

    @inlined
    def load_e4m3(source):
        """Floats of eight bits as float32, a 256th of each: as float16 with three bits of the
        mantissa and the lower four of the exponent, subnormals too. It has no NaN."""
        shifted = convert(signed_words, load(signed, source)) << 7
        return widen(bitcast(words, shifted & _SIGN_AND_MAGNITUDE))

    @inlined
    def load_e5m2(source):
        """Floats of eight bits, the upper bytes of float16, as float32."""
        return widen(convert(words, load(unsigned, source)) << 8)

    return load_e4m3, load_e5m2


load_e4m3, load_e5m2 = _loads_of_bytes(16, _widen)


@inlined
def to_half(value):
    """16 float32 as float16, given as u16: rounded to even, and kept within +-65504."""
    value = select_greater(value, full(f32, _MAX_HALF), full(f32, _MAX_HALF), value)
    value = select_greater(full(f32, -_MAX_HALF), value, full(f32, -_MAX_HALF), value)
    return _to_half(value)


class Floats(NamedTuple):
    """Float vectors of one width: 16 lanes are one of them or two."""

    lanes: int
    f32: Vector
    fma: Any
    load_fp16: Any
    load_bf16: Any
    load_e4m3: Any
    load_e5m2: Any


def _narrow_floats():
    """Half vectors, for CPUs whose whole ones are 64 bytes long."""
    half, words = Vector("f32", 8), Vector("i32", 8)
    halves, shorts = Vector("f16", 8), Vector("u16", 8)

    @inlined
    def load_fp16(source):
        return convert(half, load(halves, source))

    @inlined
    def load_bf16(source):
        return bitcast(half, convert(words, load(shorts, source)) << 16)

    widen = inlined(lambda bits: convert(half, bitcast(halves, bits)))
    fma = instruction("llvm.fma.v8f32", half, half, half, half)
    return Floats(8, half, fma, load_fp16, load_bf16, *_loads_of_bytes(8, widen))


#: Floats as they are elsewhere, and those that leave memory the most bandwidth.
WIDE_FLOATS = NARROW_FLOATS = Floats(16, f32, fma, load_fp16, load_bf16, load_e4m3, load_e5m2)
if BYTES == 64:
    NARROW_FLOATS = _narrow_floats()

__all__ = [
    "BYTES",
    "HAS_TILES",
    "LANES",
    "LEVEL_OFFSET",
    "NARROW",
    "NARROW_FLOATS",
    "PAIRED",
    "PARTIAL",
    "REASON",
    "REGISTERS",
    "SIGNED_OFFSET",
    "TABLE_REGISTERS",
    "TIER",
    "TIERS",
    "TOGETHER",
    "WIDE",
    "WIDE_FLOATS",
    "Floats",
    "available",
    "choose",
    "close_sums",
    "dot",
    "dot_lanes",
    "dot_levels",
    "dot_lines",
    "dot_signed",
    "f32_lanes",
    "hold_table",
    "i8",
    "i32",
    "load_e4m3",
    "load_e5m2",
    "load_fp16",
    "look_up_level",
    "missing",
    "open_sums",
    "tile_configure",
    "tile_dot",
    "tile_dot_signed",
    "tile_load",
    "tile_load_once",
    "tile_release",
    "tile_store",
    "tile_zero",
    "to_half",
    "u8",
]
