"""The vector vocabulary means what NumPy means: operators, memory, lanes, sums, float16."""

from __future__ import annotations

import operator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ternops import simd
from ternops.kernels import reference
from ternops.simd import portable, targets, vector
from ternops.simd.vector import Vector, convert, full, kernel, lane, load, pointer, store, take
from tests import cases

DTYPES = {"u8": "u1", "i8": "i1", "u16": "u2", "i16": "i2", "i32": "i4", "f32": "f4"}
KINDS = [(element, lanes) for element in DTYPES for lanes in (1, 2, 4, 8, 16, 32, 64)]
SPECIALS = np.array(
    [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 1.1754944e-38, 3.4028235e38,
     65504.0, 65519.996, 65520.0, 5.9604645e-08, 2.9802322e-08, 2.9802326e-08, 6.1035156e-05],
    np.float32,
)  # fmt: skip


def values(element, count, seed=0):
    """Random elements of the whole range, as a NumPy array."""
    random = np.random.default_rng((seed, count))
    if element == "f32":
        return random.standard_normal(count).astype(np.float32)
    info = np.iinfo(DTYPES[element])
    return random.integers(info.min, info.max + 1, count, DTYPES[element])


def binary(kind, function):
    """A compiled function of three arrays: target = function(left, right), a vector each."""

    @kernel
    def run(left, right, target):
        store(pointer(target), function(load(kind, pointer(left)), load(kind, pointer(right))))

    return run


def unary(kind, function):
    """A compiled function of two arrays, over whole vectors of `kind`: target = function(source)."""
    size = kind.bytes

    @kernel
    def run(source, target, count, step):
        for i in range(count):
            store(pointer(target) + i * step, function(load(kind, pointer(source) + i * size)))

    return run


@pytest.mark.parametrize(("element", "lanes"), [k for k in KINDS if k[1] in (4, 16, 64)])
def test_operators_are_numpys(element, lanes):
    """+ - * & | ^ wrap around as NumPy's do; floats have + - * / in IEEE arithmetic."""
    names = ["add", "sub", "mul", *(["truediv"] if element == "f32" else ["and_", "or_", "xor"])]
    left, right = values(element, lanes, 1), values(element, lanes, 2)
    for name in names:
        op = getattr(operator, name)
        found = np.empty_like(left)
        binary(Vector(element, lanes), vector.inlined(eval(f"lambda a, b: a {SYMBOLS[name]} b")))(
            left, right, found
        )
        assert cases.same_bits(found, op(left, right)), name


SYMBOLS = {
    "add": "+", "sub": "-", "mul": "*", "truediv": "/", "and_": "&", "or_": "|", "xor": "^",
    "lshift": "<<", "rshift": ">>",
}  # fmt: skip


@pytest.mark.parametrize("element", [each for each in DTYPES if each != "f32"])
def test_shifts_and_scalars(element):
    """>> keeps the sign of signed lanes only; a scalar counts for every lane, cut to its size."""
    kind, left = Vector(element, 16), values(element, 16)

    @kernel
    def run(source, target, amount):
        a = load(kind, pointer(source))
        size = kind_bytes
        store(pointer(target), a << amount)
        store(pointer(target) + size, a >> amount)
        store(pointer(target) + 2 * size, a & 3)
        store(pointer(target) + 3 * size, a + 1000)

    kind_bytes = kind.bytes
    one = left.dtype.type
    for amount in (0, 1, 7):
        found = np.empty((4, 16), left.dtype)
        run(left, found, amount)
        assert (found[0] == left << one(amount)).all()
        assert (found[1] == left >> one(amount)).all()
        assert (found[2] == left & one(3)).all()
        assert (found[3] == left + np.array(1000).astype(left.dtype)).all()


def test_a_scalar_operand_of_a_float_vector():
    """A float64 or integer scalar is rounded to float32 first."""

    @kernel
    def run(source, target, scalar, integer):
        a = load(simd.f32, pointer(source))
        store(pointer(target), a * scalar)
        store(pointer(target) + 64, a + integer)

    x, found = cases.floats(16), np.empty((2, 16), np.float32)
    run(x, found, 0.1, 3)
    assert cases.same_bits(found, np.stack([x * np.float32(0.1), x + np.float32(3)]))


@pytest.mark.parametrize(("element", "lanes"), [("i8", 16), ("f32", 16), ("i32", 4), ("u8", 64)])
def test_the_first_lanes_in_memory(element, lanes):
    """load_first gives zeros behind, store_first leaves what is behind alone; at any address."""
    kind = Vector(element, lanes)

    @kernel
    def run(source, target, copy, count):
        value = simd.load_first(kind, pointer(source) + 1, count)
        store(pointer(target) + 1, value)
        simd.store_first(pointer(copy) + 3, load(kind, pointer(source) + 1), count)

    size = kind.bytes // lanes
    source = np.frombuffer(bytes(range(1, 128)) * 4, np.uint8)[: kind.bytes + 8]
    for count in range(lanes + 1):
        target, copy = np.full((2, kind.bytes + 8), 255, np.uint8)
        run(source, target, copy, count)
        part = source[1 : 1 + count * size]
        expected = np.zeros(kind.bytes, np.uint8)
        expected[: len(part)] = part
        assert (target[1 : 1 + kind.bytes] == expected).all()
        assert (target[[0, -1]] == 255).all()
        assert (copy[3 : 3 + len(part)] == part).all()
        assert (copy[:3] == 255).all()
        assert (copy[3 + len(part) :] == 255).all()


def test_take_and_lane():
    """Lanes first, first + step, ...; and single lanes."""

    @kernel
    def run(source, target):
        x = load(simd.i32x16, pointer(source))
        store(pointer(target), take(x, 1, 4, 4))
        store(pointer(target) + 16, take(x, 8, 8, 1))
        store(pointer(target) + 48, lane(x, 15))
        store(pointer(target) + 52, lane(x, 0))

    x, found = np.arange(100, 116, dtype=np.int32), np.zeros(14, np.int32)
    run(x, found)
    assert found.tolist() == [101, 105, 109, 113, *range(108, 116), 115, 100]


def test_select_greater_compares_signed_and_knows_nan():
    """`then` only where left > right; NaN is greater than nothing, and 0 not than -0."""

    @kernel
    def run(left, right, target):
        a, b = load(simd.f32, pointer(left)), load(simd.f32, pointer(right))
        yes, no = full(simd.i8x16, 1), full(simd.i8x16, 0)
        store(pointer(target), simd.select_greater(a, b, yes, no))

    pairs = np.array(np.meshgrid(SPECIALS, SPECIALS)).reshape(2, -1)
    pairs = np.ascontiguousarray(pairs[:, : pairs.shape[1] // 16 * 16])
    for left, right in zip(*(each.reshape(-1, 16) for each in pairs), strict=True):
        found = np.empty(16, np.int8)
        run(left, right, found)
        assert (found == (left > right)).all()


@pytest.mark.parametrize("element", ["i8", "i32"])
def test_select_greater_of_integers(element):
    """A signed compare of the whole range."""
    kind = Vector(element, 16)
    run = binary(kind, vector.inlined(lambda a, b: simd.select_greater(a, b, a, b)))
    for seed in range(20):
        left, right = values(element, 16, seed), values(element, 16, seed + 100)
        found = np.empty_like(left)
        run(left, right, found)
        assert (found == np.maximum(left, right)).all()


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=16, max_size=16))
def test_integer_reductions(numbers):
    """reduce_add wraps around; reduce_max and maximum_i32 are signed."""
    x, found = np.array(numbers, np.int32), np.empty(18, np.int32)
    _reduce(x, found)
    assert found[0] == x.sum(dtype=np.int32)
    assert found[1] == x.max()
    assert (found[2:] == np.maximum(x, x[::-1])).all()


@kernel
def _reduce(source, target):
    x = load(simd.i32x16, pointer(source))
    store(pointer(target), simd.reduce_add(x))
    store(pointer(target) + 4, simd.reduce_max(x))
    y = full(simd.i32x16, 0)
    for i in range(16):
        y = simd.select_greater(full(simd.i32x16, 1), full(simd.i32x16, 0), y, y)
        store(pointer(target) + 8 + 4 * i, np.int32(0))
        store(pointer(target) + 8 + 4 * i, load(np.int32, pointer(source) + 4 * (15 - i)))
    store(pointer(target) + 8, simd.maximum_i32(x, load(simd.i32x16, pointer(target) + 8)))


@kernel
def _trees(source, target):
    x = load(simd.f32, pointer(source))
    store(pointer(target), simd.tree_sum(x))
    store(pointer(target) + 4, simd.tree_max(x))


def test_float_reductions_have_one_order():
    """tree_sum adds the upper half to the lower, four times; tree_max is the largest."""
    found = np.empty(2, np.float32)
    for seed in range(200):
        x = cases.floats(16, seed=seed) * np.float32(10) ** (np.arange(16) % 9 - 4)
        _trees(x.astype(np.float32), found)
        assert cases.same_bits(found[0], reference.tree_sum(x.astype(np.float32)))
        assert found[1] == x.astype(np.float32).max()
    # In this order 1e8 and -1e8 meet first, so that the 1 survives; in another it would not.
    x = np.zeros(16, np.float32)
    x[[0, 1, 8]] = 1e8, 1, -1e8
    _trees(x, found)
    assert found[0] == 1


def test_fma_rounds_once():
    """simd.fma equals reference.fma, on cases that two roundings get wrong."""

    @kernel
    def run(a, b, c, target):
        store(
            pointer(target),
            simd.fma(
                load(simd.f32, pointer(a)), load(simd.f32, pointer(b)), load(simd.f32, pointer(c))
            ),
        )

    twice = 0
    for seed in range(300):
        a, b = cases.floats(2, 16, seed=seed)
        c = (-a * b * np.float32(1 + seed % 3 * 2.0**-22)).astype(np.float32)
        found = np.empty(16, np.float32)
        run(a, b, c, found)
        assert cases.same_bits(found, reference.fma(a, b, c))
        twice += int((found != a * b + c).sum())
    assert twice > 1000
    with np.errstate(invalid="ignore", over="ignore"):
        for seed in range(40):
            a, b, c = np.random.default_rng(seed).choice(SPECIALS, (3, 16))
            run(a, b, c, found)
            assert cases.same_bits(found, reference.fma(a, b, c))


def adversarial_floats():
    """float32 around every rounding boundary of float16, and a random sample of all bits."""
    half = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    middle = (half[:-1] + half[1:]) / 2  # exact: float32 has bits to spare
    near = np.concatenate([half, middle, SPECIALS, np.float32([65519.99, 65520, 65535, 1e5])])
    near = np.concatenate([near, np.nextafter(near, np.inf), np.nextafter(near, -np.inf)])
    any_bits = np.random.default_rng(0).integers(0, 2**32, 200_000, np.uint32).view(np.float32)
    every = np.concatenate([near, -near, any_bits])
    return every[: len(every) // 16 * 16].astype(np.float32)


@pytest.mark.parametrize("name", ["load_f16", "portable"])
def test_every_half_widens_exactly(name):
    """All 65536 float16, by the tier's conversion and by the portable one."""
    widen = {
        "load_f16": simd.load_f16,
        "portable": vector.inlined(lambda source: portable.widen_half(load(simd.u16, source))),
    }[name]

    @kernel
    def run(source, target, count):
        for i in range(0, count, 16):
            store(pointer(target) + 4 * i, widen(pointer(source) + 2 * i))

    bits, found = np.arange(65536, dtype=np.uint16), np.empty(65536, np.float32)
    run(bits, found, 65536)
    assert cases.same_bits(found, bits.view(np.float16).astype(np.float32))


@pytest.mark.parametrize("name", ["store_f16", "portable"])
def test_floats_narrow_to_half_as_numpy_does(name):
    """Ties to even, subnormals, overflow to infinity; NaN stays NaN with its sign."""
    narrow = {
        "store_f16": simd.store_f16,
        "portable": vector.inlined(lambda target, x: store(target, portable.narrow_half(x))),
    }[name]

    @kernel
    def run(source, target, count):
        for i in range(0, count, 16):
            narrow(pointer(target) + 2 * i, load(simd.f32, pointer(source) + 4 * i))

    x = adversarial_floats()
    found = np.empty(len(x), np.uint16)
    run(x, found, len(x))
    with np.errstate(over="ignore"):
        expected = x.astype(np.float16)
    assert cases.same_bits(found.view(np.float16), expected)


def test_bfloat16_widens_exactly():
    """load_bf16 of all 65536 patterns is the upper half of a float32."""

    @kernel
    def run(source, target, count):
        for i in range(0, count, 16):
            store(pointer(target) + 4 * i, simd.load_bf16(pointer(source) + 2 * i))

    bits, found = np.arange(65536, dtype=np.uint16), np.empty(65536, np.float32)
    run(bits, found, 65536)
    assert (found.view(np.uint32) == bits.astype(np.uint32) << 16).all()


@pytest.mark.parametrize("extreme", [False, True])
def test_dot_of_every_tier_that_runs_here(extreme):
    """Four products a lane, added to what was there: unsigned up to 128, signed from -128."""
    dot, count = simd.dot, simd.BYTES

    @kernel
    def run(acc, unsigned, signed, target):
        a, w = load(simd.u8, pointer(unsigned)), load(simd.i8, pointer(signed))
        store(pointer(target), dot(load(simd.i32, pointer(acc)), a, w))

    random = np.random.default_rng(0)
    for _ in range(100):
        unsigned = random.choice([0, 1, 2, 128], count).astype(np.uint8)
        signed = random.integers(-128, 128, count, np.int8)
        if extreme:
            unsigned[:], signed[:] = 128, random.choice([-128, 127], count)
        acc = random.integers(-(2**20), 2**20, count // 4, np.int32)
        products = unsigned.astype(np.int32) * signed
        found = np.empty(count // 4, np.int32)
        run(acc, unsigned, signed, found)
        assert (found == acc + products.reshape(-1, 4).sum(1)).all()


@pytest.mark.parametrize(
    ("before", "after"),
    [("i8", "i32"), ("u8", "i32"), ("u16", "i32"), ("i32", "i8"), ("i32", "u16"), ("i32", "f32"),
     ("u8", "f32")],
)  # fmt: skip
def test_conversions(before, after):
    """Widening keeps the value, narrowing cuts off, integers become floats."""
    target = Vector(after, 16)
    run = unary(Vector(before, 16), vector.inlined(lambda x: convert(target, x)))
    source, found = values(before, 160), np.empty(160, DTYPES[after])
    run(source, found, 10, target.bytes)
    assert cases.same_bits(found, source.astype(DTYPES[after]))


def test_the_vectors_have_the_width_of_the_tier():
    """BYTES, and the integer vectors that are made of it."""
    assert targets.TIER.vector_bytes == simd.BYTES
    assert (simd.u8.bytes, simd.i8.bytes, simd.i32.bytes) == (simd.BYTES,) * 3
    assert simd.f32.lanes == 16
