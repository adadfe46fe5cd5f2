"""The vector vocabulary means what NumPy means: operators, memory, lanes, sums."""

from __future__ import annotations

import operator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ternops import isa, simd
from ternops.encodings import ENCODINGS
from ternops.isa import detect, x86
from ternops.kernels import reference
from ternops.simd import Vector, convert, full, kernel, lane, load, pointer, registers, store, take
from tests.helpers import cases, internals

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


@simd.inlined
def integer_operators(a, b, target, size):
    """The results of all operators of integers, one after the other."""
    store(target, a + b)
    store(target + size, a - b)
    store(target + 2 * size, a * b)
    store(target + 3 * size, a & b)
    store(target + 4 * size, a | b)
    store(target + 5 * size, a ^ b)


@simd.inlined
def float_operators(a, b, target, size):
    """And those of floats."""
    store(target, a + b)
    store(target + size, a - b)
    store(target + 2 * size, a * b)
    store(target + 3 * size, a / b)


OPERATORS = (operator.add, operator.sub, operator.mul)
BITWISE = (operator.and_, operator.or_, operator.xor)


@pytest.mark.parametrize("lanes", [4, 16, 64])
@pytest.mark.parametrize("element", DTYPES)
def test_operators_are_numpys(element, lanes):
    """+ - * & | ^ wrap around as NumPy's do; floats have + - * / in IEEE arithmetic."""
    kind, is_float = Vector(element, lanes), element == "f32"
    operators = (*OPERATORS, operator.truediv) if is_float else OPERATORS + BITWISE
    ours, size = float_operators if is_float else integer_operators, kind.bytes

    @kernel
    def run(left, right, target):
        a, b = load(kind, pointer(left)), load(kind, pointer(right))
        ours(a, b, pointer(target), size)

    left, right = values(element, lanes, 1), values(element, lanes, 2)
    found = np.empty((len(operators), lanes), left.dtype)
    run(left, right, found)
    for op, result in zip(operators, found, strict=True):
        assert cases.same_bits(result, op(left, right)), op.__name__


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
    """load_first gives zeros after them, store_first leaves what follows alone; at any address."""
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


def test_lanes_of_two_vectors():
    """interleave takes turns, concatenate puts one after the other, widen appends zeros."""
    kind, longer = Vector("i16", 8), Vector("i16", 32)

    @kernel
    def run(left, right, target):
        x, y = load(kind, pointer(left)), load(kind, pointer(right))
        store(pointer(target), simd.interleave(x, y))
        store(pointer(target) + 32, simd.concatenate(x, y))
        store(pointer(target) + 64, simd.widen(longer, x))

    x, y, found = values("i16", 8, 1), values("i16", 8, 2), np.empty(64, np.int16)
    run(x, y, found)
    assert found[:16].tolist() == np.stack([x, y], axis=1).ravel().tolist()
    assert found[16:32].tolist() == [*x, *y]
    assert found[32:].tolist() == [*x, *[0] * 24]


@pytest.mark.parametrize(("element", "index"), [("i16", "u8"), ("u8", "u8"), ("i16", "u16")])
def test_gather(element, index):
    """Lane by lane table[index], the index being unsigned."""
    kind, places = Vector(element, 8), Vector(index, 8)

    @kernel
    def run(table, index, target):
        found = simd.gather(kind, pointer(table), load(places, pointer(index)))
        store(pointer(target), found)

    table, found = values(element, 300), np.empty(8, DTYPES[element])
    at = np.array([0, 255, 1, 254, 128, 7, 127, 129], DTYPES[index])
    run(table, at, found)
    assert cases.same_bits(found, table[at])


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
    run = binary(kind, simd.inlined(lambda a, b: simd.select_greater(a, b, a, b)))
    for seed in range(20):
        left, right = values(element, 16, seed), values(element, 16, seed + 100)
        found = np.empty_like(left)
        run(left, right, found)
        assert (found == np.maximum(left, right)).all()


@pytest.mark.parametrize("element", ["u8", "i8", "i32"])
def test_at_least_compares_as_the_element_is(element):
    """All bits where it is, none where not; bytes above 127 are large if they have no sign."""
    run = binary(Vector(element, 16), simd.inlined(lambda a, b: simd.at_least(a, b)))
    for seed in range(20):
        left, right = values(element, 16, seed), values(element, 16, seed + 100)
        right[:2] = left[:2]
        found = np.empty_like(left)
        run(left, right, found)
        assert cases.same_bits(found, (-(left >= right).astype(np.int32)).astype(left.dtype))


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


WIDTHS = {width.bytes: width for width in (isa.WIDE, isa.NARROW)}
#: (the greatest code, how many dots): the longest runs from `open_sums` to `close_sums`.
LONGEST_RUNS = ((8, 16), (2, 64), (1, 128))


def run_of_dots(width):
    """A compiled function that adds up dots of `width` between `open_sums` and `close_sums`."""
    size, u8, i8, i32, dot = width

    @kernel
    def run(acc, unsigned, signed, dots, target):
        sums, partial = registers(i32, 1), registers(isa.PARTIAL, 1)
        sums[0] = load(i32, pointer(acc))
        into = isa.open_sums(sums, partial, 1)
        for i in range(dots):
            codes, x = load(u8, pointer(unsigned) + i * size), load(i8, pointer(signed) + i * size)
            into[0] = dot(into[0], codes, x)
        isa.close_sums(sums, partial, 1)
        store(pointer(target), sums[0])

    return run


def sums_of_dots(acc, unsigned, signed):
    """The oracle of `run_of_dots`."""
    products = unsigned.astype(np.int32) * signed
    return acc + products.reshape(len(unsigned), len(acc), 4).sum(axis=(0, 2), dtype=np.int32)


@pytest.mark.parametrize("size", WIDTHS)
@pytest.mark.parametrize(("code", "dots"), LONGEST_RUNS)
def test_sums_stay_exact_between_open_and_close(size, code, dots):
    """The longest runs of extreme and random products, added to what was there."""
    run, random = run_of_dots(WIDTHS[size]), np.random.default_rng(0)
    signs = [np.full((dots, size), value, np.int8) for value in (-128, 127)]
    signs += [random.choice([-128, 127], (dots, size)).astype(np.int8)]
    signs += [random.integers(-128, 128, (dots, size), np.int8) for _ in range(20)]
    for i, signed in enumerate(signs):
        unsigned = np.full((dots, size), code, np.uint8)
        if i > 2:
            unsigned = random.integers(0, code + 1, (dots, size), np.uint8)
        acc = random.integers(-(2**20), 2**20, size // 4, np.int32)
        found = np.empty(size // 4, np.int32)
        run(acc, unsigned, signed, dots, found)
        assert cases.same_bits(found, sums_of_dots(acc, unsigned, signed))


@pytest.mark.skipif(isa.i32 != isa.PARTIAL, reason="AVX2 adds to int16: codes up to 8")
@pytest.mark.parametrize("size", WIDTHS)
def test_a_dot_to_int32_takes_every_byte(size):
    """Unsigned up to 255, signed from -128; the sums wrap around."""
    run, random = run_of_dots(WIDTHS[size]), np.random.default_rng(0)
    for _ in range(50):
        unsigned = random.choice([0, 1, 128, 162, 255], (7, size)).astype(np.uint8)
        signed = random.integers(-128, 128, (7, size), np.int8)
        acc = random.choice([-(2**31), 0, 2**31 - 1], size // 4).astype(np.int32)
        found = np.empty(size // 4, np.int32)
        run(acc, unsigned, signed, 7, found)
        assert cases.same_bits(found, sums_of_dots(acc, unsigned, signed))


def test_a_dot_of_signed_bytes():
    """Of all there are, but for -128 in the second; with SIGNED_OFFSET of the second too much."""

    @kernel
    def run(acc, left, right, target):
        left, right = load(isa.i8, pointer(left)), load(isa.i8, pointer(right))
        store(pointer(target), isa.dot_signed(load(isa.i32, pointer(acc)), left, right))

    random = np.random.default_rng(0)
    for extremes in ([-128, -1, 0, 127], range(-128, 128)):
        for _ in range(50):
            left = random.choice(list(extremes), isa.BYTES).astype(np.int8)
            right = random.choice(list(extremes), isa.BYTES).clip(-127).astype(np.int8)
            acc = random.choice([-(2**31), 0, 2**31 - 1], isa.LANES).astype(np.int32)
            found = np.empty(isa.LANES, np.int32)
            run(acc, left, right, found)
            offset = np.array(isa.SIGNED_OFFSET, np.int32)
            assert cases.same_bits(found, sums_of_dots(acc, (left + offset)[None], right[None]))


@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_sum_lanes(lanes):
    """The sums of as many vectors as one has lanes, from any one on, in order; they wrap around."""
    kind = Vector("i32", lanes)
    count, size = 3 * lanes, kind.bytes

    @kernel
    def run(source, first, target):
        sums = registers(kind, count)
        for i in range(count):
            sums[i] = load(kind, pointer(source) + i * size)
        store(pointer(target), simd.sum_lanes(sums, first))

    source = values("i32", count * lanes).reshape(count, lanes)
    expected = source.sum(axis=1, dtype=np.int32)
    for first in (0, 1, lanes, 2 * lanes):
        found = np.empty(lanes, np.int32)
        run(source, first, found)
        assert cases.same_bits(found, expected[first : first + lanes])


@pytest.mark.parametrize("in_memory", [False, True])
@pytest.mark.parametrize(("element", "lanes"), [("u8", 16), ("i8", 64), ("i32", 8), ("u16", 32)])
def test_constants(element, lanes, in_memory):
    """Each lane's own value, of two constants in one function, in a loop and outside."""
    kind, first, second = Vector(element, lanes), *(values(element, lanes, n) for n in (1, 2))
    one, two = (simd.constant(kind, lane, in_memory) for lane in (first, second))

    @kernel
    def run(source, times, target):
        total = load(kind, pointer(source)) + two()
        for _ in range(times):
            total = total + one()
        store(pointer(target), total)

    source, found = values(element, lanes), np.empty(lanes, DTYPES[element])
    for times in (0, 1, 3):
        run(source, times, found)
        assert cases.same_bits(found, source + second + first * first.dtype.type(times))


def test_minimum_of_bytes_is_unsigned():
    """255 is the largest."""
    minimum = internals.minimum_of_bytes()
    run = binary(isa.u8, simd.inlined(lambda a, b: minimum(a, b)))
    for seed in range(20):
        left, right = values("u8", isa.BYTES, seed), values("u8", isa.BYTES, seed + 100)
        found = np.empty_like(left)
        run(left, right, found)
        assert cases.same_bits(found, np.minimum(left, right))


@pytest.mark.skipif(
    isa.TIER.byte_table is None or isa.BYTES < 64, reason="this tier has no look-up among 128 bytes"
)
def test_a_look_up_among_128_bytes():
    """An index's highest bit does not count."""

    @kernel
    def run(low, index, high, target):
        found = x86.look_up_128(
            load(isa.u8, pointer(low)), load(isa.u8, pointer(index)), load(isa.u8, pointer(high))
        )
        store(pointer(target), found)

    table, found = values("u8", 128), np.empty(64, np.uint8)
    for seed in range(20):
        index = values("u8", 64, seed + 1)
        run(table[:64], index, table[64:].copy(), found)
        assert cases.same_bits(found, table[index & 127])


#: Whether base3 has more than one accumulator on this tier.
LOOKS_UP = internals.base3_looks_up()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "apart", "size"),
    [
        *(("two_bit", apart, size) for apart in (1, 2, 3, 4) for size in WIDTHS),
        *(("base3", apart, isa.BYTES) for apart in ((1, 2, 3, 4) if LOOKS_UP else (1,))),
    ],
)
def test_the_fields_of_every_byte(name, apart, size):
    """What the encoding's unpack gives, plus one, times its documented factor."""
    layout, u8 = ENCODINGS[name], WIDTHS[size].u8
    count = layout.fields
    holds, opens, hold, open_fields, codes, shift, last = layout.make_unpack(apart, WIDTHS[size])

    @kernel
    def run(source, target):
        opened, held = registers(u8, opens), registers(u8, holds)
        hold(held, 0)
        opened[0] = load(u8, pointer(source))
        open_fields(opened, held)
        for field in range(count):
            store(pointer(target) + field * size, codes(opened, held, field))

    every = np.arange(256, dtype=np.uint8)
    if name == "base3":
        every[243:] = 242
    trits = layout.unpack(every, 4, layout.block).reshape(4, count, 64)
    expected = np.moveaxis(trits + 1, 1, 0).reshape(count, 256)
    factors = [2 ** (shift * (field % apart)) for field in range(count)]
    factors[-1] = last or factors[-1]
    for start in range(0, 256, size):
        found = np.empty((count, size), np.uint8)
        run(every[start : start + size], found)
        wanted = expected[:, start : start + size] * np.array(factors)[:, None] % 256
        assert (found == wanted).all()


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
    assert detect.TIER.vector_bytes == isa.BYTES
    assert (isa.u8.bytes, isa.i8.bytes, isa.i32.bytes) == (isa.BYTES,) * 3
    assert simd.f32.lanes == 16
