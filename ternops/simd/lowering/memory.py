"""Values out of scalars and out of memory, and back."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ternops.simd.lowering.types import (
    BYTE_POINTER,
    I32,
    I64,
    POINTER,
    Pointer,
    Registers,
    VectorType,
    element_suffix,
    ir_type,
    splat,
    to_element,
    type_behind,
)


@intrinsic
def full(typing_context, vector_type, value):
    """A vector with `value` in every lane: ``full(f32, 1.0)``."""
    vector = type_behind(vector_type)
    if not isinstance(vector, VectorType) or not isinstance(value, types.Number):
        return None

    def generate(context, builder, signature, args):
        scalar = to_element(context, builder, args[1], signature.args[1], vector)
        return splat(builder, scalar, vector.ir)

    return vector(vector_type, value), generate


@intrinsic
def registers(typing_context, vector_type, count):
    """`count` (a literal) vectors, uninitialised; every index must become a constant."""
    vector = type_behind(vector_type)
    if not isinstance(vector, VectorType) or not isinstance(count, types.IntegerLiteral):
        return None
    kind = Registers(vector, count.literal_value)

    def generate(context, builder, signature, args):
        # Not cgutils.alloca_once, which writes zeros to all of it each time.
        with builder.goto_entry_block():
            return builder.alloca(kind.ir)

    return kind(vector_type, count), generate


@intrinsic
def pointer(typing_context, source):
    """A Pointer to an array's first element, or from an integer address."""
    if isinstance(source, types.Integer):

        def generate(context, builder, signature, args):
            address = context.cast(builder, args[0], signature.args[0], types.intp)
            return builder.inttoptr(address, BYTE_POINTER)

    elif isinstance(source, types.Array):

        def generate(context, builder, signature, args):
            array = context.make_array(signature.args[0])(context, builder, args[0])
            return builder.bitcast(array.data, BYTE_POINTER)

    else:
        return None
    return POINTER(source), generate


@intrinsic
def address_of(typing_context, source):
    """The integer address of a record, an array's first element or a Pointer."""
    if isinstance(source, types.Array):

        def generate(context, builder, signature, args):
            array = context.make_array(signature.args[0])(context, builder, args[0])
            return builder.ptrtoint(array.data, I64)

    elif isinstance(source, types.Record | Pointer):

        def generate(context, builder, signature, args):
            return builder.ptrtoint(args[0], I64)

    else:
        return None
    return types.intp(source), generate


@intrinsic
def record_at(typing_context, record_type, address):
    """The record of a type made by ``numba.from_dtype`` that lies at an integer address."""
    record = getattr(record_type, "instance_type", None)
    if not isinstance(record, types.Record):
        return None

    def generate(context, builder, signature, args):
        return builder.inttoptr(args[1], context.get_value_type(record))

    return record(record_type, address), generate


def _make_load(aligned: bool) -> Any:
    @intrinsic
    def load(typing_context, value_type, source):
        value = type_behind(value_type)
        if value is None or not isinstance(source, Pointer):
            return None

        def generate(context, builder, signature, args):
            kind = ir_type(context, value)
            typed = builder.bitcast(args[1], kind.as_pointer())
            return builder.load(typed, align=value.bytes if aligned else 1)

        return value(value_type, source), generate

    return load


load = _make_load(aligned=False)  #: load(type, pointer): a vector or a scalar, at any address


def _first_lanes(context: Any, builder: Any, vector: VectorType, count: Any, kind: Any) -> ir.Value:
    index_type = ir.VectorType(I64, vector.lanes)
    index = ir.Constant(index_type, list(range(vector.lanes)))
    limit = splat(builder, context.cast(builder, count, kind, types.int64), index_type)
    return builder.icmp_signed("<", index, limit)


@intrinsic
def load_first(typing_context, vector_type, source, count):
    """The first `count` lanes of a vector in memory, zeros behind; touches nothing further."""
    vector = type_behind(vector_type)
    if not isinstance(vector, VectorType) or not isinstance(source, Pointer):
        return None

    def generate(context, builder, signature, args):
        mask = _first_lanes(context, builder, vector, args[2], signature.args[2])
        kind = ir.FunctionType(vector.ir, [BYTE_POINTER, I32, mask.type, vector.ir])
        name = f"llvm.masked.load.v{vector.lanes}{element_suffix(vector)}.p0"
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        zeros = ir.Constant(vector.ir, None)
        return builder.call(function, [args[1], ir.Constant(I32, 1), mask, zeros])

    return vector(vector_type, source, count), generate


@intrinsic
def store_first(typing_context, target, value, count):
    """Write the first `count` lanes of a vector to memory and touch nothing further."""
    if not isinstance(value, VectorType) or not isinstance(target, Pointer):
        return None

    def generate(context, builder, signature, args):
        mask = _first_lanes(context, builder, value, args[2], signature.args[2])
        kind = ir.FunctionType(ir.VoidType(), [value.ir, BYTE_POINTER, I32, mask.type])
        name = f"llvm.masked.store.v{value.lanes}{element_suffix(value)}.p0"
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        builder.call(function, [args[1], args[0], ir.Constant(I32, 1), mask])
        return context.get_dummy_value()

    return types.none(target, value, count), generate


@intrinsic
def store(typing_context, target, value):
    """Write a vector or a scalar to memory at any address."""
    if not isinstance(target, Pointer):
        return None

    def generate(context, builder, signature, args):
        typed = builder.bitcast(args[0], args[1].type.as_pointer())
        builder.store(args[1], typed, align=1)
        return context.get_dummy_value()

    return types.none(target, value), generate


@intrinsic
def prefetch(typing_context, source):
    """Ask for the cache line at an address, in every level; never faults."""
    if not isinstance(source, Pointer):
        return None

    def generate(context, builder, signature, args):
        kind = ir.FunctionType(ir.VoidType(), [BYTE_POINTER, I32, I32, I32])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        read, keep_everywhere, data = (ir.Constant(I32, n) for n in (0, 3, 1))
        builder.call(function, [args[0], read, keep_everywhere, data])
        return context.get_dummy_value()

    return types.none(source), generate
