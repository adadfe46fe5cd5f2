"""BitDelta: its alpha, its products beside the oracle, its sizes beside the paper's, bad input."""

from __future__ import annotations

import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ternops
from ternops.absmean import MIN_ABSMAX
from ternops.bitdelta import half_of
from ternops.decoder import Config
from ternops.kernels import reference
from tests.helpers import cases

BASES = ("fp16", "bf16", "two_bit", "base3", "tl2", "two_bit, groups")
SHAPES = ((1, 1), (3, 17), (5, 65), (16, 512), (9, 513), (37, 1021), (130, 128), (0, 64))


def base_of(kind, rows, columns):
    """What `ternops.delta` takes for a base."""
    name, *groups = kind.split(", ")
    if name == "fp16":
        return cases.floats(rows, columns).astype(np.float16)
    if name == "bf16":
        bits = (cases.floats(rows, columns) * np.float32(1e9)).view(np.uint32) & 0xFFFF0000
        return bits.view(np.float32)
    scale = cases.group_scales(rows, columns // 64) if groups else np.float32(0.7)
    return ternops.pack(cases.trits(rows, columns), scale, name)


def tuned_of(base, seed=0):
    """Floats close to a base, some of which are the base's own."""
    dense = base if isinstance(base, np.ndarray) else base.to_dense()
    random = np.random.default_rng(seed)
    change = random.normal(0.001, 0.02, dense.shape) * (random.random(dense.shape) < 0.9)
    return (dense.astype(np.float64) * (1 + change)).astype(np.float32)


def base_product(base, x):
    """x times the transposed base, as the oracles have it."""
    if not isinstance(base, ternops.TernaryMatrix):
        dense = base.to_dense()
        parts = [reference.dot(dense, row[None].astype(np.float32)) for row in x]
        return np.array(parts, np.float32).reshape(len(x), len(dense))
    return ternops.matmul(x, base.T)  # whose oracle is tests/library/test_matmul_exact.py's


def expected(delta, x):
    """The oracle's product of some tokens with one matrix."""
    signs, base = delta.signs.to_trits(), base_product(delta.base, x)
    if x.dtype == np.int8:
        total = reference.matmul_int32(x, signs).astype(np.float32)
        return base.astype(np.float32) + total * delta.alpha
    return reference.delta_product(base, x, signs, delta.alpha, MIN_ABSMAX)


def fitting(kind):
    return [(rows, columns) for rows, columns in SHAPES if "groups" not in kind or not columns % 64]


@pytest.mark.parametrize("kind", BASES)
def test_products_equal_the_oracle(kind):
    """Of every kind of base, on both sides of @, int8 and floats, 0 to 17 tokens."""
    for rows, columns in fitting(kind):
        base = base_of(kind, rows, columns)
        delta = ternops.delta(base, tuned_of(base))
        for count in (0, 1, 2, 5, 8, 17):
            for x in (cases.activations(count, columns), cases.floats(count, columns)):
                wanted = expected(delta, x)
                assert cases.same_bits(x @ delta.T, wanted), (rows, columns, count)
                assert cases.same_bits(delta @ x.T, wanted.T), (rows, columns, count)
                if count:
                    assert cases.same_bits(delta @ x[0], wanted[0])
                    assert cases.same_bits(x[0] @ delta.T, wanted[0])


@pytest.mark.usefixtures("eager_threads")
@pytest.mark.parametrize("kind", BASES)
def test_every_row_may_have_another_delta(kind):
    """And some none; any number of threads; the same bits as each alone."""
    rows, columns = 37, 1024
    base = base_of(kind, rows, columns)
    first = ternops.delta(base, tuned_of(base))
    deltas = [first, *(ternops.delta(first.base, tuned_of(base, seed)) for seed in (1, 2))]
    random = np.random.default_rng(0)
    for count, threads in itertools.product((0, 1, 3, 8, 40), cases.THREADS):
        x, index = cases.floats(count, columns), random.integers(-1, 3, count)
        found = ternops.matmul_deltas(x, deltas, index, threads=threads)
        for row, which, result in zip(x, index, found, strict=True):
            one = row[None]
            wanted = base_product(first.base, one) if which < 0 else expected(deltas[which], one)
            assert cases.same_bits(result, wanted[0]), (count, threads, which)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_any_shape_and_any_rows(data):
    """A base in float16, and as many deltas as may be."""
    rows, columns = data.draw(st.integers(1, 70)), data.draw(st.integers(1, 600))
    base = base_of("fp16", rows, columns)
    deltas = [ternops.delta(base, tuned_of(base))]
    deltas += [ternops.delta(deltas[0].base, tuned_of(base, seed))
               for seed in range(data.draw(st.integers(0, 3)))]  # fmt: skip
    index = data.draw(st.lists(st.integers(-1, len(deltas) - 1), max_size=20))
    x = cases.floats(len(index), columns)
    found = ternops.matmul_deltas(x, deltas, index)
    for row, which, result in zip(x, index, found, strict=True):
        wanted = base_product(deltas[0].base, row[None])
        wanted = wanted if which < 0 else expected(deltas[which], row[None])
        assert cases.same_bits(result, wanted[0])


def test_rows_that_are_not_finite_are_nan():
    """And no others."""
    base = base_of("fp16", 5, 65)
    x = cases.floats(3, 65)
    x[0, 3], x[2, 64] = np.nan, np.inf
    found = x @ ternops.delta(base, tuned_of(base)).T
    assert np.isnan(found[[0, 2]]).all()
    assert np.isfinite(found[1]).all()


@pytest.mark.parametrize("kind", BASES)
def test_alpha_is_the_best_there_is(kind):
    """Of the weights the mean magnitude (the paper's closed form), of outputs the least squares:
    no other one leaves a smaller error."""
    base, x = base_of(kind, 9, 64), cases.floats(40, 64).astype(np.float64)
    tuned = tuned_of(base)
    plain, fitted = ternops.delta(base, tuned), ternops.delta(base, tuned, x)
    difference = tuned.astype(np.float64) - plain.base.to_dense()
    signs = plain.signs.to_trits()
    assert (signs == np.where(difference > 0, 1, -1)).all()
    assert (fitted.signs.to_trits() == signs).all()
    assert plain.alpha == np.float32(np.abs(difference).mean())

    def error(alpha, x):
        return np.square(x @ (difference - alpha * signs).T).sum()

    for delta, inputs in ((plain, np.eye(64)), (fitted, x)):
        for factor in (0.97, 1.03):
            assert error(delta.alpha, inputs) < error(factor * delta.alpha, inputs)
    assert error(fitted.alpha, x) <= error(plain.alpha, x)


def test_zeros_are_negative_and_nothing_may_differ():
    """sign(0) is -1, as in the paper; alpha is 0 where nothing was tuned."""
    base = base_of("fp16", 3, 5)
    same = ternops.delta(base, base)
    assert same.alpha == 0
    assert (same.signs.to_trits() == -1).all()
    assert cases.same_bits(same.to_dense(), base.astype(np.float32))
    assert ternops.delta(base, base, cases.floats(2, 5)).alpha == 0
    assert ternops.delta(base, tuned_of(base), np.zeros((2, 5))).alpha == 0


def test_what_it_tells():
    """Its shape, its bytes, its value, a copy; a base that is shared is no copy."""
    base = base_of("base3", 37, 1021)
    delta = ternops.delta(base, tuned_of(base))
    assert delta.base is base
    assert (delta.shape, delta.T.shape, delta.T.T.shape) == ((37, 1021), (1021, 37), (37, 1021))
    assert delta.nbytes == delta.signs.nbytes < 37 * 1021 / 8 * 1.1
    dense = base.to_dense() + delta.alpha * delta.signs.to_trits().astype(np.float32)
    assert cases.same_bits(np.asarray(delta), dense)
    assert cases.same_bits(delta.T.to_dense(), dense.T)
    copied = pickle.loads(pickle.dumps(delta))
    assert cases.same_bits(copied.to_dense(), dense)
    assert repr(delta).startswith("DeltaMatrix(shape=(37, 1021), base='base3', alpha=")
    assert ternops.delta(base_of("bf16", 2, 3), np.zeros((2, 3))).base.is_bf16


def test_float32_is_rounded_before_the_difference_is_taken():
    """The difference is that to what is held, so that a product is close to the tuned one."""
    base = cases.floats(9, 64) * np.float32(1 + 2**-20)
    held = half_of(base)
    assert not held.is_bf16
    assert cases.same_bits(held.to_dense(), base.astype(np.float16).astype(np.float32))
    found = ternops.delta(base, base)
    assert found.alpha == np.float32(np.abs(base.astype(np.float64) - held.to_dense()).mean()) > 0


GOOD = np.ones((3, 5), np.float16)
BAD = {
    "base: w": (TypeError, lambda: ternops.delta(np.ones((3, 5), np.int8), GOOD), "dtype int8"),
    "base: 1-D": (ValueError, lambda: ternops.delta(np.ones(3), GOOD), r"shape \(3,\)"),
    "base: NaN": (
        ValueError, lambda: ternops.delta(GOOD * np.nan, GOOD), r"base\[0, 0\] is nan, .*finite"
    ),
    "base: large": (
        ValueError, lambda: ternops.delta(np.full((3, 5), 65537.123), GOOD), "exceeds float16"
    ),
    "base: T": (
        ValueError, lambda: ternops.delta(ternops.pack(np.ones((5, 3), np.int8)).T, GOOD),
        "a transpose, expected the matrix",
    ),
    "tuned: shape": (
        ValueError, lambda: ternops.delta(GOOD, GOOD.T), r"shape \(5, 3\), expected .*\(3, 5\)"
    ),
    "tuned: kind": (TypeError, lambda: ternops.delta(GOOD, GOOD > 0), "dtype bool"),
    "tuned: infinite": (
        ValueError, lambda: ternops.delta(GOOD, GOOD * np.inf), r"tuned\[0, 0\] is inf"
    ),
    "x: shape": (
        ValueError, lambda: ternops.delta(GOOD, GOOD, np.ones((2, 3))), r"expected \(tokens, 5\)"
    ),
    "x: none": (ValueError, lambda: ternops.delta(GOOD, GOOD, np.ones((0, 5))), "at least a"),
    "x: kind": (TypeError, lambda: ternops.delta(GOOD, GOOD, [["a"] * 5]), "dtype <U1"),
    "x: NaN": (ValueError, lambda: ternops.delta(GOOD, GOOD, GOOD * np.nan), r"x\[0, 0\] is nan"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line(case):
    """That names the argument."""
    kind, call, words = BAD[case]
    with pytest.raises(kind, match=words) as caught:
        call()
    assert str(caught.value).startswith(f"{case.split(':')[0]}: ")
    assert "\n" not in str(caught.value)


def test_bad_products_are_one_line():
    """Of the batch and of the operators."""
    delta, other = (ternops.delta(GOOD, GOOD) for _ in range(2))
    x = np.ones((2, 5))
    for kind, arguments, words in (
        (ValueError, (x, [], [0, 0]), "deltas: empty"),
        (ValueError, (x, [delta, other], [0, 0]), r"deltas\[1\]: of another base"),
        (TypeError, (x, [delta, GOOD], [0, 0]), r"deltas\[1\]: ndarray, expected a DeltaMatrix"),
        (ValueError, (x, [delta], [0]), r"index: shape \(1,\), expected one for each of 2 tokens"),
        (ValueError, (x, [delta], [0, 1]), r"index\[1\]: 1, expected -1 \(the base\) to 0"),
        (ValueError, (x, [delta], [-2, 0]), r"index\[0\]: -2, expected"),
        (TypeError, (x, [delta], [0.0, 0.0]), "index: dtype float64, expected integers"),
        (ValueError, (x.T, [delta], [0, 0]), r"x: shape \(5, 2\), expected \(tokens, 5\)"),
        (ValueError, (x[0], [delta], [0, 0]), r"x: shape \(5,\), expected \(tokens, 5\)"),
        (TypeError, (x > 0, [delta], [0, 0]), "x: dtype bool, expected int8"),
    ):
        with pytest.raises(kind, match=f"^{words}"):
            ternops.matmul_deltas(*arguments)
    with pytest.raises(ValueError, match=r"^threads=0"):
        ternops.matmul_deltas(x, [delta], [0, 0], threads=0)
    with pytest.raises(ValueError, match=r"^matmul: a has shape \(2, 3\), expected 5 on axis -1"):
        np.ones((2, 3)) @ delta.T
    with pytest.raises(TypeError, match=r"^matmul: x @ D, expected x @ D.T or D @ x"):
        np.ones((2, 3)) @ delta
    with pytest.raises(TypeError, match=r"^matmul: D.T @ x, expected"):
        delta.T @ np.ones(3)
    with pytest.raises(TypeError, match=r"^matmul: b has dtype <U4, expected int8, float16, "):
        delta @ "text"
    with pytest.raises(ValueError, match=r"^copy=False"):
        np.asarray(delta, copy=False)


#: Table 5 of the paper: a model's size in GB and its delta's, which is in GiB. hidden, ffn, layers,
#: heads, kv_heads, vocabulary.
PAPER = {
    "Llama 2-7B": ((4096, 11008, 32, 32, 32, 32000), 13.48, 1.24),
    "Llama 2-13B": ((5120, 13824, 40, 40, 40, 32000), 26.03, 2.09),
    "Llama 2-70B": ((8192, 28672, 80, 64, 8, 32000), 137.95, 8.95),
    "Mistral-7B v0.1": ((4096, 14336, 32, 32, 8, 32000), 14.48, 1.30),
}


@pytest.mark.parametrize("name", PAPER)
def test_sizes_are_the_papers(name):
    """One bit a weight of the linear layers, and embedding and head in two bytes: more than ten
    times less than a model; ours leaves these two to the base, and has at most 1.2 GB of 7B."""
    (hidden, ffn, layers, heads, kv_heads, vocabulary), whole, delta = PAPER[name]
    config = Config(
        hidden=hidden, ffn=ffn, layers=layers, heads=heads, kv_heads=kv_heads,
        head_dim=hidden // heads, vocabulary=vocabulary, context=4096, tied=False,
    )  # fmt: skip
    tables, norms = 2 * vocabulary * hidden, (2 * layers + 1) * hidden
    assert round(2 * (config.linear_weights + tables + norms) / 1e9, 2) == whole
    size = config.linear_weights / 8 + 2 * tables
    assert round(size / 2**30, 2) == delta
    assert whole * 1e9 / size > 10
    rows, columns = config.linear_shapes(0)["down"]
    packed = ternops.pack(np.ones((rows, columns), np.int8), 0.1, "one_bit")
    assert packed.bits_per_weight < 1.001
    if "7B" in name:
        assert config.linear_weights * packed.bits_per_weight / 8 < 1.2e9
