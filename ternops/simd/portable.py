"""The vocabulary's operations in plain LLVM vector arithmetic: right on every CPU, fast on none.

Nothing here names an instruction, so nothing here can fail to be selected.
"""

import numpy as np

from ternops.simd.vector import (
    Vector,
    bitcast,
    convert,
    full,
    inlined,
    select_greater,
    take,
)

_i32x16, _f32x16 = Vector("i32", 16), Vector("f32", 16)


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
