"""The vocabulary that kernels are written in, with this process's tier filled in.

Integer vectors are as wide as the tier's registers, because integer sums are exact in any order.
Float vectors always have 16 lanes, because a float sum must not depend on the CPU: 16 partial
sums, each a chain of fused multiply-adds, then one fixed tree.
"""

from numba import types

from ternops.simd import portable, targets, vector, x86
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
    convert,
    entry,
    full,
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
    take,
    yield_thread,
)

BYTES = targets.TIER.vector_bytes

u8, i8, i32 = Vector("u8", BYTES), Vector("i8", BYTES), Vector("i32", BYTES // 4)
f32, f16, u16 = Vector("f32", 16), Vector("f16", 16), Vector("u16", 16)
i32x16, i8x16 = Vector("i32", 16), Vector("i8", 16)

#: dot(acc i32, unsigned u8, signed i8): acc + 4 products a lane; unsigned bytes up to 128.
dot = {
    "avx512vnni": x86.dot_avx512vnni,
    "avx2": x86.dot_avx2,
    "generic": portable.dot_portable,
}[targets.TIER.name]

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


_CONVERTS_HALF = "f16c" in vector.features() or vector.machine() in ("aarch64", "arm64")

if _CONVERTS_HALF:

    @inlined
    def load_f16(source):
        """16 float16 as float32."""
        return convert(f32, load(f16, source))

else:

    @inlined
    def load_f16(source):
        """16 float16 as float32."""
        return portable.widen_half(load(u16, source))


@inlined
def load_bf16(source):
    """16 bfloat16 as float32."""
    return bitcast(f32, convert(i32x16, load(u16, source)) << 16)


__all__ = [
    "BYTES",
    "Job",
    "Vector",
    "address_of",
    "atomic_add",
    "atomic_load",
    "atomic_store",
    "atomic_swap_if",
    "bitcast",
    "cache_folder",
    "call_job",
    "convert",
    "dot",
    "entry",
    "f16",
    "f32",
    "fma",
    "full",
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
    "maximum_i32",
    "nanoseconds",
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
    "take",
    "targets",
    "tree_max",
    "tree_sum",
    "u8",
    "yield_thread",
]
