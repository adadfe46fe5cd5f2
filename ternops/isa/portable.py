"""The vocabulary's operations in plain LLVM vector arithmetic: right on every CPU, fast on none.

Nothing here names an instruction, so nothing here can fail to be selected.
"""

import numpy as np

from ternops.simd import Vector, bitcast, convert, full, inlined, select_greater, take

_i32x16, _f32x16, _u16x16 = Vector("i32", 16), Vector("f32", 16), Vector("u16", 16)


@inlined
def dot_portable(acc, unsigned, signed):
    """acc + the dot products of 4 unsigned with 4 signed bytes, in each of 4 lanes."""
    products = convert(_i32x16, unsigned) * convert(_i32x16, signed)
    low = take(products, 0, 4, 4) + take(products, 1, 4, 4)
    high = take(products, 2, 4, 4) + take(products, 3, 4, 4)
    return acc + low + high


@inlined
def widen_half(half):
    """16 float16, given as u16, as float32, by moving the fields and rescaling by 2**112.

    For CPUs without a conversion instruction, where LLVM would call a library that a
    just-in-time compiled function cannot reach. Subnormals are exact: the product is.
    """
    bits = convert(_i32x16, half)
    magnitude = bits & 0x7FFF
    finite = bitcast(_f32x16, magnitude << 13) * np.float32(2.0**112)
    special = bitcast(_f32x16, (magnitude << 13) | 0x7F800000)
    value = select_greater(magnitude, full(_i32x16, 0x7BFF), special, finite)
    return bitcast(_f32x16, bitcast(_i32x16, value) | ((bits & 0x8000) << 16))


@inlined
def narrow_half(value):
    """16 float32 of at most 65504 as float16, given as u16, rounded to even.

    Below 2**-14, float32's own addition of 0.5 rounds to float16's smallest unit, which is that of
    a float32 in [0.5, 1). NaN stays NaN.
    """
    bits = bitcast(_i32x16, value)
    magnitude = bits & 0x7FFFFFFF
    odd = (magnitude >> 13) & 1
    normal = (magnitude + odd + (0x0FFF - (112 << 23))) >> 13
    small = bitcast(_i32x16, bitcast(_f32x16, magnitude) + np.float32(0.5)) - 0x3F000000
    half = select_greater(full(_i32x16, 113 << 23), magnitude, small, normal)
    half = select_greater(magnitude, full(_i32x16, 0x7F800000), full(_i32x16, 0x7E00), half)
    return convert(_u16x16, half | ((bits >> 16) & 0x8000))
