"""ARM: the dot product, in a form that LLVM turns into what the core has.

A partial reduction of products of sign-extended bytes is `sdot` where the core has the dot product
extension (Arm Architecture Reference Manual, FEAT_DotProd), and `smull` with `saddw` where not. No
instruction is named, so that none can be missing.
"""

from ternops.simd.vector import Vector, bitcast, convert, inlined, instruction, llvm_version

_i8x16, _i32x4, _i32x16 = Vector("i8", 16), Vector("i32", 4), Vector("i32", 16)
_STAGE = "" if llvm_version() >= 22 else "experimental."
PARTIAL_REDUCE = f"llvm.{_STAGE}vector.partial.reduce.add.v4i32.v16i32"
_add_up = instruction(PARTIAL_REDUCE, _i32x4, _i32x4, _i32x16)


@inlined
def dot_neon(acc, codes, signed):
    """acc plus 16 products, in lanes of LLVM's choice; codes: below 128, or signed bytes."""
    return _add_up(acc, convert(_i32x16, bitcast(_i8x16, codes)) * convert(_i32x16, signed))
