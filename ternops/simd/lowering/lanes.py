"""Lanes: converted, moved, compared and added up."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ternops.simd.lowering.types import (
    ELEMENTS,
    I32,
    I64,
    Pointer,
    Registers,
    VectorType,
    type_behind,
)


@intrinsic
def bitcast(typing_context, vector_type, value):
    """The same bits as another vector type of the same size."""
    vector = type_behind(vector_type)
    if not isinstance(vector, VectorType):
        return None

    def generate(context, builder, signature, args):
        return builder.bitcast(args[1], vector.ir)

    return vector(vector_type, value), generate


@intrinsic
def convert(typing_context, vector_type, value):
    """Each lane's value in another element type: widened, cut off or (float16) rounded to even.

    Float to integer is left out on purpose: kernels round by adding 1.5 * 2**23.
    """
    target = type_behind(vector_type)
    if not isinstance(target, VectorType) or not isinstance(value, VectorType):
        return None
    if value.is_float and not target.is_float:
        return None

    def generate(context, builder, signature, args):
        before, after = value.bytes, target.bytes
        if value.is_float:
            name = "fpext" if after > before else "fptrunc"
        elif target.is_float:
            name = "uitofp" if value.is_unsigned else "sitofp"
        elif after > before:
            name = "zext" if value.is_unsigned else "sext"
        else:
            name = "trunc"
        return getattr(builder, name)(args[1], target.ir)

    return target(vector_type, value), generate


@intrinsic
def take(typing_context, value, first, count, step):
    """`count` lanes of a vector from `first` on, `step` apart (literals)."""
    literals = (first, count, step)
    if not isinstance(value, VectorType):
        return None
    if not all(isinstance(each, types.IntegerLiteral) for each in literals):
        return None
    start, lanes, stride = (each.literal_value for each in literals)
    result = VectorType(value.element, lanes)

    def generate(context, builder, signature, args):
        order = [start + i * stride for i in range(lanes)]
        mask = ir.Constant(ir.VectorType(I32, lanes), order)
        return builder.shuffle_vector(args[0], args[0], mask)

    return result(value, first, count, step), generate


@intrinsic
def interleave(typing_context, left, right):
    """left[0], right[0], left[1], right[1], ...: a vector of twice as many lanes."""
    if not isinstance(left, VectorType) or left != right:
        return None
    result = VectorType(left.element, 2 * left.lanes)

    def generate(context, builder, signature, args):
        order = [i // 2 + i % 2 * left.lanes for i in range(result.lanes)]
        mask = ir.Constant(ir.VectorType(I32, result.lanes), order)
        return builder.shuffle_vector(args[0], args[1], mask)

    return result(left, right), generate


@intrinsic
def concatenate(typing_context, left, right):
    """The lanes of two vectors, one behind the other."""
    if not isinstance(left, VectorType) or left != right:
        return None
    result = VectorType(left.element, 2 * left.lanes)

    def generate(context, builder, signature, args):
        mask = ir.Constant(ir.VectorType(I32, result.lanes), list(range(result.lanes)))
        return builder.shuffle_vector(args[0], args[1], mask)

    return result(left, right), generate


@intrinsic
def gather(typing_context, vector_type, table, index):
    """Lane by lane table[index], scalars one after the other, for CPUs without byte shuffles."""
    vector = type_behind(vector_type)
    if not isinstance(vector, VectorType) or not isinstance(table, Pointer):
        return None
    if not isinstance(index, VectorType) or index.lanes != vector.lanes:
        return None

    def generate(context, builder, signature, args):
        entries = builder.bitcast(args[1], ELEMENTS[vector.element].as_pointer())
        result = ir.Constant(vector.ir, ir.Undefined)
        for i in range(vector.lanes):
            at = builder.zext(builder.extract_element(args[2], ir.Constant(I32, i)), I64)
            entry = builder.load(builder.gep(entries, [at]), align=1)
            result = builder.insert_element(result, entry, ir.Constant(I32, i))
        return result

    return vector(vector_type, table, index), generate


@intrinsic
def widen(typing_context, vector_type, value):
    """The lanes of a vector in the first lanes of a longer one, zeros behind."""
    vector = type_behind(vector_type)
    if not isinstance(vector, VectorType) or not isinstance(value, VectorType):
        return None
    if vector.element != value.element or vector.lanes < value.lanes:
        return None

    def generate(context, builder, signature, args):
        order = [min(i, value.lanes) for i in range(vector.lanes)]
        mask = ir.Constant(ir.VectorType(I32, vector.lanes), order)
        return builder.shuffle_vector(args[1], ir.Constant(value.ir, None), mask)

    return vector(vector_type, value), generate


@intrinsic
def select_greater(typing_context, left, right, then, otherwise):
    """Lane by lane ``then if left > right else otherwise`` (signed or float compare)."""
    if not isinstance(left, VectorType) or left != right or then != otherwise:
        return None

    def generate(context, builder, signature, args):
        compare = builder.fcmp_ordered if left.is_float else builder.icmp_signed
        return builder.select(compare(">", args[0], args[1]), args[2], args[3])

    return then(left, right, then, otherwise), generate


@intrinsic
def at_least(typing_context, value, bound):
    """Lane by lane -1 (all bits) where ``value >= bound``, else 0; both integer vectors."""
    if not isinstance(value, VectorType) or value != bound or value.is_float:
        return None

    def generate(context, builder, signature, args):
        compare = builder.icmp_unsigned if value.is_unsigned else builder.icmp_signed
        return builder.sext(compare(">=", *args), value.ir)

    return value(value, bound), generate


@intrinsic
def greater_bits(typing_context, left, right):
    """int64 whose bit i tells whether lane i of `left` exceeds that of `right` (signed or float
    compare); vectors of at most 64 lanes."""
    if not isinstance(left, VectorType) or left != right or left.lanes > 64:
        return None

    def generate(context, builder, signature, args):
        compare = builder.fcmp_ordered if left.is_float else builder.icmp_signed
        bits = builder.bitcast(compare(">", args[0], args[1]), ir.IntType(left.lanes))
        return bits if left.lanes == 64 else builder.zext(bits, I64)

    return types.int64(left, right), generate


@intrinsic
def lowest_bit(typing_context, bits):
    """The number of an int64's lowest bit that is set; 64 if none is."""
    if not isinstance(bits, types.Integer):
        return None

    def generate(context, builder, signature, args):
        value = context.cast(builder, args[0], signature.args[0], types.int64)
        return builder.cttz(value, ir.Constant(ir.IntType(1), 0))

    return types.int64(bits), generate


@intrinsic
def reduce_add(typing_context, value):
    """The sum of an i32 vector's lanes as int32 (wraps around; any order gives the same)."""
    if not isinstance(value, VectorType) or value.element != "i32":
        return None

    def generate(context, builder, signature, args):
        kind = ir.FunctionType(I32, [value.ir])
        name = f"llvm.vector.reduce.add.v{value.lanes}i32"
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)

    return types.int32(value), generate


@intrinsic
def sum_lanes(typing_context, sums, first):
    """The sums of the lanes of as many i32 vectors as one has lanes, in one vector, in order.

    sums: registers, the vectors being those from index `first` on. Wraps around. A tree: each
    step adds two vectors' halves into one, so that it costs three operations a vector.
    """
    if not isinstance(sums, Registers) or sums.vector.element != "i32":
        return None
    lanes = sums.vector.lanes

    def generate(context, builder, signature, args):
        start = context.cast(builder, args[1], signature.args[1], types.intp)
        vectors = []
        for i in range(lanes):
            place = builder.add(start, ir.Constant(I64, i))
            slot = builder.gep(args[0], [ir.Constant(I64, 0), place], inbounds=True)
            vectors.append(builder.load(slot))
        width = 1  # lane i of a vector belongs to its source number i % width
        while len(vectors) > 1:
            order = [
                half + (lanes + i - width if i % (2 * width) >= width else i)
                for half in (0, width)
                for i in range(lanes)
            ]
            masks = [
                ir.Constant(ir.VectorType(I32, lanes), order[at : at + lanes]) for at in (0, lanes)
            ]
            vectors = [
                builder.add(*(builder.shuffle_vector(x, y, mask) for mask in masks))
                for x, y in zip(vectors[::2], vectors[1::2], strict=True)
            ]
            width *= 2
        return vectors[0]

    return sums.vector(sums, first), generate


@intrinsic
def transpose(typing_context, square):
    """Transpose as many vectors as one has lanes, in place: registers seen as a square matrix."""
    if not isinstance(square, Registers) or square.count != square.vector.lanes:
        return None
    lanes = square.count

    def generate(context, builder, signature, args):
        slots = [
            builder.gep(args[0], [ir.Constant(I64, 0), ir.Constant(I64, i)], inbounds=True)
            for i in range(lanes)
        ]
        vectors = [builder.load(slot) for slot in slots]
        width = 1
        while width < lanes:
            # Exchange the off-diagonal halves of all squares of 2 * width.
            orders = [
                [half + (lanes + i - width if i & width else i) for i in range(lanes)]
                for half in (0, width)
            ]
            masks = [ir.Constant(ir.VectorType(I32, lanes), order) for order in orders]
            for i in range(lanes):
                if not i & width:
                    upper, lower = vectors[i], vectors[i + width]
                    vectors[i], vectors[i + width] = (
                        builder.shuffle_vector(upper, lower, mask) for mask in masks
                    )
            width *= 2
        for slot, vector in zip(slots, vectors, strict=True):
            builder.store(vector, slot)
        return context.get_dummy_value()

    return types.none(square), generate


@intrinsic
def lane(typing_context, value, index):
    """One lane (a literal index) of a vector as a scalar."""
    if not isinstance(value, VectorType) or not isinstance(index, types.IntegerLiteral):
        return None
    scalar = types.float32 if value.element == "f32" else types.int32

    def generate(context, builder, signature, args):
        return builder.extract_element(args[0], ir.Constant(I32, index.literal_value))

    return scalar(value, index), generate
