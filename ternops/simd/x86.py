"""x86: one short function an instruction, or the few that a tier needs for one operation.

Sources: Intel intrinsics guide (VPDPBUSD, VPMADDUBSW, VPMADDWD, VCVTPH2PS, VCVTPS2PH).
"""

from ternops.simd.vector import Vector, full, inlined, instruction

_i16x16, _i32x8 = Vector("i16", 16), Vector("i32", 8)
_u8x32, _i8x32 = Vector("u8", 32), Vector("i8", 32)
_u8x64, _i8x64, _i32x16 = Vector("u8", 64), Vector("i8", 64), Vector("i32", 16)

#: acc + the dot products of 4 unsigned with 4 signed bytes, in each of 16 lanes.
dot_avx512vnni = instruction("llvm.x86.avx512.vpdpbusd.512", _i32x16, _i32x16, _u8x64, _i8x64)

_multiply_add_bytes = instruction("llvm.x86.avx2.pmadd.ub.sw", _i16x16, _u8x32, _i8x32)
_multiply_add_words = instruction("llvm.x86.avx2.pmadd.wd", _i32x8, _i16x16, _i16x16)


@inlined
def dot_avx2(acc, unsigned, signed):
    """acc + the dot products of 4 unsigned bytes (<= 128) with 4 signed ones, in each of 8 lanes.

    vpmaddubsw saturates at int16: two products of 128 * 127 just fit, and -2 * 128 * 128 too.
    """
    pairs = _multiply_add_bytes(unsigned, signed)
    return acc + _multiply_add_words(pairs, full(_i16x16, 1))
