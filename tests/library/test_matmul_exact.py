"""Every product equals the oracle bit for bit: shapes, batches, threads, scales, extremes."""

from __future__ import annotations

import contextlib
import functools
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ternops
from ternops.absmean import MIN_ABSMAX
from ternops.encodings import ENCODINGS, TERNARY
from ternops.isa import detect
from ternops.kernels import reference, tuning
from ternops.kernels.tuning import useful_threads
from tests.helpers import cases, internals
from tests.helpers.internals import forced_kernel
from tests.helpers.marks import slow_but

pytestmark = [pytest.mark.usefixtures("eager_threads"), pytest.mark.xdist_group("products")]

SHAPE = pytest.mark.parametrize("shape", cases.SHAPES, ids=cases.name)
#: A third of them; the others are left to `make test-tiers`.
THIRD = pytest.mark.parametrize(
    "shape",
    [pytest.param(shape, marks=[] if i % 3 == 1 else pytest.mark.tiers)
     for i, shape in enumerate(cases.SHAPES)],
    ids=cases.name,
)  # fmt: skip
SOME_SHAPES = pytest.mark.parametrize("shape", cases.SHAPES[::3], ids=cases.name)
ENCODING = pytest.mark.parametrize("encoding", cases.ENCODINGS)
DTYPE = pytest.mark.parametrize("dtype", [np.int8, np.float32], ids=["int8", "float32"])
KERNEL = pytest.mark.parametrize(("encoding", "kind"), cases.KINDS)


def oracle(x, trits, scale):
    """What `x @ W.T` must be, bit for bit, for int8 or float32 x (m, k)."""
    if x.dtype == np.int8:
        total = reference.matmul_int32(x, trits)
        if scale is None:
            return total
        step = np.ones(len(x), np.float32)
    else:
        quantized, step = reference.quantize_rows(x, MIN_ABSMAX)
        total = reference.matmul_int32(quantized, trits)
    factor = np.float32(1) if scale is None else np.asarray(scale, np.float32)
    return (total.astype(np.float32) * factor) * step[:, None]


def made(dtype, *shape):
    """Random activations of a dtype."""
    return (cases.activations if dtype == np.int8 else cases.floats)(*shape)


def batches(kind, *numbers):
    """Those of some numbers of tokens that a shape class can take."""
    return [m for m in numbers if m == 1 or kind not in cases.OF_ONE_TOKEN]


@ENCODING
@SHAPE
def test_int8_equals_the_oracle_for_every_batch(shape, encoding):
    """Exact int32 for 0 to 17 tokens, on both sides of @."""
    trits = cases.trits(*shape, encoding=encoding)
    matrix = ternops.pack(trits, encoding=encoding)
    x = cases.activations(max(cases.BATCHES), shape[1])
    expected = reference.matmul_int32(x, trits)
    for m in cases.BATCHES:
        found = ternops.matmul(x[:m], matrix.T, threads=1)
        assert cases.same_bits(found, expected[:m]), f"{m} tokens"
        found = ternops.matmul(matrix, x[:m].T, threads=1)
        assert cases.same_bits(found, expected[:m].T), f"{m} tokens"


@pytest.mark.slow
@ENCODING
@THIRD
def test_int8_equals_the_oracle_for_every_thread_count(shape, encoding):
    """The same int32 from one thread and from more threads than cores or rows."""
    trits = cases.trits(*shape, encoding=encoding)
    matrix = ternops.pack(trits, encoding=encoding)
    x = cases.activations(17, shape[1])
    expected = reference.matmul_int32(x, trits)
    for m, threads in itertools.product((1, 2, 17), cases.THREADS):
        result = ternops.matmul(x[:m], matrix.T, threads=threads)
        assert cases.same_bits(result, expected[:m]), f"{m} tokens, {threads} threads"


@ENCODING
@SOME_SHAPES
def test_int8_equals_the_oracle_for_large_batches(shape, encoding):
    """Exact int32 where the GEMMs take over."""
    trits = cases.trits(*shape, encoding=encoding)
    matrix = ternops.pack(trits, encoding=encoding)
    x = cases.activations(max(cases.LARGE_BATCHES), shape[1])
    expected = reference.matmul_int32(x, trits)
    for m, threads in zip(cases.LARGE_BATCHES, cases.THREADS, strict=True):
        result = ternops.matmul(x[:m], matrix.T, threads=threads)
        assert cases.same_bits(result, expected[:m]), f"{m} tokens, {threads} threads"


@KERNEL
@SOME_SHAPES
def test_every_kernel_takes_every_batch(shape, encoding, kind):
    """Exact int32 from each kernel, also for products that choose another by themselves."""
    trits = cases.trits(*shape, encoding=encoding)
    matrix = ternops.pack(trits, encoding=encoding)
    x = cases.activations(66, shape[1])
    expected = reference.matmul_int32(x, trits)
    with forced_kernel(kind) as kind_of:
        for m in batches(kind, *cases.BATCHES, 33, 66):
            for threads in (1, 2 + m % 2):
                result = ternops.matmul(x[:m], matrix.T, threads=threads)
                assert cases.same_bits(result, expected[:m]), f"{m} tokens, {threads} threads"
    assert kind_of.called or not expected.size


@KERNEL
@DTYPE
@pytest.mark.parametrize("kind_of_scale", ["none", "scalar", "rows"])
def test_every_kernel_scales(encoding, kind, dtype, kind_of_scale):
    """float32 results of each kernel, in one panel and in more."""
    for shape in ((37, 1021), (66, 8191), (5, 0), (1, 7)):
        trits, scale = cases.trits(*shape, encoding=encoding), cases.scales(shape[0])[kind_of_scale]
        matrix = ternops.pack(trits, scale, encoding)
        x = made(dtype, 19, shape[1])
        expected = oracle(x, trits, scale)
        with forced_kernel(kind):
            for m in batches(kind, 1, 2, 9, 19):
                result = ternops.matmul(x[:m], matrix.T, threads=1 + m % 3)
                assert cases.same_bits(result, expected[:m]), (shape, m)


def test_the_thread_counts_are_really_used():
    """With `eager_threads` even a small product starts every worker."""
    matrix = ternops.pack(cases.trits(64, 64))
    ternops.matmul(matrix, cases.activations(64), threads=7)
    assert useful_threads(7, matrix.nbytes) == 7
    assert len(internals.workers()) >= 6


@pytest.mark.slow
@ENCODING
@DTYPE
@SOME_SHAPES
def test_scaled_products_equal_the_oracle(shape, dtype, encoding):
    """float32 results have the bits of quantise, exact sum, and two roundings."""
    trits, x = cases.trits(*shape, encoding=encoding), made(dtype, 17, shape[1])
    for kind, scale in cases.scales(shape[0]).items():
        matrix = ternops.pack(trits, scale, encoding)
        expected = oracle(x, trits, scale)
        for m, threads in itertools.product((0, 1, 3, 8, 17), (1, 3)):
            result = ternops.matmul(x[:m], matrix.T, threads=threads)
            assert cases.same_bits(result, expected[:m]), f"{kind}, {m} tokens, {threads} threads"


@ENCODING
@pytest.mark.parametrize("dtype", [np.float16, np.float64], ids=["float16", "float64"])
@pytest.mark.parametrize("kind", ["none", "scalar", "rows"])
def test_other_floats_equal_the_oracle_of_their_float32(dtype, kind, encoding):
    """float16 widens exactly; float64 that float32 holds exactly gives float32's result."""
    trits = cases.trits(13, 509, encoding=encoding)
    matrix = ternops.pack(trits, cases.scales(13)[kind], encoding)
    x = cases.floats(5, 509, dtype=np.float16)
    expected = oracle(x.astype(np.float32), trits, cases.scales(13)[kind])
    assert cases.same_bits(x.astype(dtype) @ matrix.T, expected)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_unscaled_is_the_same_matrix_without_its_scale(encoding):
    """W.unscaled gives exact int32 from the bytes of a scaled matrix."""
    trits = cases.trits(9, 513, encoding=encoding)
    matrix = ternops.pack(trits, cases.scales(9)["rows"], encoding)
    assert matrix.unscaled.scale is None
    assert cases.same_bits(matrix.unscaled.to_trits(), trits)
    if encoding in cases.ENCODINGS:
        x = cases.activations(513)
        expected = reference.matmul_int32(x[None], trits)[0]
        assert cases.same_bits(matrix.unscaled @ x, expected)
        assert cases.same_bits(x @ matrix.unscaled.T, expected)


@pytest.mark.parametrize(("left", "right"), [*itertools.product(ENCODINGS, ENCODINGS)])
def test_a_matrix_takes_any_other_encoding(left, right):
    """W.to gives the bytes that packing gives, the scale and the orientation; W stays."""
    shapes = (0, 5), (5, 0), (1, 1), (65, 23), (130, 641)
    for shape, kind in itertools.product(shapes, ("none", "scalar", "rows")):
        trits = cases.trits(*shape, encoding=cases.both(left, right))
        scale = cases.scales(shape[0])[kind]
        first, second = (ternops.pack(trits, scale, name) for name in (left, right))
        for before, wanted in ((first, second), (first.T, second.T)):
            after = before.to(right)
            assert (before.encoding, after.encoding) == (left, right)
            assert after.shape == wanted.shape
            assert cases.same_bits(internals.packed(after).bytes, internals.packed(wanted).bytes)
            assert cases.same_bits(after.to_dense(), before.to_dense())
            assert (after.scale is None) == (scale is None)
            if scale is not None:
                assert cases.same_bits(after.scale, scale)
            if right in cases.ENCODINGS:
                x = cases.floats(3, after.shape[1])
                assert cases.same_bits(x @ after.T, x @ wanted.T)
        assert first.to(left) is first


def test_the_best_encoding(monkeypatch):
    """ "auto" goes by whether the last-level cache holds the weights; an unknown one is named."""
    small, large = detect.TIER.auto
    assert {small, large} <= set(cases.ENCODINGS)
    monkeypatch.setattr(tuning, "last_level_bytes", lambda: 100)
    for shape, expected in (((1, 1), small), ((100, 4), small), ((100, 5), large)):
        trits = cases.trits(*shape)
        assert ternops.pack(trits).encoding == expected
        assert ternops.quantize(trits.astype(np.float32)).encoding == expected
        for name in TERNARY:
            assert ternops.pack(trits, encoding=name).to("auto").encoding == expected
    matrix = ternops.pack(trits)
    with pytest.raises(ValueError, match=r"^encoding='four_bit': expected one of auto, two_bit,"):
        matrix.to("four_bit")


@pytest.mark.parametrize(
    ("encoding", "levels"),
    [*((name, None) for name in ENCODINGS), ("two_bit", (-3, -1, 1, 3)), ("nibble", (-127, 5, 126)),
     ("three_bit", (-3, -1, 1))],
)  # fmt: skip
@pytest.mark.parametrize("transposed", [False, True])
def test_the_largest_sums_of_any_levels(encoding, levels, transposed):
    """Either way of either side, beyond what float32 holds; levels that are not the encoding's."""
    levels = levels or ENCODINGS[encoding].values
    random = np.random.default_rng(7)
    weights = random.choice(np.array([levels[0], levels[-1]], np.int8), (4099, 70), p=(0.1, 0.9))
    weights = np.ascontiguousarray(weights.T) if transposed else weights
    matrix = ternops.pack(weights, encoding=encoding, levels=levels)
    matrix = matrix.T if transposed else matrix
    for count in (1, 60):
        x = np.full((count, 4099), 127, np.int8) - random.integers(0, 2, (count, 4099), np.int8)
        expected = x.astype(np.int64) @ (weights.T if transposed else weights).astype(np.int64)
        assert cases.same_bits(x @ matrix, expected.astype(np.int32))
        assert cases.same_bits(matrix.T @ x.T, expected.T.astype(np.int32))


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("rows", [1, 255, 4095, 4096, 4097, 8193])
def test_sums_over_the_packed_rows_are_exact(rows, encoding):
    """x @ W and W.T @ x, for few tokens and for so many that the matrix is packed by columns."""
    trits = cases.trits(rows, 5, encoding=encoding)
    matrix = ternops.pack(trits, encoding=encoding)
    x = cases.activations(60, rows)
    expected = reference.matmul_int32(x, trits.T)
    for count in (3, 60):
        assert cases.same_bits(x[:count] @ matrix, expected[:count])
        assert cases.same_bits(matrix.T @ x[:count].T, expected[:count].T)
    assert cases.same_bits(x[0] @ matrix, expected[0])


@pytest.mark.parametrize("encoding", ["two_bit", "base3", "one_bit"])
@pytest.mark.parametrize("columns", [1, 63, 257, 2049])
def test_threads_share_the_packed_rows(columns, encoding):
    """So many bytes that each has a part, and adds up the others' sums."""
    rows = (1 << 20) // columns * 8
    trits = cases.trits(rows, columns, encoding=encoding)
    x = cases.activations(2, rows)
    matrix, expected = ternops.pack(trits, encoding=encoding), reference.matmul_int32(x, trits.T)
    for threads in (1, 2, 3):
        assert cases.same_bits(ternops.matmul(x, matrix, threads=threads), expected), threads


@functools.lru_cache(1)
def extremes(columns):
    """Extreme activations (3, columns), extreme rows of trits (4, columns), and their sums."""
    x = np.stack([*cases.extreme_activations(columns).values()])
    # Four rows, or the tiles of two have nothing to do.
    rows = np.stack([*cases.extreme_trits(columns).values()] * 2)[:4]
    even, odd = (
        np.outer(x[:, start].astype(np.int64), rows[:, start]) * len(range(start, columns, 2))
        for start in (0, 1)
    )
    assert abs(even + odd).max() == 128 * columns
    return x, rows, (even + odd).astype(np.int32)


@ENCODING
@pytest.mark.parametrize(
    "columns",
    slow_but(cases.LONG_SUMS, *cases.LONG_SUMS[:4]),
)
def test_the_largest_sums(columns, encoding):
    """All -128, all 127 and both in turn, times all signs of trits, in every kernel and tile; of
    larger levels fewer terms are allowed."""
    x, rows, expected = extremes(columns)
    largest = max(map(abs, ENCODINGS[encoding].values))
    if columns >= 2**24 // largest:
        with pytest.raises(ValueError, match=rf"^trits: {columns} columns, expected fewer than"):
            ternops.pack(rows, encoding=encoding)
        return
    matrix = ternops.pack(rows, encoding=encoding)
    for kind in (kind for name, kind in cases.KINDS if name == encoding):
        internals.forget_kernels(matrix)
        with forced_kernel(kind) as kind_of:
            for i in range(3):  # threads share out rows, which are no shorter for that
                found = ternops.matmul(matrix, x[i], threads=1 + i % 2)
                assert cases.same_bits(found, expected[i]), f"{kind}, extreme {i}"
            for m in batches(kind, 3, 8, 12) if columns < 2**18 else batches(kind, 3):
                order = np.arange(m) % 3
                found = x[order] @ matrix.T
                assert cases.same_bits(found, expected[order]), f"{kind}, {m} tokens"
        assert kind_of.called


def test_the_largest_sums_over_the_packed_rows():
    """Extremes through x @ W, in more rows than one sum may have of fields left in place."""
    rows = 3 * 2**16 + 1
    # Columns enough that every field of a byte has some.
    trits = np.stack([*cases.extreme_trits(rows).values()] * 4, axis=1)
    x = np.stack([*cases.extreme_activations(rows).values()])
    for encoding in ("two_bit", "base3", "tl1"):
        matrix = ternops.pack(trits, encoding=encoding)
        assert cases.same_bits(x @ matrix, reference.matmul_int32(x, trits.T))


def test_quantised_extremes():
    """A row whose magnitudes all equal its largest quantises to +-127 exactly."""
    columns = 1021
    sign = cases.extreme_trits(columns)["alternating"]
    matrix = ternops.pack(np.stack([sign, -sign]))
    x = (sign * np.float32(3.7)).astype(np.float32)
    step = np.float32(3.7) / np.float32(127)
    total = np.array([127 * columns, -127 * columns], np.float32)
    assert cases.same_bits(matrix @ x, total * step)


@KERNEL
@DTYPE
def test_each_token_has_its_own_step(encoding, kind, dtype):
    """And its own row of the result, whatever number of tokens the kernel is for."""
    trits, scale = cases.trits(37, 1021, encoding=encoding), cases.scales(37)["rows"]
    matrix, x = ternops.pack(trits, scale, encoding), made(dtype, 17, 1021)
    with forced_kernel(kind):
        for m in batches(kind, 1, 7, 8, 9, 16, 17):
            assert cases.same_bits(x[:m] @ matrix.T, oracle(x[:m], trits, scale)), f"{m} tokens"


#: Lengths around the multiples of a field, a tile, a block and a panel, primes, and any other.
EDGES = sorted({near for n in (64, 128, 240, 256, 320, 512, 640, 1280, 3840, 4096)
                for near in (n - 1, n, n + 1)})  # fmt: skip
PRIMES = (2, 3, 5, 7, 11, 13, 17, 31, 61, 127, 251, 509, 1021, 2039)
COLUMNS = st.integers(0, 700) | st.sampled_from(EDGES) | st.sampled_from(PRIMES)
ROWS = st.integers(0, 40) | st.sampled_from((61, 63, 64, 65, 67, 127, 128, 129, 192, 193))


@ENCODING
@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.data())
def test_any_product(encoding, data):
    """Hypothesis: any shape, values, batch, thread count and shape class, on either side."""
    rows, columns = data.draw(ROWS, "rows"), data.draw(COLUMNS, "columns")
    m = data.draw(st.integers(0, 19) | st.sampled_from((33, 64, 65)), "tokens")
    threads = data.draw(st.sampled_from(cases.THREADS), "threads")
    seed = data.draw(st.integers(0, 2**32), "seed")
    kinds = [kind for name, kind in cases.KINDS if name == encoding and batches(kind, m)]
    kind = data.draw(st.sampled_from([None, *kinds]), "shape class")
    trits = cases.trits(rows, columns, seed, encoding=encoding)
    matrix = ternops.pack(trits, encoding=encoding)
    x = cases.activations(m, columns, seed=seed)
    expected = reference.matmul_int32(x, trits)
    with forced_kernel(kind) if kind else contextlib.nullcontext():
        assert cases.same_bits(ternops.matmul(x, matrix.T, threads=threads), expected)
        assert cases.same_bits(ternops.matmul(matrix, x.T, threads=threads), expected.T)
