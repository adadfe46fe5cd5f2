"""The vocabulary that kernels are written in, with this process's tier filled in.

Integer vectors are as wide as the tier's registers, because integer sums are exact in any order.
Float vectors always have 16 lanes, because a float sum must not depend on the CPU: 16 partial
sums, each a chain of fused multiply-adds, then one fixed tree.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import types

from ternops.simd import arm, base3, portable, targets, vector, x86
from ternops.simd.vector import (
    Job,
    Vector,
    address_of,
    atomic_add,
    atomic_load,
    atomic_store,
    atomic_swap_if,
    bitcast,
    cache_folder,
    call_job,
    concatenate,
    constant,
    convert,
    entry,
    full,
    futex_wait,
    futex_wake,
    inlined,
    instruction,
    kernel,
    lane,
    load,
    load_aligned,
    load_first,
    nanoseconds,
    pause,
    pointer,
    prefetch,
    record_at,
    reduce_add,
    registers,
    select_greater,
    store,
    store_first,
    sum_lanes,
    take,
    transpose,
    widen,
    yield_thread,
)

BYTES = targets.TIER.vector_bytes

LANES = BYTES // 4
#: Of the CPU, for vectors: what tells how large a tile may be.
REGISTERS = 32 if BYTES == 64 or targets.ON_ARM else 16

u8, i8, i32 = Vector("u8", BYTES), Vector("i8", BYTES), Vector("i32", LANES)
#: As many floats as an i32 has lanes: for arithmetic lane by lane, where the width cannot show.
f32_lanes = Vector("f32", LANES)
f32, f16, u16 = Vector("f32", 16), Vector("f16", 16), Vector("u16", 16)
i32x16, i8x16 = Vector("i32", 16), Vector("i8", 16)

_NAME = targets.TIER.name

# Dot products add up in registers that `open_sums` gives and `close_sums` adds to i32 sums. Where
# an instruction adds to int32 they are the sums themselves. AVX2 and plain NEON add to int16 in
# between: two products a lane and dot, of at most 128 times a code, so that the greatest codes of
# the dots between the two may add up to 128, and -2**15 just fits.
#   dot(partial, unsigned u8, signed i8): partial + 4 (to int16: 2) products a lane.
_TO_INT16 = {"avx2": (x86.dot_avx2, x86.close_avx2), "neon": (arm.dot_neon, arm.close_neon)}
if _NAME in _TO_INT16:
    PARTIAL = Vector("i16", BYTES // 2)
    dot, _close = _TO_INT16[_NAME]

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
    dot = {
        "amx": x86.dot_avx512vnni,
        "avx512vbmi": x86.dot_avx512vnni,
        "avx512vnni": x86.dot_avx512vnni,
        "avxvnni": x86.dot_avxvnni,
        "neon-i8mm": arm.dot_dotprod,
        "neon-dotprod": arm.dot_dotprod,
        "generic": portable.dot_portable,
    }[_NAME]

    @inlined
    def open_sums(sums, partial, count):
        """The registers for dots until `close_sums`."""
        return sums

    @inlined
    def close_sums(sums, partial, count):
        """Add up what the dots since `open_sums` gave."""


# dot_signed(i32 acc, i8, i8): acc + 4 products a lane, and SIGNED_OFFSET times the sum of the
# second factors, which are at least -127.
_dots_signed = {
    "avx2": x86.dot_signed_avx2,
    "neon-i8mm": arm.dot_dotprod,
    "neon-dotprod": arm.dot_dotprod,
    "neon": arm.dot_signed_neon,
    "generic": portable.dot_portable,
}
SIGNED_OFFSET = 0 if _NAME in _dots_signed else 128


@inlined
def _dot_biased(acc, left, right):
    return dot(acc, bitcast(u8, left ^ SIGNED_OFFSET), right)


dot_signed = _dots_signed.get(_NAME, _dot_biased)


class Width(NamedTuple):
    """Integer vectors of one width, and the dot product on them."""

    bytes: int
    u8: Vector
    i8: Vector
    i32: Vector
    dot: Any


#: The widest vectors of the tier, and those that leave memory the most bandwidth.
WIDE = NARROW = Width(BYTES, u8, i8, i32, dot)
if BYTES == 64:
    NARROW = Width(32, Vector("u8", 32), Vector("i8", 32), Vector("i32", 8), x86.dot_avxvnni)

#: Rows, and tokens, that share a vector of the GEMM's `dot_lines`: 1, or 2 with half as many
#: columns each, whose sums are then the lanes row by row, complete.
PAIRED = 2 if _NAME == "neon-i8mm" else 1
dot_lines = arm.dot_pairs if PAIRED == 2 else dot

#: Whether there are tile registers: 16 rows of 64 bytes, numbered by literals.
HAS_TILES = _NAME == "amx"
tile_configure, tile_release, tile_zero = x86.tile_configure, x86.tile_release, x86.tile_zero
tile_load, tile_store = x86.tile_load, x86.tile_store  #: (tile, pointer, bytes from row to row)
tile_dot = x86.tile_dot  #: tile 0 += unsigned bytes of tile 1 times signed ones of tile 2
#: Tokens that share a line of BYTES bytes in what the GEMM reads.
TOGETHER = 16 if HAS_TILES else PAIRED

fma = instruction("llvm.fma.v16f32", f32, f32, f32, f32)  #: a * b + c, rounded once
maximum_i32 = instruction("llvm.smax.v16i32", i32x16, i32x16, i32x16)
_reduce_max = instruction("llvm.vector.reduce.smax.v16i32", types.int32, i32x16)


@inlined
def reduce_max(value):
    """The largest lane of an i32x16."""
    return _reduce_max(value)


@inlined
def tree_sum(value):
    """The sum of 16 float32 lanes in one fixed order: upper half onto lower half, four times."""
    eight = take(value, 0, 8, 1) + take(value, 8, 8, 1)
    four = take(eight, 0, 4, 1) + take(eight, 4, 4, 1)
    two = take(four, 0, 2, 1) + take(four, 2, 2, 1)
    return lane(two, 0) + lane(two, 1)


@inlined
def _larger(left, right):
    return select_greater(left, right, left, right)


@inlined
def tree_max(value):
    """The largest of 16 float32 lanes, none of them NaN."""
    eight = _larger(take(value, 0, 8, 1), take(value, 8, 8, 1))
    four = _larger(take(eight, 0, 4, 1), take(eight, 4, 4, 1))
    two = _larger(take(four, 0, 2, 1), take(four, 2, 2, 1))
    return max(lane(two, 0), lane(two, 1))


_MOST_HALF = np.float32(65504)
_CONVERTS_HALF = "f16c" in vector.features() or vector.machine() in ("aarch64", "arm64")

if _CONVERTS_HALF:

    @inlined
    def load_f16(source):
        """16 float16 as float32."""
        return convert(f32, load(f16, source))

    @inlined
    def _to_half(value):
        return bitcast(u16, convert(f16, value))

else:

    @inlined
    def load_f16(source):
        """16 float16 as float32."""
        return portable.widen_half(load(u16, source))

    _to_half = portable.narrow_half


@inlined
def to_half(value):
    """16 float32 as float16, given as u16: rounded to even, and kept within +-65504."""
    value = select_greater(value, full(f32, _MOST_HALF), full(f32, _MOST_HALF), value)
    value = select_greater(full(f32, -_MOST_HALF), value, full(f32, -_MOST_HALF), value)
    return _to_half(value)


@inlined
def load_i8(source):
    """16 int8 as float32."""
    return convert(f32, convert(i32x16, load(i8x16, source)))


@inlined
def load_bf16(source):
    """16 bfloat16 as float32."""
    return bitcast(f32, convert(i32x16, load(u16, source)) << 16)


class Floats(NamedTuple):
    """Float vectors of one width: 16 lanes are one of them or two."""

    lanes: int
    f32: Vector
    fma: Any
    load_f16: Any
    load_bf16: Any


def _narrow_floats():
    """Half vectors, for CPUs whose whole ones are 64 bytes long."""
    half, words = Vector("f32", 8), Vector("i32", 8)
    halves, shorts = Vector("f16", 8), Vector("u16", 8)

    @inlined
    def load_f16(source):
        return convert(half, load(halves, source))

    @inlined
    def load_bf16(source):
        return bitcast(half, convert(words, load(shorts, source)) << 16)

    fma = instruction("llvm.fma.v8f32", half, half, half, half)
    return Floats(8, half, fma, load_f16, load_bf16)


#: Floats as they are elsewhere, and those that leave memory the most bandwidth.
WIDE_FLOATS = NARROW_FLOATS = Floats(16, f32, fma, load_f16, load_bf16)
if BYTES == 64:
    NARROW_FLOATS = _narrow_floats()


__all__ = [
    "BYTES",
    "HAS_TILES",
    "LANES",
    "NARROW",
    "NARROW_FLOATS",
    "PAIRED",
    "PARTIAL",
    "REGISTERS",
    "SIGNED_OFFSET",
    "TOGETHER",
    "WIDE",
    "WIDE_FLOATS",
    "Floats",
    "Job",
    "Vector",
    "Width",
    "address_of",
    "atomic_add",
    "atomic_load",
    "atomic_store",
    "atomic_swap_if",
    "base3",
    "bitcast",
    "cache_folder",
    "call_job",
    "close_sums",
    "concatenate",
    "constant",
    "convert",
    "dot",
    "dot_lines",
    "dot_signed",
    "entry",
    "f16",
    "f32",
    "f32_lanes",
    "fma",
    "full",
    "futex_wait",
    "futex_wake",
    "i8",
    "i8x16",
    "i32",
    "i32x16",
    "inlined",
    "kernel",
    "lane",
    "load",
    "load_aligned",
    "load_bf16",
    "load_f16",
    "load_first",
    "load_i8",
    "maximum_i32",
    "nanoseconds",
    "open_sums",
    "pause",
    "pointer",
    "prefetch",
    "record_at",
    "reduce_add",
    "reduce_max",
    "registers",
    "select_greater",
    "store",
    "store_first",
    "sum_lanes",
    "take",
    "targets",
    "tile_configure",
    "tile_dot",
    "tile_load",
    "tile_release",
    "tile_store",
    "tile_zero",
    "to_half",
    "transpose",
    "tree_max",
    "tree_sum",
    "u8",
    "u16",
    "widen",
    "yield_thread",
]
