"""x86: one short function an instruction, or the few that a tier needs for one operation.

Sources: Intel intrinsics guide (VPDPBUSD, VPDPBSSD, VPMADDUBSW, VPMADDWD, VPERMI2B, VPERMW,
VPSHUFB and the AMX instructions); what operations mean is documented in ternops.isa.tier.
"""

import ctypes
import functools

from ternops.simd import (
    IMMEDIATE,
    INTEGER,
    POINTER,
    VOID,
    Vector,
    bitcast,
    full,
    inlined,
    instruction,
)

_u8x32, _i8x32, _i16x16, _i32x8 = (
    Vector("u8", 32), Vector("i8", 32), Vector("i16", 16), Vector("i32", 8)
)  # fmt: skip
_u8x64, _i8x64, _i32x16 = Vector("u8", 64), Vector("i8", 64), Vector("i32", 16)

dot_avx512vnni = instruction("llvm.x86.avx512.vpdpbusd.512", _i32x16, _i32x16, _u8x64, _i8x64)
dot_avxvnni = instruction("llvm.x86.avx512.vpdpbusd.256", _i32x8, _i32x8, _u8x32, _i8x32)

#: Of signed bytes both.
dot_signed_avxvnniint8 = instruction("llvm.x86.avx2.vpdpbssd.256", _i32x8, _i32x8, _i8x32, _i8x32)

_multiply_add_bytes = instruction("llvm.x86.avx2.pmadd.ub.sw", _i16x16, _u8x32, _i8x32)
_multiply_add_words = instruction("llvm.x86.avx2.pmadd.wd", _i32x8, _i16x16, _i16x16)


@inlined
def dot_avx2(partial, unsigned, signed):
    """vpmaddubsw saturates at int16; the codes of these kernels keep far from it."""
    return partial + _multiply_add_bytes(unsigned, signed)


@inlined
def close_avx2(total, partial):
    return total + _multiply_add_words(partial, full(_i16x16, 1))


_sign_bytes = instruction("llvm.x86.avx2.psign.b", _i8x32, _i8x32, _i8x32)


@inlined
def dot_signed_avx2(acc, left, right):
    """|left| times right with left's sign: two products of at most 128 * 127 fit int16."""
    magnitudes = bitcast(_u8x32, _sign_bytes(left, left))
    products = _multiply_add_bytes(magnitudes, _sign_bytes(right, left))
    return acc + _multiply_add_words(products, full(_i16x16, 1))


look_up_128 = instruction("llvm.x86.avx512.vpermi2var.qi.512", _u8x64, _u8x64, _u8x64, _u8x64)

_i16x32 = Vector("i16", 32)
#: Lane i of the result is lane index[i] % 32 of the table.
permute_words = instruction("llvm.x86.avx512.permvar.hi.512", _i16x32, _i16x32, _i16x32)
#: Byte i of the result is byte index[i] % 16 of the table's same half.
shuffle_bytes = instruction("llvm.x86.avx2.pshuf.b", _u8x32, _u8x32, _u8x32)
#: The same in each quarter.
shuffle_bytes_512 = instruction("llvm.x86.avx512.pshuf.b.512", _u8x64, _u8x64, _u8x64)

tile_configure = instruction("llvm.x86.ldtilecfg", VOID, POINTER)
tile_release = instruction("llvm.x86.tilerelease", VOID)
tile_zero = instruction("llvm.x86.tilezero", VOID, IMMEDIATE)
tile_load = instruction("llvm.x86.tileloadd64", VOID, IMMEDIATE, POINTER, INTEGER)
#: The same, of what need not stay in the first-level cache.
tile_load_once = instruction("llvm.x86.tileloaddt164", VOID, IMMEDIATE, POINTER, INTEGER)
tile_store = instruction("llvm.x86.tilestored64", VOID, IMMEDIATE, POINTER, INTEGER)
tile_dot = instruction("llvm.x86.tdpbusd", VOID, IMMEDIATE, IMMEDIATE, IMMEDIATE)
tile_dot_signed = instruction("llvm.x86.tdpbssd", VOID, IMMEDIATE, IMMEDIATE, IMMEDIATE)


@functools.cache
def tiles_granted():
    """Whether Linux lets this process use the tile registers, which it must be asked for."""
    arch_prctl, request_permission, tile_data = 158, 0x1023, 18
    try:
        return ctypes.CDLL(None).syscall(arch_prctl, request_permission, tile_data) == 0
    except (AttributeError, OSError, TypeError):
        return False
