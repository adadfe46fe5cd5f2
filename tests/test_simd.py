"""The vector vocabulary means what NumPy means: operators, memory, lanes, sums."""

from __future__ import annotations

import operator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ternops import simd
from ternops.kernels import reference
from ternops.simd import targets, vector
from ternops.simd.vector import Vector, convert, full, kernel, lane, load, pointer, store, take
from tests import cases

DTYPES = {"u8": "u1", "i8": "i1", "u16": "u2", "i16": "i2", "i32": "i4", "f32": "f4"}


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


OPERATORS = {
    operator.add: vector.inlined(lambda a, b: a + b),
    operator.sub: vector.inlined(lambda a, b: a - b),
    operator.mul: vector.inlined(lambda a, b: a * b),
    operator.and_: vector.inlined(lambda a, b: a & b),
    operator.or_: vector.inlined(lambda a, b: a | b),
    operator.xor: vector.inlined(lambda a, b: a ^ b),
    operator.truediv: vector.inlined(lambda a, b: a / b),
}


@pytest.mark.parametrize("lanes", [4, 16, 64])
@pytest.mark.parametrize("element", DTYPES)
def test_operators_are_numpys(element, lanes):
    """+ - * & | ^ wrap around as NumPy's do; floats have + - * / in IEEE arithmetic."""
    left, right = values(element, lanes, 1), values(element, lanes, 2)
    found = np.empty_like(left)
    bitwise = (operator.and_, operator.or_, operator.xor)
    for op, ours in OPERATORS.items():
        if op in (bitwise if element == "f32" else (operator.truediv,)):
            continue
        binary(Vector(element, lanes), ours)(left, right, found)
        assert cases.same_bits(found, op(left, right)), op.__name__


@pytest.mark.parametrize("element", [each for each in DTYPES if each != "f32"])
def test_shifts_and_scalars(element):
    """>> keeps the sign of signed lanes only; a scalar counts for every lane, cut to its size."""
    kind, left = Vector(element, 16), values(element, 16)
    size = kind.bytes

    @kernel
    def run(source, target, amount):
        a = load(kind, pointer(source))
        store(pointer(target), a << amount)
        store(pointer(target) + size, a >> amount)
        store(pointer(target) + 2 * size, a & 3)
        store(pointer(target) + 3 * size, a + 1000)

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

    pairs = np.array(np.meshgrid(cases.SPECIALS, cases.SPECIALS)).reshape(2, -1)
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
    _reduce(x, x[::-1].copy(), found)
    assert found[0] == x.sum(dtype=np.int32)
    assert found[1] == x.max()
    assert (found[2:] == np.maximum(x, x[::-1])).all()


@kernel
def _reduce(source, reverse, target):
    x = load(simd.i32x16, pointer(source))
    store(pointer(target), simd.reduce_add(x))
    store(pointer(target) + 4, simd.reduce_max(x))
    store(pointer(target) + 8, simd.maximum_i32(x, load(simd.i32x16, pointer(reverse))))


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
            a, b, c = np.random.default_rng(seed).choice(cases.SPECIALS, (3, 16))
            run(a, b, c, found)
            assert cases.same_bits(found, reference.fma(a, b, c))


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
    source_kind, target_kind = Vector(before, 16), Vector(after, 16)

    @kernel
    def run(source, target):
        store(pointer(target), convert(target_kind, load(source_kind, pointer(source))))

    for seed in range(10):
        source, found = values(before, 16, seed), np.empty(16, DTYPES[after])
        run(source, found)
        assert cases.same_bits(found, source.astype(DTYPES[after]))


def test_the_vectors_have_the_width_of_the_tier():
    """BYTES, and the integer vectors that are made of it."""
    assert targets.TIER.vector_bytes == simd.BYTES
    assert (simd.u8.bytes, simd.i8.bytes, simd.i32.bytes) == (simd.BYTES,) * 3
    assert simd.f32.lanes == 16
