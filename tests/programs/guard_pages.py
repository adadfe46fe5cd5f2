"""Kernels on arrays that end at a page that cannot be read: touching it ends this process.

python -m tests.programs.guard_pages PART

prints "done" after a part: products, int8, floats, grouped, all-groups, along-columns,
rows-of-floats; packing.
"fault" reads one byte too many, and so must not come to its end.
"""

from __future__ import annotations

import ctypes
import itertools
import mmap
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

import ternops
from ternops.absmean import MIN_ABSMAX
from ternops.encodings import ENCODINGS, PANELS, common
from ternops.encodings.blocks import Blocks
from ternops.encodings.panels import GROUPS, Panels
from ternops.kernels import reference
from ternops.kernels.call import Call, Operand
from ternops.kernels.delta import convolve, delta_steps, gates, unit
from ternops.kernels.elementwise import (
    add,
    copy_row,
    gate_relu2,
    gate_silu,
    quantize_row,
    rms_norm,
)
from ternops.kernels.fp16 import KINDS, half_row
from ternops.kernels.linear import linear
from ternops.kernels.operands import OPERANDS
from ternops.matrix import TernaryMatrix
from ternops.packed import Packed
from ternops.packing import (
    DIGITS,
    FIELDS,
    PAIRS,
    SIGNS,
    Codes,
    pack_codes,
    pack_trits,
    unpack_rows,
)
from ternops.quantizers.fp8 import FORMATS, decode, encode
from ternops.simd import kernel, pointer
from ternops.team import TEAM
from tests.helpers import cases, grouped_call, internals

Array = npt.NDArray[Any]

#: Of each form, with scales before and behind codes, and without.
CODES = (
    Codes(PAIRS, 32, 8), Codes(PAIRS, 64, 18, codes=2, scale=0), Codes(SIGNS, 128, 18, 0, 2, 0),
    Codes(FIELDS, 256, 66, scale=64, apart=32), Codes(FIELDS, 64, 16, first=4),
    Codes(DIGITS, 128, 28, scale=26, stages=((16, 5), (8, 5), (2, 4))),
)  # fmt: skip

PAGE = mmap.PAGESIZE
libc = ctypes.CDLL(None, use_errno=True)
libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
kept: list[mmap.mmap] = []

# 64 rows of anything fill whole cache lines, and so do fewer rows of some lengths.
_COLUMNS = (
    1, 2, 3, 4, 5, 23, 24, 25, 63, 64, 65, 127, 128, 129, 191, 192, 193, 251, 253, 254, 255, 256,
    257, 258, 259, 319, 320, 321, 322, 511, 512, 513, 639, 640, 641, 1021,
)  # fmt: skip
SHAPES = [(64, columns) for columns in _COLUMNS] + [
    (1, 256), (2, 256), (3, 512), (5, 768), (7, 1024), (2, 128), (6, 128), (4, 64), (4, 320),
    (12, 64), (1, 253), (1, 254), (3, 255), (16, 16), (32, 8), (2, 4223), (1, 8191),
    (1, 320), (2, 320), (3, 640), (1, 317), (2, 158), (4, 80), (16, 20), (128, 5), (1, 8320),
    (192, 65), (192, 25), (256, 257), (64, 4097),
]  # fmt: skip
GROUPED_SHAPES = [(1, 32), (16, 64), (17, 256), (33, 320), (31, 352), (64, 512), (80, 1056)]
LENGTHS = (1, 2, 3, 4, 7, 15, 16, 17, 31, 32, 33, 63, 64, 65, 255, 256, 257, 320, 321, 509, 769)


def ending(array: Array) -> Array:
    """A copy whose last byte is the last before a page that faults."""
    array = np.ascontiguousarray(array)
    pages = -(-array.nbytes // PAGE) + 2
    memory = mmap.mmap(-1, pages * PAGE)
    kept.append(memory)
    whole = np.frombuffer(memory, np.uint8)
    for guard in (0, (pages - 1) * PAGE):
        assert libc.mprotect(whole.ctypes.data + guard, PAGE, 0) == 0, ctypes.get_errno()
    last = (pages - 1) * PAGE
    part = whole[last - array.nbytes : last].view(array.dtype).reshape(array.shape)
    part[...] = array
    return part


def matrix_ending(trits: Array, encoding: str, scale: Any = None) -> TernaryMatrix | None:
    """None where the packed bytes do not fill cache lines, and so cannot end at a page."""
    packed = ending(ENCODINGS[encoding].pack(trits))
    if packed.ctypes.data % 64:
        return None
    rows, columns = trits.shape
    matrix = TernaryMatrix(Packed(packed, rows, columns, scale, encoding))
    assert np.shares_memory(internals.packed(matrix).bytes, packed)
    return matrix


def whole_matrix(trits: Array, encoding: str, scale: Any = None) -> TernaryMatrix:
    """The same of a shape whose packed bytes do fill cache lines."""
    matrix = matrix_ending(trits, encoding, scale)
    assert matrix is not None
    return matrix


def scratch_ending(size: int, dtype: npt.DTypeLike) -> Array:
    """Whole cache lines of scratch memory."""
    return ending(np.empty(-(-size // 64) * 64, dtype))


def kernels(encoding: str) -> Iterator[tuple[int, ...]]:
    """Use each shape class of an encoding for every product that its kernels can take."""
    for kind in [kind for name, kind in cases.KINDS if name == encoding]:
        with internals.forced_kernel(kind) as kind_of:
            yield (1,) if kind in cases.OF_ONE_TOKEN else (1, 2, 3, 8, 9, 17)
        assert kind_of.called


def matrices() -> None:
    """int8 products of every kind of tail, in every kernel."""
    tried = dict.fromkeys(cases.ENCODINGS, 0)
    for encoding, shape in itertools.product(cases.ENCODINGS, SHAPES):
        trits = cases.trits(*shape, encoding=encoding)
        if matrix_ending(trits, encoding) is None:
            continue
        tried[encoding] += 1
        x = cases.activations(17, shape[1])
        expected = reference.matmul_int32(x, trits)
        for batches in kernels(encoding):
            matrix = whole_matrix(trits, encoding)
            for m, threads in itertools.product(batches, (1, 3)):
                out = ending(np.full((m, shape[0]), -1, np.int32))
                found = ternops.matmul(ending(x[:m]), matrix.T, out=out, threads=threads)
                assert found is out
                assert cases.same_bits(out, expected[:m]), (encoding, shape, m, threads)
            out = ending(np.full(shape[0], -1, np.int32))
            assert ternops.matmul(matrix, ending(x[0]), out=out) is out
            assert cases.same_bits(out, expected[0]), (encoding, shape)
        kept.clear()
    assert min(tried.values()) > len(SHAPES) * 3 // 5, tried


def floats() -> None:
    """Products of float operands, which are quantised first."""
    for encoding, columns in itertools.product(cases.ENCODINGS, LENGTHS):
        trits, scale = cases.trits(64, columns, encoding=encoding), ending(cases.scales(64)["rows"])
        x = cases.floats(17, columns)
        quantized, step = reference.quantize_rows(x, MIN_ABSMAX)
        total = reference.matmul_int32(quantized, trits).astype(np.float32)
        expected = total * scale * step[:, None]
        for batches in kernels(encoding):
            matrix = whole_matrix(trits, encoding, scale)
            for m in batches:
                out = ending(np.full((m, 64), np.nan, np.float32))
                assert ternops.matmul(ending(x[:m]), matrix.T, out=out, threads=2) is out
                assert cases.same_bits(out, expected[:m]), (encoding, columns, m)
        for dtype in (np.float16, np.float64):
            x = cases.floats(2, columns, dtype=np.float16).astype(dtype)
            assert cases.same_bits(ending(x) @ matrix.T, x @ matrix.T)
        kept.clear()


def along_columns() -> None:
    """Products that unpack the matrix."""
    shapes = ((64, 5), (64, 64), (64, 257), (4096, 4), (192, 25))
    for encoding, shape in itertools.product(ENCODINGS, shapes):
        trits = cases.trits(*shape, encoding=encoding)
        matrix = whole_matrix(trits, encoding)
        x = cases.activations(3, shape[0])
        expected = reference.matmul_int32(x, trits.T)
        out = ending(np.full((3, shape[1]), -1, np.int32))
        assert ternops.matmul(ending(x), matrix, out=out) is out
        assert cases.same_bits(out, expected), shape
        assert (matrix.to_trits() == trits).all()
        kept.clear()


def grouped(groups_of: Callable[[str], Iterable[int]] = cases.groups_of) -> None:
    """Products with a scale a group, of int8 and of floats with a step a token and a group; each
    array ends at such a page. groups_of: those of an encoding."""
    for encoding, (rows, columns) in itertools.product(PANELS, GROUPED_SHAPES):
        for group in (each for each in groups_of(encoding) if columns % each == 0):
            is_half = rows % 2 == 0
            weights, scale, _ = cases.grouped(rows, columns, group, encoding, is_half)
            for x in (cases.activations(33, columns), cases.floats(33, columns)):
                quantized, steps = x, np.ones((33, columns // group), np.float32)
                if is_float := x.dtype != np.int8:
                    quantized, steps = reference.quantize_groups(x, group, MIN_ABSMAX)
                expected = reference.grouped_product(quantized, weights, scale, steps)
                for m, threads in itertools.product((1, 2, 3, 7, 16, 33), (1, 2)):
                    found = grouped_call.call(
                        encoding, weights, scale, x[:m], threads, ending, is_blocked=is_float
                    )
                    where = encoding, rows, columns, group, m
                    assert cases.same_bits(found, expected[:m]), where
                kept.clear()


def packing() -> None:
    """Values and codes of files are packed, and unpacked, with the same result as elsewhere."""
    random = np.random.default_rng(0)
    layouts = [each[name] for each in (ENCODINGS, PANELS) for name in PANELS]
    for layout, rows, columns in itertools.product(layouts, (1, 16, 33), (1, 37, 64, 320, 2592)):
        values = cases.trits(rows, columns, encoding=layout.name)
        expected = layout.pack(values)
        packed = pack_trits(layout, ending(values), ending(np.ones_like(expected)))
        assert cases.same_bits(packed, expected)
        for first in range(0, rows, 7):
            found = unpack_rows(layout, packed[: -common.SLACK], rows, columns, first)
            assert cases.same_bits(found, values[first:])
        kept.clear()
    for codes, rows, blocks, layout in itertools.product(
        CODES, (1, 16, 33), (1, 3, 11), (ENCODINGS["base3"], PANELS["two_bit"])
    ):
        columns = blocks * codes.weights
        assert isinstance(layout, Blocks | Panels)
        data = random.integers(0, 256, (rows, codes.first + blocks * codes.size), np.uint8)
        both = []
        for make in (np.array, ending):
            used = make(np.ones((rows, blocks), np.bool_))
            scales = None if codes.scale is None else make(np.ones((rows, blocks), np.float16))
            packed = make(np.ones(layout.nbytes(rows, columns) + common.SLACK, np.uint8))
            both += [(packed, used, scales)]
            pack_codes(layout, codes, make(data), columns, packed, used, scales)
        for one, other in zip(*both, strict=True):
            assert one is other is None or cases.same_bits(one, other)
        kept.clear()


@kernel
def run(a, b, c, d, e, n):
    """Each element-wise operation on rows of n."""
    rms_norm(pointer(a), pointer(b), n, 1e-5, pointer(c))
    gate_silu(pointer(a), pointer(b), 0, n, pointer(c))
    gate_relu2(pointer(a), pointer(b), 0, n, pointer(c))
    add(pointer(c), pointer(b), 0, n)
    quantize_row(pointer(a), n, 1e-5, pointer(d))
    copy_row(pointer(d), n, pointer(e))


@kernel
def last_row(weights, rows, columns, row):
    """The last row of an fp16 matrix as float32."""
    half_row(False, pointer(weights), 2 * columns, rows - 1, columns, pointer(row))


def half_product(weights: Array, x: Array, out: Array) -> None:
    """A product with fp16 weights."""
    rows, columns = weights.shape
    operand = Operand("fp16", weights.ctypes.data, weights.nbytes, rows, columns, scale_step=0)
    call = Call.of(operand, len(x), kind="one")
    placed = ending(np.empty(call.placed_bytes // 4, np.float32))
    record: Any = np.zeros((), OPERANDS)
    call.write_apart(
        record.data.cast("B"), x.ctypes.data, out.ctypes.data, placed.ctypes.data, 0, 0, 0
    )
    TEAM.run(linear, record, 2)


def float8_product(name: str, codes: Array, x: Array, scales: Array, out: Array) -> None:
    """A product with floats of eight bits, a scale a row."""
    rows, columns = codes.shape
    address = scales.ctypes.data
    operand = Operand(name, codes.ctypes.data, codes.nbytes, rows, columns, address, 4)
    call = Call.of(operand, len(x), kind="one")
    placed = ending(np.empty(call.placed_bytes // 4, np.float32))
    record: Any = np.zeros((), OPERANDS)
    call.write_apart(
        record.data.cast("B"), x.ctypes.data, out.ctypes.data, placed.ctypes.data, 0, 0, 0
    )
    TEAM.run(linear, record, 2)


def rows_of_floats() -> None:
    """Element-wise operations and fp16 weights."""
    for n in range(1, 70):
        a, b, c = (ending(cases.floats(n, seed=seed)) for seed in range(3))
        d, e = (ending(np.zeros(n, np.int8)) for _ in range(2))
        run(a, b, c, d, e, n)
        positive = np.maximum(a, 0)
        assert cases.same_bits(c, positive * positive * b + b)
        assert cases.same_bits(d[None], reference.quantize_rows(a[None], 1e-5)[0])
        assert cases.same_bits(e, d)
        kept.clear()
        delta_net(n)
        kept.clear()
    for rows in (1, 2, 3, 5, 8):
        for columns in (32, 64, 96):
            weights = ending(cases.floats(rows, columns, dtype=np.float16))
            last = weights[-1].astype(np.float32)
            row = ending(np.ones(columns, np.float32))
            last_row(weights.view(np.uint16), rows, columns, row)
            assert cases.same_bits(row, last)
            for tokens in (1, 4, 6):
                x = ending(cases.floats(tokens, columns))
                out = ending(np.ones((tokens, rows), np.float32))
                half_product(weights, x, out)
                expected = reference.dot(weights.astype(np.float32), x[:, None])
                assert cases.same_bits(out, expected)
        for name, kind in FORMATS.items():
            codes = ending(encode(cases.floats(rows, 64), kind))
            scales = ending(cases.scales(rows)["rows"])
            for tokens in (1, 4, 6):
                x, out = (
                    ending(cases.floats(tokens, 64)),
                    ending(np.ones((tokens, rows), np.float32)),
                )
                float8_product(name, codes, x, scales, out)
                weights, factor = decode(codes, kind), KINDS[name].factor or 1
                assert cases.same_bits(out, reference.float8_product(weights, factor, scales, x))
        kept.clear()


def delta_net(n: int) -> None:
    """What a gated delta net computes of rows of n floats: two tokens, three dimensions of keys."""
    x, before, taps, forget, write, rows = (
        ending(cases.floats(*shape, seed=seed))
        for seed, shape in enumerate(((2, n), (3, n), (4, n), (n,), (n,), (2, 6 + n)))
    )
    out = [ending(np.zeros(shape, np.float32)) for shape in (n, 2, 2, (2, n))]
    state = ending(np.zeros((-(-n // 16), 3, 16), np.float32))
    right = reference.convolve(x.copy(), before.copy(), taps)
    run_delta(x, before, taps, forget, write, rows, *out, state, n)
    assert cases.same_bits(x, right)
    assert cases.same_bits(out[0], reference.unit(x[1], 1))
    bias, rate = forget[-1:], write[-1:]
    keep = reference.exp(reference.softplus(reference.dot(x, forget) + bias) * -rate)
    share = reference.sigmoid(reference.dot(x, write))
    assert cases.same_bits(out[1], keep)
    assert cases.same_bits(out[2], share)
    found = np.zeros((1, 3, n), np.float32)
    for t, row in enumerate(rows[:, None]):
        at = slice(t, t + 1)
        found, expected = reference.delta_step(
            found, row[:, :3], row[:, 3:6], row[:, 6:], keep[at], share[at]
        )
        assert cases.same_bits(out[3][at], expected)


@kernel
def run_delta(
    x, before, taps, forget, write, rows, length, keep, share, out, state, n
):  # fmt: skip
    convolve(pointer(x), n, 2, pointer(before), pointer(taps), 0, n)
    unit(pointer(x) + 4 * n, n, np.float32(1), pointer(length))
    last = 4 * (n - 1)
    gates(
        pointer(x), n, 2, pointer(forget), pointer(write), pointer(forget) + last,
        pointer(write) + last, pointer(keep), pointer(share), 1,
    )  # fmt: skip
    delta_steps(
        pointer(state), 3, n, pointer(rows), pointer(rows) + 12, pointer(rows) + 24, 6 + n,
        pointer(keep), pointer(share), 1, 2, pointer(out), n,
    )  # fmt: skip


def fault() -> None:
    """Read one byte after such an array."""
    ctypes.string_at(ending(np.zeros(5, np.uint8)).ctypes.data + 5, 1)


PARTS: dict[str, Callable[[], None]] = {
    "int8": matrices,
    "floats": floats,
    "grouped": grouped,
    "all-groups": partial(grouped, lambda encoding: GROUPS),
    "along-columns": along_columns,
    "rows-of-floats": rows_of_floats,
    "packing": packing,
    "fault": fault,
}

if __name__ == "__main__":
    with internals.eager_threads(), internals.exact_scratch(scratch_ending):
        PARTS[sys.argv[1]]()
    print("done")
