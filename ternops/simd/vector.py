"""SIMD vectors as Numba values, and all that it takes to compile kernels written with them.

Idea: a vector is a Numba type whose data model is an LLVM vector, so a kernel reads
``acc = dot(acc, w & 3, a)`` in plain ``@kernel`` code and LLVM keeps ``acc`` in a register.
Arrays of vectors (``registers``) become registers too once their constant loops are unrolled.
This is the only file that touches the internals of Numba and llvmlite.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import operator
import os
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import config, types
from numba.core import caching, ccallback, cgutils, codegen, registry
from numba.core.compiler_lock import global_compiler_lock
from numba.extending import intrinsic, lower_builtin, models, register_model, type_callable

from ternops.files import replaced
from ternops.simd import hwcap
from ternops.simd.folder import (
    PACKAGE,
    WITHOUT_KERNELS,
    cache_folder,
    check,
    compile_for,
    make,
    tell_loss,
)

__all__ = ["WITHOUT_KERNELS", "cache_folder", "compile_for"]

# ------------------------------------------------------------------------------------------ types

_ELEMENTS: dict[str, ir.Type] = {
    "u8": ir.IntType(8),
    "i8": ir.IntType(8),
    "u16": ir.IntType(16),
    "i16": ir.IntType(16),
    "i32": ir.IntType(32),
    "f16": ir.HalfType(),
    "f32": ir.FloatType(),
}
_I32 = ir.IntType(32)
_I64 = ir.IntType(64)
_BYTE_POINTER = ir.IntType(8).as_pointer()


class Vector(types.Type):
    """A SIMD vector of `lanes` elements: "u8", "i8", "u16", "i16", "i32", "f16" or "f32".

    LLVM splits a vector that is wider than the CPU's registers into several of them.
    """

    def __init__(self, element: str, lanes: int) -> None:
        self.element = element
        self.lanes = lanes
        super().__init__(name=f"{element}x{lanes}")

    @property
    def ir(self) -> ir.VectorType:
        return ir.VectorType(_ELEMENTS[self.element], self.lanes)

    @property
    def is_float(self) -> bool:
        return self.element[0] == "f"

    @property
    def is_unsigned(self) -> bool:
        return self.element[0] == "u"

    @property
    def bytes(self) -> int:
        return self.lanes * int(self.element[1:]) // 8


class Pointer(types.Type):
    """An address in memory; ``pointer + n`` moves it by n bytes."""

    def __init__(self) -> None:
        super().__init__(name="pointer")


class Registers(types.Type):
    """A short array of vectors with constant indices, which LLVM turns into registers."""

    def __init__(self, vector: Vector, count: int) -> None:
        self.vector = vector
        self.count = count
        super().__init__(name=f"registers({vector.name}, {count})")

    @property
    def ir(self) -> ir.ArrayType:
        return ir.ArrayType(self.vector.ir, self.count)


POINTER = Pointer()


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, vector.ir)


@register_model(Pointer)
class _PointerModel(models.PrimitiveModel):
    def __init__(self, manager: Any, pointer: Pointer) -> None:
        super().__init__(manager, pointer, _BYTE_POINTER)


@register_model(Registers)
class _RegistersModel(models.PrimitiveModel):
    def __init__(self, manager: Any, registers: Registers) -> None:
        super().__init__(manager, registers, registers.ir.as_pointer())


def _value_type(reference: types.Type) -> types.Type | None:
    """The type behind a type named in kernel code, a Vector or a Numba scalar."""
    inner = getattr(reference, "instance_type", None)
    return inner if isinstance(inner, Vector | types.Number) else None


def _ir_type(context: Any, kind: types.Type) -> ir.Type:
    if kind == types.none:
        return ir.VoidType()
    return kind.ir if isinstance(kind, Vector) else context.get_value_type(kind)


def _splat(builder: ir.IRBuilder, scalar: ir.Value, vector: ir.VectorType) -> ir.Value:
    lane = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.Constant(_I32, 0))
    order = ir.Constant(ir.VectorType(_I32, vector.count), [0] * vector.count)
    return builder.shuffle_vector(lane, lane, order)


def _to_element(context: Any, builder: Any, value: Any, kind: Any, vector: Vector) -> ir.Value:
    """A scalar of Numba type `kind` as an element of `vector`."""
    element = _ELEMENTS[vector.element]
    if vector.is_float:
        return context.cast(builder, value, kind, types.float32)
    wide = context.cast(builder, value, kind, types.int64)
    return builder.trunc(wide, element)


# -------------------------------------------------------------------------------------- operators

_INTEGER_OPERATORS = {
    operator.add: "add",
    operator.sub: "sub",
    operator.mul: "mul",
    operator.and_: "and_",
    operator.or_: "or_",
    operator.xor: "xor",
    operator.lshift: "shl",
    operator.rshift: "ashr",
}
_FLOAT_OPERATORS = {
    operator.add: "fadd",
    operator.sub: "fsub",
    operator.mul: "fmul",
    operator.truediv: "fdiv",
}


def _register_operator(op: Callable[..., Any]) -> None:
    def allowed(vector: types.Type, other: types.Type) -> bool:
        if not isinstance(vector, Vector):
            return False
        if op not in (_FLOAT_OPERATORS if vector.is_float else _INTEGER_OPERATORS):
            return False
        return other == vector or isinstance(
            other, types.Number if vector.is_float else types.Integer
        )

    @type_callable(op)
    def typing(context: Any) -> Callable[..., Any]:
        def typer(left: types.Type, right: types.Type) -> types.Type | None:
            return left if allowed(left, right) else None

        return typer

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> ir.Value:
        vector = signature.return_type
        left, right = args
        if not isinstance(signature.args[1], Vector):
            scalar = _to_element(context, builder, right, signature.args[1], vector)
            right = _splat(builder, scalar, vector.ir)
        name = (_FLOAT_OPERATORS if vector.is_float else _INTEGER_OPERATORS)[op]
        if name == "ashr" and vector.is_unsigned:
            name = "lshr"
        return getattr(builder, name)(left, right)

    for right in (Vector, types.Number):
        lower_builtin(op, Vector, right)(lower)


for _op in {**_INTEGER_OPERATORS, **_FLOAT_OPERATORS}:
    _register_operator(_op)


@type_callable(operator.add)
def _type_pointer_add(context: Any) -> Callable[..., Any]:
    def typer(base: types.Type, offset: types.Type) -> types.Type | None:
        if isinstance(base, Pointer) and isinstance(offset, types.Integer):
            return base
        return None

    return typer


@lower_builtin(operator.add, Pointer, types.Integer)
def _lower_pointer_add(context: Any, builder: Any, signature: Any, args: Any) -> ir.Value:
    # A GEP, not integer arithmetic: LLVM 22 miscompiles some ptrtoint/add/inttoptr chains.
    offset = context.cast(builder, args[1], signature.args[1], types.intp)
    return builder.gep(args[0], [offset])


@type_callable(operator.getitem)
def _type_register_get(context: Any) -> Callable[..., Any]:
    def typer(registers: types.Type, index: types.Type) -> types.Type | None:
        if isinstance(registers, Registers) and isinstance(index, types.Integer):
            return registers.vector
        return None

    return typer


@type_callable(operator.setitem)
def _type_register_set(context: Any) -> Callable[..., Any]:
    def typer(registers: types.Type, index: types.Type, value: types.Type) -> Any:
        if isinstance(registers, Registers) and value == registers.vector:
            return types.none
        return None

    return typer


def _register_slot(context: Any, builder: Any, signature: Any, args: Any) -> ir.Value:
    index = context.cast(builder, args[1], signature.args[1], types.intp)
    return builder.gep(args[0], [ir.Constant(_I64, 0), index], inbounds=True)


@lower_builtin(operator.getitem, Registers, types.Integer)
def _lower_register_get(context: Any, builder: Any, signature: Any, args: Any) -> ir.Value:
    return builder.load(_register_slot(context, builder, signature, args))


@lower_builtin(operator.setitem, Registers, types.Integer, types.Any)
def _lower_register_set(context: Any, builder: Any, signature: Any, args: Any) -> ir.Value:
    builder.store(args[2], _register_slot(context, builder, signature, args))
    return context.get_dummy_value()


# ---------------------------------------------------------------------------------- making values


@intrinsic
def full(typing_context, vector_type, value):
    """A vector with `value` in every lane: ``full(f32, 1.0)``."""
    vector = _value_type(vector_type)
    if not isinstance(vector, Vector) or not isinstance(value, types.Number):
        return None

    def generate(context, builder, signature, args):
        scalar = _to_element(context, builder, args[1], signature.args[1], vector)
        return _splat(builder, scalar, vector.ir)

    return vector(vector_type, value), generate


@intrinsic
def registers(typing_context, vector_type, count):
    """`count` (a literal) vectors, uninitialised; every index must become a constant."""
    vector = _value_type(vector_type)
    if not isinstance(vector, Vector) or not isinstance(count, types.IntegerLiteral):
        return None
    kind = Registers(vector, count.literal_value)

    def generate(context, builder, signature, args):
        # Not cgutils.alloca_once, which writes zeros to all of it each time.
        with builder.goto_entry_block():
            return builder.alloca(kind.ir)

    return kind(vector_type, count), generate


# ----------------------------------------------------------------------------------------- memory


@intrinsic
def pointer(typing_context, source):
    """A Pointer to an array's first element, or from an integer address."""
    if isinstance(source, types.Integer):

        def generate(context, builder, signature, args):
            address = context.cast(builder, args[0], signature.args[0], types.intp)
            return builder.inttoptr(address, _BYTE_POINTER)

    elif isinstance(source, types.Array):

        def generate(context, builder, signature, args):
            array = context.make_array(signature.args[0])(context, builder, args[0])
            return builder.bitcast(array.data, _BYTE_POINTER)

    else:
        return None
    return POINTER(source), generate


@intrinsic
def address_of(typing_context, source):
    """The integer address of a record, an array's first element or a Pointer."""
    if isinstance(source, types.Array):

        def generate(context, builder, signature, args):
            array = context.make_array(signature.args[0])(context, builder, args[0])
            return builder.ptrtoint(array.data, _I64)

    elif isinstance(source, types.Record | Pointer):

        def generate(context, builder, signature, args):
            return builder.ptrtoint(args[0], _I64)

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
        value = _value_type(value_type)
        if value is None or not isinstance(source, Pointer):
            return None

        def generate(context, builder, signature, args):
            kind = _ir_type(context, value)
            typed = builder.bitcast(args[1], kind.as_pointer())
            return builder.load(typed, align=value.bytes if aligned else 1)

        return value(value_type, source), generate

    return load


load = _make_load(aligned=False)  #: load(type, pointer): a vector or a scalar, at any address
load_aligned = _make_load(aligned=True)  #: the same, where the address is a multiple of its size


def _first_lanes(context: Any, builder: Any, vector: Vector, count: Any, kind: Any) -> ir.Value:
    index_type = ir.VectorType(_I64, vector.lanes)
    index = ir.Constant(index_type, list(range(vector.lanes)))
    limit = _splat(builder, context.cast(builder, count, kind, types.int64), index_type)
    return builder.icmp_signed("<", index, limit)


@intrinsic
def load_first(typing_context, vector_type, source, count):
    """The first `count` lanes of a vector in memory, zeros behind; touches nothing further."""
    vector = _value_type(vector_type)
    if not isinstance(vector, Vector) or not isinstance(source, Pointer):
        return None

    def generate(context, builder, signature, args):
        mask = _first_lanes(context, builder, vector, args[2], signature.args[2])
        kind = ir.FunctionType(vector.ir, [_BYTE_POINTER, _I32, mask.type, vector.ir])
        name = f"llvm.masked.load.v{vector.lanes}{_suffix(vector)}.p0"
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        zeros = ir.Constant(vector.ir, None)
        return builder.call(function, [args[1], ir.Constant(_I32, 1), mask, zeros])

    return vector(vector_type, source, count), generate


@intrinsic
def store_first(typing_context, target, value, count):
    """Write the first `count` lanes of a vector to memory and touch nothing further."""
    if not isinstance(value, Vector) or not isinstance(target, Pointer):
        return None

    def generate(context, builder, signature, args):
        mask = _first_lanes(context, builder, value, args[2], signature.args[2])
        kind = ir.FunctionType(ir.VoidType(), [value.ir, _BYTE_POINTER, _I32, mask.type])
        name = f"llvm.masked.store.v{value.lanes}{_suffix(value)}.p0"
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        builder.call(function, [args[1], args[0], ir.Constant(_I32, 1), mask])
        return context.get_dummy_value()

    return types.none(target, value, count), generate


def _suffix(vector: Vector) -> str:
    """The element's name inside the names of LLVM intrinsics."""
    return ("f" if vector.is_float else "i") + vector.element[1:]


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
        kind = ir.FunctionType(ir.VoidType(), [_BYTE_POINTER, _I32, _I32, _I32])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        read, keep_everywhere, data = (ir.Constant(_I32, n) for n in (0, 3, 1))
        builder.call(function, [args[0], read, keep_everywhere, data])
        return context.get_dummy_value()

    return types.none(source), generate


# ------------------------------------------------------------------------------------ conversions


@intrinsic
def bitcast(typing_context, vector_type, value):
    """The same bits as another vector type of the same size."""
    vector = _value_type(vector_type)
    if not isinstance(vector, Vector):
        return None

    def generate(context, builder, signature, args):
        return builder.bitcast(args[1], vector.ir)

    return vector(vector_type, value), generate


@intrinsic
def convert(typing_context, vector_type, value):
    """Each lane's value in another element type: widened, cut off or (float16) rounded to even.

    Float to integer is left out on purpose: kernels round by adding 1.5 * 2**23.
    """
    target = _value_type(vector_type)
    if not isinstance(target, Vector) or not isinstance(value, Vector):
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


# ----------------------------------------------------------------------------------- instructions


IMMEDIATE = types.uint8  #: an `instruction`'s argument that must be a literal: part of its code


def instruction(name: str, result: types.Type, *arguments: types.Type) -> Any:
    """A kernel function for one LLVM intrinsic of that name and type."""

    def call(context, builder, signature, args):
        kind = ir.FunctionType(
            _ir_type(context, result), [_ir_type(context, each) for each in arguments]
        )
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        values = [
            ir.Constant(ir.IntType(8), given.literal_value) if wanted is IMMEDIATE else
            value if isinstance(wanted, Vector | Pointer) else
            context.cast(builder, value, given, wanted)
            for value, given, wanted in zip(args, signature.args, arguments, strict=True)
        ]  # fmt: skip
        called = builder.call(function, values)
        return context.get_dummy_value() if result == types.none else called

    def fits(given: types.Type, wanted: types.Type) -> bool:
        if wanted is IMMEDIATE:
            return isinstance(given, types.IntegerLiteral)
        return given == wanted or (isinstance(given, types.Integer) and wanted == types.intp)

    def check(*given: types.Type) -> Any:
        if all(map(fits, given, arguments)):
            return result(*given), call
        return None

    # Numba reads the number of arguments off the Python signature.
    makers: dict[int, Callable[..., Any]] = {
        0: lambda typing_context: check(),
        1: lambda typing_context, a: check(a),
        2: lambda typing_context, a, b: check(a, b),
        3: lambda typing_context, a, b, c: check(a, b, c),
        4: lambda typing_context, a, b, c, d: check(a, b, c, d),
        5: lambda typing_context, a, b, c, d, e: check(a, b, c, d, e),
    }
    return intrinsic(makers[len(arguments)])


def constant(vector: Vector, values: Sequence[int], in_memory: bool = False) -> Any:
    """A kernel function without arguments that gives the vector with these lanes.

    in_memory: load it from memory that LLVM does not know to be constant, once where the function
    is called. Inside a loop LLVM would rather load a constant each time than keep a register.
    """
    lanes = [int(value) for value in values]
    digest = hashlib.sha256(repr((vector.name, lanes)).encode()).hexdigest()[:16]

    def check(typing_context: Any) -> Any:
        def generate(context, builder, signature, args):
            if not in_memory:
                return ir.Constant(vector.ir, lanes)
            name = f"ternops.constant.{digest}"
            place = builder.module.globals.get(name)
            if place is None:
                place = ir.GlobalVariable(builder.module, vector.ir, name)
                place.initializer = ir.Constant(vector.ir, lanes)
                place.linkage = "weak"
                place.align = vector.bytes
            return builder.load(place)

        return vector(), generate

    return intrinsic(check)


@intrinsic
def take(typing_context, value, first, count, step):
    """`count` lanes of a vector from `first` on, `step` apart (literals)."""
    literals = (first, count, step)
    if not isinstance(value, Vector):
        return None
    if not all(isinstance(each, types.IntegerLiteral) for each in literals):
        return None
    start, lanes, stride = (each.literal_value for each in literals)
    result = Vector(value.element, lanes)

    def generate(context, builder, signature, args):
        order = [start + i * stride for i in range(lanes)]
        mask = ir.Constant(ir.VectorType(_I32, lanes), order)
        return builder.shuffle_vector(args[0], args[0], mask)

    return result(value, first, count, step), generate


@intrinsic
def interleave(typing_context, left, right):
    """left[0], right[0], left[1], right[1], ...: a vector of twice as many lanes."""
    if not isinstance(left, Vector) or left != right:
        return None
    result = Vector(left.element, 2 * left.lanes)

    def generate(context, builder, signature, args):
        order = [i // 2 + i % 2 * left.lanes for i in range(result.lanes)]
        mask = ir.Constant(ir.VectorType(_I32, result.lanes), order)
        return builder.shuffle_vector(args[0], args[1], mask)

    return result(left, right), generate


@intrinsic
def concatenate(typing_context, left, right):
    """The lanes of two vectors, one behind the other."""
    if not isinstance(left, Vector) or left != right:
        return None
    result = Vector(left.element, 2 * left.lanes)

    def generate(context, builder, signature, args):
        mask = ir.Constant(ir.VectorType(_I32, result.lanes), list(range(result.lanes)))
        return builder.shuffle_vector(args[0], args[1], mask)

    return result(left, right), generate


@intrinsic
def gather(typing_context, vector_type, table, index):
    """Lane by lane table[index], scalars one after the other, for CPUs without byte shuffles."""
    vector = _value_type(vector_type)
    if not isinstance(vector, Vector) or not isinstance(table, Pointer):
        return None
    if not isinstance(index, Vector) or index.lanes != vector.lanes:
        return None

    def generate(context, builder, signature, args):
        entries = builder.bitcast(args[1], _ELEMENTS[vector.element].as_pointer())
        result = ir.Constant(vector.ir, ir.Undefined)
        for i in range(vector.lanes):
            at = builder.zext(builder.extract_element(args[2], ir.Constant(_I32, i)), _I64)
            entry = builder.load(builder.gep(entries, [at]), align=1)
            result = builder.insert_element(result, entry, ir.Constant(_I32, i))
        return result

    return vector(vector_type, table, index), generate


@intrinsic
def widen(typing_context, vector_type, value):
    """The lanes of a vector in the first lanes of a longer one, zeros behind."""
    vector = _value_type(vector_type)
    if not isinstance(vector, Vector) or not isinstance(value, Vector):
        return None
    if vector.element != value.element or vector.lanes < value.lanes:
        return None

    def generate(context, builder, signature, args):
        order = [min(i, value.lanes) for i in range(vector.lanes)]
        mask = ir.Constant(ir.VectorType(_I32, vector.lanes), order)
        return builder.shuffle_vector(args[1], ir.Constant(value.ir, None), mask)

    return vector(vector_type, value), generate


@intrinsic
def select_greater(typing_context, left, right, then, otherwise):
    """Lane by lane ``then if left > right else otherwise`` (signed or float compare)."""
    if not isinstance(left, Vector) or left != right or then != otherwise:
        return None

    def generate(context, builder, signature, args):
        compare = builder.fcmp_ordered if left.is_float else builder.icmp_signed
        return builder.select(compare(">", args[0], args[1]), args[2], args[3])

    return then(left, right, then, otherwise), generate


@intrinsic
def at_least(typing_context, value, bound):
    """Lane by lane -1 (all bits) where ``value >= bound``, else 0; both integer vectors."""
    if not isinstance(value, Vector) or value != bound or value.is_float:
        return None

    def generate(context, builder, signature, args):
        compare = builder.icmp_unsigned if value.is_unsigned else builder.icmp_signed
        return builder.sext(compare(">=", *args), value.ir)

    return value(value, bound), generate


@intrinsic
def reduce_add(typing_context, value):
    """The sum of an i32 vector's lanes as int32 (wraps around; any order gives the same)."""
    if not isinstance(value, Vector) or value.element != "i32":
        return None

    def generate(context, builder, signature, args):
        kind = ir.FunctionType(_I32, [value.ir])
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
            place = builder.add(start, ir.Constant(_I64, i))
            slot = builder.gep(args[0], [ir.Constant(_I64, 0), place], inbounds=True)
            vectors.append(builder.load(slot))
        width = 1  # lane i of a vector belongs to its source number i % width
        while len(vectors) > 1:
            order = [
                half + (lanes + i - width if i % (2 * width) >= width else i)
                for half in (0, width)
                for i in range(lanes)
            ]
            masks = [
                ir.Constant(ir.VectorType(_I32, lanes), order[at : at + lanes]) for at in (0, lanes)
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
            builder.gep(args[0], [ir.Constant(_I64, 0), ir.Constant(_I64, i)], inbounds=True)
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
            masks = [ir.Constant(ir.VectorType(_I32, lanes), order) for order in orders]
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
    if not isinstance(value, Vector) or not isinstance(index, types.IntegerLiteral):
        return None
    scalar = types.float32 if value.element == "f32" else types.int32

    def generate(context, builder, signature, args):
        return builder.extract_element(args[0], ir.Constant(_I32, index.literal_value))

    return scalar(value, index), generate


# ---------------------------------------------------------------------------------------- threads


def _atomic(name: str, arity: int, emit: Callable[..., Any], result: types.Type) -> Any:
    def check(*given: types.Type) -> Any:
        first, *rest = given
        if not isinstance(first, Pointer) or not all(isinstance(r, types.Integer) for r in rest):
            return None

        def generate(context, builder, signature, args):
            target = builder.bitcast(args[0], _I64.as_pointer())
            values = [
                context.cast(builder, value, kind, types.int64)
                for value, kind in zip(args[1:], signature.args[1:], strict=True)
            ]
            emitted = emit(builder, target, *values)
            return context.get_dummy_value() if result == types.none else emitted

        return result(*given), generate

    makers: dict[int, Callable[..., Any]] = {
        1: lambda typing_context, a: check(a),
        2: lambda typing_context, a, b: check(a, b),
        3: lambda typing_context, a, b, c: check(a, b, c),
    }
    return intrinsic(makers[arity])


def _compare_and_swap(builder: Any, target: Any, expected: Any, new: Any) -> Any:
    pair = builder.cmpxchg(target, expected, new, "seq_cst", "seq_cst")
    return builder.extract_value(pair, 1)


#: int64 in memory: load, store, add (gives the old value) and compare-and-swap (gives success),
#: all sequentially consistent.
atomic_load = _atomic("load", 1, lambda b, p: b.load_atomic(p, "seq_cst", 8), types.int64)
atomic_store = _atomic("store", 2, lambda b, p, v: b.store_atomic(v, p, "seq_cst", 8), types.none)
atomic_add = _atomic("add", 2, lambda b, p, v: b.atomic_rmw("add", p, v, "seq_cst"), types.int64)
atomic_swap_if = _atomic("swap_if", 3, _compare_and_swap, types.boolean)


@intrinsic
def pause(typing_context):
    """Tell the core that this is a waiting loop."""

    def generate(context, builder, signature, args):
        if machine() in ("x86_64", "amd64"):
            name, values = "llvm.x86.sse2.pause", []
        elif machine() in ARM:
            name, values = "llvm.aarch64.hint", [ir.Constant(_I32, 1)]  # yield
        else:
            return context.get_dummy_value()
        kind = ir.FunctionType(ir.VoidType(), [value.type for value in values])
        builder.call(cgutils.get_or_insert_function(builder.module, kind, name), values)
        return context.get_dummy_value()

    return types.none(), generate


def _yield(builder: Any) -> None:
    name = "SwitchToThread" if os.name == "nt" else "sched_yield"
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_I32, []), name)
    builder.call(function, [])


@intrinsic
def yield_thread(typing_context):
    """Give the rest of the time slice to another thread."""

    def generate(context, builder, signature, args):
        _yield(builder)
        return context.get_dummy_value()

    return types.none(), generate


#: The number of Linux's system call futex, by `machine`.
_FUTEX = {"x86_64": 202, "amd64": 202, "aarch64": 98, "arm64": 98}


def _has_futex() -> bool:
    return sys.platform == "linux" and machine() in _FUTEX


def _futex(builder: Any, address: Any, operation: int, value: Any) -> None:
    kind = ir.FunctionType(_I64, [_I64], var_arg=True)
    call = cgutils.get_or_insert_function(builder.module, kind, "syscall")
    private, none = 128, ir.Constant(_I64, 0)  # no timeout, and no other process's futex
    number, what = (ir.Constant(_I64, n) for n in (_FUTEX[machine()], operation | private))
    builder.call(call, [number, address, what, value, none, none, none])


@intrinsic
def futex_wait(typing_context, address, value):
    """Sleep until `futex_wake`, if the int64 at `address` is still `value` (Linux; maybe sooner).

    Only the lower 32 bits are compared. Where there is no such call it is `yield_thread`.
    """
    if not isinstance(address, Pointer):
        return None

    def generate(context, builder, signature, args):
        if not _has_futex():
            _yield(builder)
            return context.get_dummy_value()
        value = context.cast(builder, args[1], signature.args[1], types.int64)
        low = builder.and_(value, ir.Constant(_I64, 2**32 - 1))
        _futex(builder, builder.ptrtoint(args[0], _I64), 0, low)
        return context.get_dummy_value()

    return types.none(address, value), generate


@intrinsic
def futex_wake(typing_context, address):
    """Wake all threads that sleep in `futex_wait` at this address."""
    if not isinstance(address, Pointer):
        return None

    def generate(context, builder, signature, args):
        if _has_futex():
            everybody = ir.Constant(_I64, 2**31 - 1)
            _futex(builder, builder.ptrtoint(args[0], _I64), 1, everybody)
        return context.get_dummy_value()

    return types.none(address), generate


@intrinsic
def nanoseconds(typing_context):
    """A steady clock as int64; 0 where the system has none that kernels can call (Windows)."""

    def generate(context, builder, signature, args):
        if os.name == "nt":
            return ir.Constant(_I64, 0)
        pair = ir.ArrayType(_I64, 2)  # struct timespec
        kind = ir.FunctionType(_I32, [_I32, pair.as_pointer()])
        function = cgutils.get_or_insert_function(builder.module, kind, "clock_gettime")
        time = cgutils.alloca_once(builder, pair)
        builder.call(function, [ir.Constant(_I32, 6 if sys.platform == "darwin" else 1), time])
        parts = builder.load(time)
        seconds = builder.mul(builder.extract_value(parts, 0), ir.Constant(_I64, 10**9))
        return builder.add(seconds, builder.extract_value(parts, 1))

    return types.int64(), generate


@intrinsic
def call_job(typing_context, address, record, team, thread, threads):
    """Call the job (see `Job`) whose compiled code lies at `address`."""
    given = (address, record, team, thread, threads)

    def generate(context, builder, signature, args):
        kind = ir.FunctionType(ir.VoidType(), [_I64] * 4)
        function, *values = (
            context.cast(builder, value, each, types.intp)
            for value, each in zip(args, signature.args, strict=True)
        )
        builder.call(builder.inttoptr(function, kind.as_pointer()), values)
        return context.get_dummy_value()

    return types.none(*given), generate


# ---------------------------------------------------------------------------------- compiling


ARM = ("aarch64", "arm64")  #: `machine` on 64-bit ARM


def machine() -> str:
    """The architecture that Numba compiles for, as LLVM names it: "x86_64", "aarch64", ..."""
    return llvm.get_process_triple().split("-")[0]


def cpu_name() -> str:
    """The CPU model that Numba compiles for, as LLVM names it."""
    return config.CPU_NAME or llvm.get_host_cpu_name()


_SCALABLE = ("sve", "sve2", "sme")


@functools.cache
def _feature_list() -> str:
    """What LLVM is told of the CPU: what it finds itself, and on ARM what the system says.

    The name of an ARM core says what the model has, which the system may hide and an unknown model
    has all the same: each feature that tiers use is named, with or without. SVE is left out:
    kernels have vectors of one width, and LLVM 22 miscompiles some sums for SVE of 256 bits
    (llvm-project 204939).
    """
    asked = config.CPU_FEATURES
    found = llvm.get_host_cpu_features().flatten() if asked is None else asked
    if machine() not in ARM:
        return str(found)
    kept = [name for name in found.split(",") if name and not name[1:].startswith(_SCALABLE)]
    granted = hwcap.features().items() if asked is None else ()
    named = [("+" if has else "-") + name for name, has in granted]
    return ",".join([*kept, *named, *(f"-{name}" for name in _SCALABLE)])


@functools.cache
def features() -> frozenset[str]:
    """The CPU features that kernels are compiled with, and so the only ones they may use."""
    last = {name[1:]: name[:1] for name in _feature_list().split(",")}  # as LLVM has it
    return frozenset(name for name, sign in last.items() if sign == "+")


@functools.cache
def _digest(folder: Path) -> str:
    """Changes with any Python file of a folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


class _Locator(caching._CacheLocator):
    def __init__(self, function: Any, file: str) -> None:
        self._name = str(function.__code__.co_firstlineno)
        # Kernels may be written elsewhere, in a benchmark or by a user.
        folder = Path(file).resolve().parent
        if PACKAGE not in (folder, *folder.parents):
            self._name += f"-{_digest(folder)}"

    def ensure_cache_path(self) -> None:
        make(Path(cache_folder()))  # once more: a temporary folder may have been cleaned

    def get_cache_path(self) -> str:
        return cache_folder()

    def get_source_stamp(self) -> str:
        return "the folder's name is the stamp"

    def get_disambiguator(self) -> str:
        return self._name

    @classmethod
    def from_function(cls, function: Any, file: str) -> _Locator:
        return cls(function, file)


class _Store(caching.CompileResultCacheImpl):
    _locator_classes = [_Locator]  # noqa: RUF012


class _File(caching.IndexDataCacheFile):
    """Numba's, with a checksum behind the code, and nothing left behind by an interruption."""

    def _dump(self, value: Any) -> bytes:
        data: bytes = super()._dump(value)
        return data + _crc(data)

    def _load_data(self, name: str) -> Any:
        data = Path(self._data_path(name)).read_bytes()
        if _crc(data[:-4]) != data[-4:]:
            raise ValueError(f"{name}: damaged")
        return super()._load_data(name)

    @contextlib.contextmanager
    def _open_for_write(self, path: str) -> Iterator[Any]:
        with replaced(path) as temporary, open(temporary, "wb") as file:
            yield file


def _crc(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(4, "little")


class _FolderCache(caching.FunctionCache):
    _impl_class = _Store

    def _index_key(self, signature: Any, target: Any) -> Any:
        """Numba's, of which each gets an index to itself: two processes that add to one at once,
        for other closures or another CPU, can give a key the other's code."""
        key = super()._index_key(signature, target)
        name = f"{self._impl.filename_base}-{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}"
        stamp = self._impl.locator.get_source_stamp()
        self._cache_file = _File(self._cache_path, name, stamp)
        return key


class _Cache(caching.NullCache):
    """A function's cache on disk, looked for when it is first needed and not at import."""

    def __init__(self, function: Any) -> None:
        self._function = function

    @property
    def cache_path(self) -> str:
        return cache_folder()

    def load_overload(self, signature: Any, target: Any) -> Any:
        if not cache_folder():
            return None
        try:
            check(Path(cache_folder()))
        except OSError:  # no longer ours, or there
            return None
        files = _FolderCache(self._function)
        try:
            return files.load_overload(signature, target)
        except Exception:  # a damaged file, of whatever kind, costs a compilation and is replaced
            with contextlib.suppress(OSError):
                files.flush()
            return None

    def save_overload(self, signature: Any, data: Any) -> None:
        if not cache_folder():
            tell_loss()
            return
        try:
            _FolderCache(self._function).save_overload(signature, data)
        except OSError as error:  # a full disk only costs a compilation next time
            tell_loss(f"{cache_folder()}: {error.strerror or error}")
        else:
            tell_loss()


#: Numba's settings that change code, at their defaults.
_SETTINGS = {
    "OPT": config._OptLevel(3),
    "LOOP_VECTORIZE": 1,
    "SLP_VECTORIZE": 0,
    "LLVM_REFPRUNE_PASS": 1,
    "LLVM_REFPRUNE_FLAGS": "all",
    "BOUNDSCHECK": None,
    "DEBUGINFO_DEFAULT": 0,
    "EXTEND_VARIABLE_LIFETIMES": 0,
    "DEBUG_JIT": 0,
    "CACHE_LOCATOR_CLASSES": "",  # whose folder would know nothing of tiers
}


@contextlib.contextmanager
def _plain_settings() -> Iterator[None]:
    """Compile in here: kernels are the same whatever Numba is told to do with other code."""
    with global_compiler_lock:
        config.reload_config()  # now, and so not in the middle
        told = {name: getattr(config, name) for name in _SETTINGS}
        vars(config).update(_SETTINGS)
        try:
            yield
        finally:
            vars(config).update(told)


class _Codegen(codegen.JITCPUCodegen):
    """Numba's, with our list of features."""

    def _get_host_cpu_features(self) -> str:
        return _feature_list()


class _Target(registry.CPUTarget):
    """Numba's CPU target, in all but the code generator: whose code is compiled before us, and
    how, changes nothing."""

    @functools.cached_property
    def _toplevel_target_context(self) -> Any:
        context = copy.copy(registry.cpu_target.target_context)
        with _plain_settings():
            context._internal_codegen = _Codegen("ternops")
        context.cached_internal_func = {}
        return context

    @property
    def typing_context(self) -> Any:
        return registry.cpu_target.typing_context


_TARGET = _Target("cpu")


class _Dispatcher(registry.CPUDispatcher):
    targetdescr = _TARGET

    def compile(self, signature: Any) -> Any:
        with _plain_settings():
            return super().compile(signature)


class _CFunc(ccallback.CFunc):
    _targetdescr = _TARGET

    def compile(self) -> None:
        with _plain_settings():
            super().compile()


_OPTIONS = {"nopython": True, "error_model": "numpy", "boundscheck": False}


def inlined(function: Callable[..., Any]) -> Any:
    """A function of kernel code that is inlined where it is called, so that constant arguments
    unroll its loops.

    Call it from kernel code: `njit` itself compiles for what LLVM finds out about the CPU, which on
    ARM may lack the instruction.
    """
    return _Dispatcher(function, targetoptions={**_OPTIONS, "nogil": True, "forceinline": True})


def kernel(function: Callable[..., Any]) -> Any:
    """A function of kernel code that is called."""
    return _Dispatcher(function, targetoptions={**_OPTIONS, "nogil": True})


def entry(function: Callable[..., Any]) -> Any:
    """A compiled function that Python calls; its code is kept on disk."""
    dispatcher = kernel(function)
    dispatcher._cache = _Cache(function)
    return dispatcher


def _lock_compiler() -> None:
    global_compiler_lock.acquire()
    llvm.ffi.lib._lock._lock.acquire()


def _unlock_compiler() -> None:
    llvm.ffi.lib._lock._lock.release()
    global_compiler_lock.release()


if hasattr(os, "register_at_fork"):
    # No fork while another thread compiles: the child would wait for its locks for ever.
    os.register_at_fork(
        before=_lock_compiler, after_in_parent=_unlock_compiler, after_in_child=_unlock_compiler
    )


class Job:
    """A compiled function that a team's threads call: ``f(record, team, thread, threads)``.

    All four are integers: the address of the job's record, the address of the team's control
    block (for barriers), this thread's number, and how many take part. Compiled, or loaded from
    the disk cache, when `address` is first asked for.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.__doc__ = function.__doc__
        self.name = function.__name__
        self._function = function
        self._address: int | None = None

    def _compile(self, cache: Any) -> Any:
        signature = ((types.intp,) * 4, types.void)
        compiled: Any = _CFunc(self._function, signature, {}, dict(_OPTIONS))
        compiled._cache = cache
        compiled.compile()
        return compiled

    @property
    def address(self) -> int:
        """Of the machine code."""
        # No cached_property: Python 3.11's holds a lock meanwhile, which a fork would inherit.
        if self._address is None:
            self._address = int(self._compile(_Cache(self._function)).address)
        return self._address

    def assembly(self) -> str:
        """The machine code as text, with LLVM's remarks on what is spilled.

        Compiled anew: what comes from the cache has lost its text.
        """
        library = self._compile(caching.NullCache())._library
        library.codegen._tm.set_asm_verbosity(True)
        return str(library.get_asm_str())
