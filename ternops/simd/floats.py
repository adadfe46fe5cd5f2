"""Float vectors of 16 lanes, the same on every CPU.

A float sum must not depend on the CPU: 16 partial sums, each a chain of fused multiply-adds, then
one fixed tree.
"""

from ternops.simd.language import INT32, Vector, inlined, instruction
from ternops.simd.operations import bitcast, convert, lane, load, select_greater, take

f32, f16, u16 = Vector("f32", 16), Vector("f16", 16), Vector("u16", 16)
i32x16, i8x16 = Vector("i32", 16), Vector("i8", 16)

fma = instruction("llvm.fma.v16f32", f32, f32, f32, f32)  #: a * b + c, rounded once
maximum_i32 = instruction("llvm.smax.v16i32", i32x16, i32x16, i32x16)
_reduce_max = instruction("llvm.vector.reduce.smax.v16i32", INT32, i32x16)


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


@inlined
def load_i8(source):
    """16 int8 as float32."""
    return convert(f32, convert(i32x16, load(i8x16, source)))


@inlined
def load_bf16(source):
    """16 bfloat16 as float32."""
    return bitcast(f32, convert(i32x16, load(u16, source)) << 16)
