"""ARM: one short function an instruction, or the few that a tier needs for one operation.

Sources: Arm Architecture Reference Manual (SMLAL, SADALP, SDOT, SMMLA, TBL, TBX); the operations'
meaning is documented in ternops.isa.tier.
"""

from ternops.simd import Vector, bitcast, inlined, instruction, take

_u8x16, _i8x16, _i8x8 = Vector("u8", 16), Vector("i8", 16), Vector("i8", 8)
_i16x8, _i32x4 = Vector("i16", 8), Vector("i32", 4)

_dot = instruction("llvm.aarch64.neon.sdot.v4i32.v16i8", _i32x4, _i32x4, _i8x16, _i8x16)


@inlined
def dot_dotprod(acc, codes, signed):
    """acc plus 4 products a lane; codes: below 128, or signed bytes."""
    return _dot(acc, bitcast(_i8x16, codes), signed)


_multiply = instruction("llvm.aarch64.neon.smull.v8i16", _i16x8, _i8x8, _i8x8)
_add_pairs = instruction("llvm.aarch64.neon.saddlp.v4i32.v8i16", _i32x4, _i16x8)


@inlined
def dot_neon(partial, codes, signed):
    """int16 sums, which the codes of these kernels keep within their range."""
    codes = bitcast(_i8x16, codes)
    partial = partial + _multiply(take(codes, 0, 8, 1), take(signed, 0, 8, 1))
    return partial + _multiply(take(codes, 8, 8, 1), take(signed, 8, 8, 1))


_join_pairs = instruction("llvm.aarch64.neon.addp.v8i16", _i16x8, _i16x8, _i16x8)


@inlined
def dot_lanes_neon(partial, codes, signed):
    """The same sums where each belongs to the lane of its bytes, of which `dot_neon` mixes two."""
    codes = bitcast(_i8x16, codes)
    low = _multiply(take(codes, 0, 8, 1), take(signed, 0, 8, 1))
    high = _multiply(take(codes, 8, 8, 1), take(signed, 8, 8, 1))
    return partial + _join_pairs(low, high)


@inlined
def close_neon(total, partial):
    return total + _add_pairs(partial)


@inlined
def dot_signed_neon(acc, left, right):
    """Two products of at most 128 * 127 fit int16."""
    products = _multiply(take(left, 0, 8, 1), take(right, 0, 8, 1))
    products = products + _multiply(take(left, 8, 8, 1), take(right, 8, 8, 1))
    return acc + _add_pairs(products)


@inlined
def dot_signed_lanes_neon(acc, left, right):
    """The same sums where each belongs to the lane of its bytes, of which `dot_signed_neon` mixes
    two."""
    low = _multiply(take(left, 0, 8, 1), take(right, 0, 8, 1))
    high = _multiply(take(left, 8, 8, 1), take(right, 8, 8, 1))
    return acc + _add_pairs(_join_pairs(low, high))


_multiply_matrices = instruction(
    "llvm.aarch64.neon.smmla.v4i32.v16i8", _i32x4, _i32x4, _i8x16, _i8x16
)


@inlined
def dot_pairs(acc, codes, signed):
    """acc (2, 2) plus the codes (2, 8) times the transpose of `signed` (2, 8)."""
    return _multiply_matrices(acc, bitcast(_i8x16, codes), signed)


#: Byte i of the result is byte index[i] of the table, and 0 where the table has none.
shuffle_bytes = instruction("llvm.aarch64.neon.tbl1.v16i8", _u8x16, _u8x16, _u8x16)
_look_up_64 = instruction("llvm.aarch64.neon.tbl4.v16i8", _u8x16, *[_u8x16] * 5)
_look_up_further = instruction("llvm.aarch64.neon.tbx2.v16i8", _u8x16, *[_u8x16] * 4)


@inlined
def look_up_96(table, at, index, sixty_four):
    """table: registers, the six from `at` on. An index that TBX does not have keeps its byte."""
    near = _look_up_64(table[at], table[at + 1], table[at + 2], table[at + 3], index)
    return _look_up_further(near, table[at + 4], table[at + 5], index - sixty_four)
