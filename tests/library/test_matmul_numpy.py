"""A product behaves as numpy.matmul does: shapes, errors, dtypes, accuracy, `out`, NaN."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import ternops
from ternops.encodings import ENCODINGS
from tests.helpers import cases

#: Shapes of the array operand that fit, or do not fit, matrices of 5 x 7 and of 7 x 7.
OTHERS = (
    (), (0,), (1,), (5,), (7,), (8,), (7, 3), (3, 7), (5, 3), (3, 5), (7, 5), (5, 7), (7, 7),
    (5, 5), (7, 1), (1, 7), (5, 1), (1, 5), (7, 0), (0, 7), (5, 0), (0, 5), (1, 1), (2, 8, 3),
    (2, 7, 3), (2, 3, 7), (2, 5, 3), (2, 3, 5), (7, 7, 7), (5, 7, 5), (2, 7, 7), (2, 7, 5),
    (2, 5, 7), (2, 5, 5), (0, 7, 3), (0, 3, 7), (2, 7, 0), (2, 0, 7), (2, 3, 4, 7, 3),
    (2, 3, 4, 3, 7), (2, 1, 5, 3), (2, 1, 3, 5), (1, 0, 7, 5), (1, 0, 5, 7),
)  # fmt: skip
MATRICES = ((5, 7), (7, 7), (0, 7), (5, 0), (0, 0), (1, 1))
PRODUCTS = {
    "W @ x": lambda w, x: w @ x,
    "x @ W": lambda w, x: x @ w,
    "W.T @ x": lambda w, x: w.T @ x,
    "x @ W.T": lambda w, x: x @ w.T,
}


def outcome(compute):
    """The result, or the kind of error that there was."""
    try:
        return compute()
    except TypeError:
        return TypeError
    except ValueError:
        return ValueError


@pytest.mark.parametrize("product", PRODUCTS)
@pytest.mark.parametrize("shape", MATRICES, ids=cases.name)
def test_shapes_values_and_errors_are_numpys(shape, product):
    """Each shape of the other operand gives NumPy's array or NumPy's kind of error."""
    trits = cases.trits(*shape)
    matrix, compute = ternops.pack(trits), PRODUCTS[product]
    differing = []
    for other in OTHERS:
        x = cases.activations(*other)
        expected = outcome(lambda: compute(trits.astype(np.int32), x.astype(np.int32)))  # noqa: B023
        found = outcome(lambda: compute(matrix, x))  # noqa: B023
        if isinstance(expected, type) or isinstance(found, type):
            same = expected is found
        else:
            same = cases.same_bits(found, expected)
        if not same:
            differing.append((other, found, expected))
    assert not differing


@pytest.mark.parametrize("product", PRODUCTS)
def test_numpys_matmul_dispatches_to_ours(product):
    """np.matmul of a matrix and an array is the same product, never an object array."""
    trits = cases.trits(5, 7)
    matrix = ternops.pack(trits)
    left = {"W @ x": matrix, "W.T @ x": matrix.T}.get(product)
    right = {"x @ W": matrix, "x @ W.T": matrix.T}.get(product)
    for m in (1, 5, 7):
        if left is not None:
            x = cases.activations(left.shape[1], m)
            expected = left.to_trits().astype(np.int32) @ x.astype(np.int32)
            found, out = np.matmul(left, x), np.empty((left.shape[0], m), np.int32)
            assert np.matmul(left, x, out=out) is out
        else:
            x = cases.activations(m, right.shape[0])
            expected = x.astype(np.int32) @ right.to_trits().astype(np.int32)
            found, out = np.matmul(x, right), np.empty((m, right.shape[1]), np.int32)
            assert np.matmul(x, right, out=out) is out
        assert cases.same_bits(found, expected)
        assert cases.same_bits(out, expected)


@pytest.mark.parametrize(
    "compute",
    [
        lambda w, x: np.add(w, x),
        lambda w, x: np.multiply(x, w),
        lambda w, x: x + w,
        lambda w, x: w * 2,
        lambda w, x: np.negative(w),
        lambda w, x: np.add.reduce(w),
        lambda w, x: np.matmul(x, w, dtype=np.float64),
        lambda w, x: w @ w,
        lambda w, x: w @ w.T,
        lambda w, x: np.matmul(w, w.T),
        lambda w, x: ternops.matmul(x, x),
    ],
)
def test_anything_else_is_a_type_error(compute):
    """Other ufuncs, other options, two matrices, and none."""
    with pytest.raises(TypeError):
        compute(ternops.pack(cases.trits(7, 7)), cases.activations(7, 7))


@pytest.mark.parametrize(
    "dtype",
    ["int16", "int32", "int64", "uint8", "uint32", "bool", "complex64", "longdouble", "O", "U3",
     ">i2", ">c8", "i1,i1", "M8[s]"],
)  # fmt: skip
def test_other_dtypes_are_a_type_error(dtype):
    """Only int8 and the three floats; the message names the operand and the dtype."""
    matrix = ternops.pack(cases.trits(7, 7))
    x = np.zeros(7, dtype)
    for operand, compute in (("a", lambda: x @ matrix), ("b", lambda: matrix @ x)):
        with pytest.raises(TypeError, match=f"^matmul: {operand} has dtype") as caught:
            compute()
        assert "\n" not in str(caught.value)


def bound(dense, x):
    """How far a float product may be off: half a step a term, then a few float32 roundings.

    x: (k, m) float64. A row's step is max|x| / 127, so that each term is off by at most
    |w| * max|x| / 254; the factor covers the rounding of x * (127 / max|x|), the last term that of
    the sum to float32 and of the two products after it.
    """
    step = np.abs(dense) @ np.broadcast_to(np.abs(x).max(axis=0, initial=0) / 254, x.shape)
    return step * (1 + 1e-4) + 4 * 2.0**-24 * (np.abs(dense) @ np.abs(x) + step) + 1e-45


@pytest.mark.parametrize("kind", ["none", "scalar", "rows"])
@pytest.mark.parametrize("dtype", cases.FLOATS, ids=["float16", "float32", "float64"])
def test_float_products_approximate_the_dense_ones(dtype, kind):
    """W @ x and x @ W.T within half a quantisation step a term of the float64 product."""
    for shape in ((1, 1), (5, 257), (37, 1021), (64, 64)):
        matrix = ternops.pack(cases.trits(*shape), cases.scales(shape[0])[kind])
        dense = matrix.to_dense().astype(np.float64)
        x = cases.floats(6, shape[1], dtype=dtype)
        exact = dense @ x.T.astype(np.float64)
        for found in (matrix @ x.T, (x @ matrix.T).T):
            assert found.dtype == np.float32
            assert (np.abs(found - exact) <= bound(dense, x.T.astype(np.float64))).all()


@pytest.mark.parametrize("kind", ["none", "scalar", "rows"])
@pytest.mark.parametrize("dtype", cases.FLOATS, ids=["float16", "float32", "float64"])
def test_float_products_over_the_packed_rows(dtype, kind):
    """x @ W and W.T @ x: a scale a row joins x before that is quantised."""
    for shape in ((1, 1), (257, 5), (4099, 3), (64, 64)):
        scale = cases.scales(shape[0])[kind]
        matrix = ternops.pack(cases.trits(*shape), scale)
        x = cases.floats(6, shape[0], dtype=dtype)
        weights = matrix.to_trits().T.astype(np.float64)
        joined = x.T.astype(np.float64)
        factor = 1.0 if scale is None else np.asarray(scale, np.float64)
        if kind == "rows":
            joined, factor = joined * factor[:, None], 1.0
        exact = matrix.to_dense().T.astype(np.float64) @ x.T.astype(np.float64)
        limit = bound(weights * factor, joined) + np.abs(exact) * 2.0**-22
        for found in (matrix.T @ x.T, (x @ matrix).T):
            assert found.dtype == np.float32
            assert (np.abs(found - exact) <= limit).all()


@pytest.mark.parametrize("kind", ["scalar", "rows"])
def test_scaled_int8_products_approximate_the_dense_ones(kind):
    """int8 is not quantised again along the packed rows: only float32 roundings are left."""
    matrix = ternops.pack(cases.trits(37, 1021), cases.scales(37)[kind])
    x = cases.activations(1021, 5)
    exact = matrix.to_dense().astype(np.float64) @ x.astype(np.float64)
    total = np.abs(matrix.to_trits().astype(np.int64) @ x.astype(np.int64))
    found = matrix @ x
    weights = np.abs(np.float64(matrix.scale)) * np.ones(37)
    assert found.dtype == np.float32
    assert (np.abs(found - exact) <= 3 * 2.0**-24 * total * weights[:, None]).all()


@pytest.mark.parametrize("dtype", cases.FLOATS, ids=["float16", "float32", "float64"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_with_nan_or_infinity_gives_a_nan_row(dtype, bad):
    """And no other row is touched, on either side and along either axis."""
    matrix = ternops.pack(cases.trits(7, 7), np.float32(0.5))
    x = cases.floats(4, 7, dtype=dtype)
    clean = {name: compute(matrix, x) for name, compute in list(PRODUCTS.items())[1::2]}
    x[2, 3] = bad
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, expected in clean.items():
            found = PRODUCTS[name](matrix, x)
            assert np.isnan(found[2]).all()
            rest = [0, 1, 3]
            assert cases.same_bits(found[rest], expected[rest])
        found = matrix @ x.T
    assert np.isnan(found[:, 2]).all()
    assert np.isfinite(found[:, rest]).all()


def test_a_bad_row_of_huge_float64_warns_of_nothing():
    """NaN next to 1e200 is a NaN row, without a warning from NumPy."""
    matrix = ternops.pack(np.ones((2, 3), np.int8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for row in ([np.nan, 1e200, 1.0], [np.inf, 1e300, -1e300]):
            assert np.isnan(matrix @ np.array(row)).all()
            assert np.isnan(np.array(row)[:2] @ matrix).all()


@pytest.mark.parametrize("product", PRODUCTS)
def test_float64_beyond_float32(product):
    """Too large becomes infinity, too small 0, and what the scale brings back is right."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for magnitude, scale, expected in (
            (1e200, 1.0, np.inf),
            (-1e200, 1.0, -np.inf),
            (1e-200, 1.0, 0.0),
            (1e308, 1.0, np.inf),
            (5e-324, 1.0, 0.0),
            (1e60, 1e-30, 4e30),
            (1e-60, 1e30, 4e-30),
            (1e40, 1e-30, 4e10),
            (0.0, 1.0, 0.0),
        ):
            matrix = ternops.pack(np.ones((4, 4), np.int8), scale)
            found = PRODUCTS[product](matrix, np.full(4, magnitude))
            assert np.allclose(found, expected, rtol=1e-5, atol=0), (magnitude, scale, found)


def test_rows_of_very_different_float64():
    """Each row has a range of its own: a huge one does not wipe out a small one."""
    matrix = ternops.pack(np.ones((2, 3), np.int8))
    found = np.array([[1e200] * 3, [1.0] * 3, [1e-30] * 3, [1e-200] * 3]) @ matrix.T
    assert np.isposinf(found[0]).all()
    assert np.allclose(found[1], 3.0, rtol=1e-6)
    assert np.allclose(found[2], 3e-30, rtol=1e-6, atol=0)
    assert (found[3] == 0).all()


def test_opposite_huge_values_cancel():
    """A sum that is exactly 0 stays 0 where its terms exceed float32."""
    matrix = ternops.pack(np.ones((1, 2), np.int8))
    assert (matrix @ np.array([1e200, -1e200])).tolist() == [0.0]
    scaled = ternops.pack(np.ones((1, 2), np.int8), 1e30)
    assert (scaled @ np.array([1e12, -1e12], np.float32)).tolist() == [0.0]


@pytest.mark.parametrize("encoding", list(ENCODINGS))
def test_out_may_overlap_the_operand(encoding):
    """As with numpy.matmul, the result is that of the operand before it was written to."""
    trits = cases.trits(64, 64, encoding=encoding)
    matrix = ternops.pack(trits, encoding=encoding)
    memory = cases.floats(41, 64)
    expected = memory[:-1].copy() @ matrix.T
    ternops.matmul(memory[:-1], matrix.T, out=memory[1:])
    assert cases.same_bits(memory[1:], expected)
