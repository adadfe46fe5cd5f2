"""Products with a scale a group of columns equal the oracle bit for bit."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ternops
from ternops.absmean import MIN_ABSMAX
from ternops.encodings import PANELS
from ternops.encodings.panels import GROUPS
from ternops.kernels import grouped, reference
from ternops.kernels.grouped_gemm import TOKENS
from ternops.kernels.grouped_tiles import MIN_TOKENS
from ternops.kernels.grouped_tiles import TOKENS as TILED
from tests.helpers import cases
from tests.helpers.cases import grouped as of
from tests.helpers.grouped_call import call
from tests.helpers.internals import forced_kernel
from tests.helpers.marks import with_groups

pytestmark = pytest.mark.usefixtures("eager_threads")

#: On both sides of every tile of tokens, of each tier.
BATCHES = (1, 2, 3, 5, 7, 12, 15, 16, 17, 31, 33, 70)
THREADS = (1, 2, 5)
#: Whole blocks of no, one and each encoding, and what is left of them.
COLUMNS = (256, 512, 768, 1280, 1792, 2560, 2816)
ROWS = (1, 15, 16, 17, 33, 100)

ENCODING = pytest.mark.parametrize("encoding", PANELS)
ENCODING_AND_GROUP = pytest.mark.parametrize(("encoding", "group"), with_groups(PANELS))
#: Of a test that draws or walks through an encoding's groups by itself.
GROUPS_OF = pytest.mark.parametrize(
    "groups_of", [cases.groups_of, pytest.param(lambda encoding: GROUPS, marks=pytest.mark.tiers)],
    ids=["some", "all"],
)  # fmt: skip
DTYPES = (np.int8, np.float16, np.float32, np.float64)


def oracle(x, weights, scale):
    """What `x @ W.T` must be, bit for bit, for int8 or float32 x (m, k)."""
    steps = np.ones(len(x), np.float32)
    if x.dtype != np.int8:
        x, steps = reference.quantize_rows(x, MIN_ABSMAX)
    steps = np.broadcast_to(steps[:, None], (len(x), scale.shape[1]))
    with np.errstate(over="ignore", invalid="ignore"):
        return reference.grouped_product(x, weights, scale, steps)


def made(dtype, *shape):
    """Activations of a dtype that float32 has exactly, and the same as kernels take them."""
    if dtype == np.int8:
        x = cases.activations(*shape)
        return x, x
    x = cases.floats(*shape, dtype=np.float16 if dtype != np.float32 else dtype)
    return x.astype(dtype), x.astype(np.float32)


@ENCODING_AND_GROUP
@pytest.mark.parametrize("columns", COLUMNS)
def test_every_batch_equals_the_oracle(encoding, group, columns):
    """int8 activations and those of every float, on both sides of @; scales of both sizes."""
    for rows, dtype, is_half in zip(
        ROWS, itertools.cycle(DTYPES), itertools.cycle((True, True, False)), strict=False
    ):
        weights, scale, matrix = of(rows, columns, group, encoding, is_half)
        x, taken = made(dtype, max(BATCHES), columns)
        expected = oracle(taken, weights, scale)
        for m in BATCHES:
            threads = THREADS[m % 3]
            found = ternops.matmul(x[:m], matrix.T, threads=threads)
            assert cases.same_bits(found, expected[:m]), (rows, dtype, m)
        assert cases.same_bits(ternops.matmul(matrix, x[0]), expected[0])
        assert cases.same_bits(ternops.matmul(matrix, x[:5].T), expected[:5].T)


@ENCODING_AND_GROUP
def test_rows_that_end_in_a_group(encoding, group):
    """Each number of groups, so that the last block is of every length there is."""
    for count in range(1, 1056 // group + 1):
        weights, scale, matrix = of(17, count * group, group, encoding)
        x = cases.activations(19, count * group)
        expected = oracle(x, weights, scale)
        for m in (1, 3, 19):
            assert cases.same_bits(x[:m] @ matrix.T, expected[:m]), (count, m)


@pytest.mark.parametrize(("encoding", "group"), with_groups(PANELS, [32, 128]))
def test_512_tokens(encoding, group):
    """More than a block of tokens, with any number of threads."""
    weights, scale, matrix = of(97, 640, group, encoding) if group == 32 else of(
        97, 1664, group, encoding
    )  # fmt: skip
    x = cases.floats(512, weights.shape[1])
    expected = oracle(x, weights, scale)
    for threads in THREADS:
        assert cases.same_bits(ternops.matmul(x, matrix.T, threads=threads), expected)


@ENCODING
@GROUPS_OF
@pytest.mark.parametrize("kind", ["one", "few", "many"])
def test_every_kernel_takes_every_batch(encoding, groups_of, kind):
    """Also those that choose another by themselves: a tile of one token, and of too many."""
    for group, is_half in itertools.product(groups_of(encoding), (True, False)):
        weights, scale, matrix = of(49, 768, group, encoding, is_half)
        x = cases.floats(TILED + TOKENS + 7, 768)
        expected = oracle(x, weights, scale)
        batches = (1,) if kind == "one" else (1, 2, 3, 4, TOKENS, MIN_TOKENS, TILED, len(x))
        with forced_kernel(kind) as kind_of:
            for m, threads in itertools.product(batches, THREADS):
                found = ternops.matmul(x[:m], matrix.T, threads=threads)
                assert cases.same_bits(found, expected[:m]), (group, m, threads)
        assert kind_of.called


@ENCODING_AND_GROUP
def test_numbers_of_panels(encoding, group):
    """Fewer than streams, as many, and what an odd step leaves over."""
    for rows in (1, 16, 17, 32, 48, 63, 64, 65, 80, 112, 129, 144, 208, 300):
        weights, scale, matrix = of(rows, 1280, group, encoding)
        x = cases.activations(3, 1280)
        expected = oracle(x, weights, scale)
        for m, threads in itertools.product((1, 3), (1, 2, 3, 5)):
            found = ternops.matmul(x[:m], matrix.T, threads=threads)
            assert cases.same_bits(found, expected[:m]), (rows, m, threads)


@ENCODING_AND_GROUP
def test_the_largest_sums(encoding, group):
    """All -128, all 127 and both in turn, times all signs, in every kernel."""
    columns = 2560
    x = np.stack([*cases.extreme_activations(columns).values()])
    signs = np.stack([*cases.extreme_trits(columns).values()])
    scale = np.ones((len(signs), columns // group), np.float16)
    matrix = ternops.pack(signs, scale, encoding)
    expected = reference.matmul_int32(x, signs).astype(np.float32)
    assert abs(expected).max() == 128 * columns
    for m in (1, 2, 3):
        for start in range(4 - m):
            assert cases.same_bits(x[start : start + m] @ matrix.T, expected[start : start + m])
    many = np.tile(x, (12, 1))
    assert cases.same_bits(many @ matrix.T, np.tile(expected, (12, 1)))


@ENCODING_AND_GROUP
def test_rows_with_nan_and_infinity(encoding, group):
    """They are NaN, and no other row is."""
    weights, scale, matrix = of(33, 512, group, encoding)
    for m in (1, 3, 40):
        x = cases.floats(m, 512)
        x[0, 3], x[m // 2, 500], x[m - 1, 0] = np.nan, np.inf, -np.inf
        found = x @ matrix.T
        assert np.isnan(found[[0, m // 2, m - 1]]).all()
        assert cases.same_bits(found, oracle(x, weights, scale))


@ENCODING_AND_GROUP
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_scales_at_the_ends_of_their_range(encoding, group, dtype):
    """Subnormal ones, and those whose products overflow, as the oracle has them."""
    info = np.finfo(dtype)
    ends = np.array([info.smallest_subnormal, info.tiny, 1, info.max], dtype)
    weights = cases.trits(20, 1024, encoding=encoding)
    ends = np.concatenate([ends, ends[::-1], ends[1:]])
    scale = np.resize(ends, (20, 1024 // group)).copy()
    matrix = ternops.pack(weights, scale, encoding)
    assert cases.same_bits(matrix.scale, scale)
    for factor in (1e-30, 1e-3, 1, 1e30):
        x = (cases.floats(20, 1024) * np.float32(factor)).astype(np.float32)
        expected = oracle(x, weights, scale)
        for m in (1, 2, 20):
            assert cases.same_bits(x[:m] @ matrix.T, expected[:m]), (factor, m)


@ENCODING_AND_GROUP
@pytest.mark.parametrize("floor", [MIN_ABSMAX, 1e-5])
def test_a_step_for_each_group_of_a_token(encoding, group, floor):
    """As the oracle quantises them; a group with NaN or infinity makes its token NaN alone."""
    for is_half, m in itertools.product((True, False), (1, 2, 17, 40)):
        weights, scale, _ = of(35, 1280, group, encoding, is_half)
        x = cases.floats(m, 1280) * np.float32(10.0) ** np.arange(-20, 20).repeat(32)
        x = x.astype(np.float32)
        x[:, group : 2 * group] = 0
        if m > 2:
            x[1, 5], x[m - 1, 1279] = np.inf, np.nan
        quantized, steps = reference.quantize_groups(x, group, floor)
        expected = reference.grouped_product(quantized, weights, scale, steps)
        for threads in (1, 3):
            found = call(encoding, weights, scale, x, threads, floor=floor, is_blocked=True)
            assert cases.same_bits(found, expected), (is_half, m, threads)
        assert np.isnan(found).any(axis=1).sum() == (2 if m > 2 else 0)


@ENCODING
@GROUPS_OF
@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_any_product(encoding, groups_of, data):
    """Hypothesis: any shape, group, scales, batch, thread count and shape class."""
    group = data.draw(st.sampled_from(groups_of(encoding)), "group")
    rows = data.draw(st.integers(0, 70), "rows")
    columns = group * data.draw(st.integers(1, 2560 // group), "groups")
    m = data.draw(st.integers(0, 19) | st.sampled_from((33, 64, 65)), "tokens")
    threads = data.draw(st.sampled_from(cases.THREADS), "threads")
    is_half = data.draw(st.booleans(), "half")
    weights, scale, matrix = of(rows, columns, group, encoding, is_half)
    x = cases.activations(m, columns, seed=data.draw(st.integers(0, 2**32), "seed"))
    found = ternops.matmul(x, matrix.T, threads=threads)
    assert cases.same_bits(found, oracle(x, weights, scale))


def test_the_oracle_is_the_sum_it_says():
    """Near float64's own, with one scale a group and one step a group of a token."""
    weights, scale, matrix = of(9, 512, 64, "two_bit")
    x = cases.floats(4, 512)
    quantized, steps = reference.quantize_groups(x, 64, MIN_ABSMAX)
    found = reference.grouped_product(quantized, weights, scale, steps)
    whole = quantized.reshape(4, -1, 64) * steps[..., None].astype(np.float64)
    exact = whole.reshape(4, -1) @ matrix.to_dense().T.astype(np.float64)
    assert np.allclose(found, exact, rtol=1e-5, atol=1e-5 * np.abs(exact).max())
    assert np.abs(whole.reshape(4, -1) - x).max() <= np.abs(x).max() / 253


@ENCODING
def test_units_whose_sums_have_room(encoding):
    """As many fields apart as the tier's own tile has, where its dots add up int32."""
    record = PANELS[encoding]
    for unit in (32, grouped.MAX_UNIT):
        apart = grouped.fields_apart(record, unit)
        assert 1 <= apart <= record.fields
    assert grouped.fields_apart(record, 32) >= grouped.fields_apart(record, 64)
