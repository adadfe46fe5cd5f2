"""NumPy's functions of a matrix: products, shapes, dense values; a TypeError of one line else."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import ternops
from ternops.encodings import ENCODINGS
from tests.helpers import cases
from tests.helpers.checks import fails

KINDS = {
    **{name: ternops.pack(cases.trits(5, 32, encoding=name), encoding=name) for name in ENCODINGS},
    "scaled": ternops.pack(cases.trits(5, 32), 0.375),
    "groups": ternops.pack(cases.trits(5, 32), cases.group_scales(5, 2)),
    "fp8": ternops.quantize(cases.floats(5, 32), encoding="fp8"),
}
KIND = pytest.mark.parametrize("kind", KINDS)


def operand(kind, *shape):
    """int8, whose products are exact, but for a matrix of floats."""
    return cases.floats(*shape) if kind == "fp8" else cases.activations(*shape)


@KIND
def test_dense_values_once(kind):
    """numpy.asarray, numpy.array and their arguments; no copy is made of what is made anew."""
    for matrix in (KINDS[kind], KINDS[kind].T):
        dense = matrix.to_dense()
        for found in (np.asarray(matrix), np.array(matrix), np.array(matrix, copy=None),
                      matrix.__array__(copy=True), np.asanyarray(matrix)):  # fmt: skip
            assert cases.same_bits(found, dense)
            assert found.flags.writeable
        for dtype in (np.float64, np.float16, np.int32, "complex64", ml_dtypes.bfloat16, ">f4"):
            found = np.asarray(matrix, dtype=dtype)
            assert found.dtype == np.dtype(dtype)
            assert (found == dense.astype(dtype)).all()
        first, second = np.asarray(matrix), np.asarray(matrix)
        first[...] = 9
        assert cases.same_bits(second, dense)
        fails(ValueError, "copy=False dense", lambda: np.array(matrix, copy=False))  # noqa: B023
        fails(ValueError, "copy=False dense", lambda: np.asarray(matrix, copy=False))  # noqa: B023


EINSUMS = {
    "ij,j->i": (32,),
    "i,ij->j": (5,),
    "bj,ij->bi": (3, 32),
    "ij,bj->bi": (3, 32),
    "ij,bj->ib": (3, 32),
    "ij,jk": (32, 3),
    "bj, ij": (3, 32),
    "ki,ij": (3, 5),
    "abj,ij->abi": (2, 3, 32),
    "ajb,ij->iab": (2, 32, 3),
    "...j,ij->...i": (2, 3, 32),
    "ij,...j->i...": (2, 3, 32),
    "...i,ij": (2, 3, 5),
    "j...,ij->...i": (32, 2, 3),
    "...j,ij->i...": (32,),
    "Zj,Aj->ZA": (3, 32),
}


@KIND
@pytest.mark.parametrize("subscripts", EINSUMS)
def test_einsum(kind, subscripts):
    """What numpy.einsum gives, from either side, in the shapes and orders of its labels."""
    matrix, x = KINDS[kind], operand(kind, *EINSUMS[subscripts])
    left = subscripts.startswith("ij")
    dense, wide = matrix.to_dense().astype(np.float64), x.astype(np.float64)
    pair, exact = ((matrix, x), (dense, wide)) if left else ((x, matrix), (wide, dense))
    found, expected = np.einsum(subscripts, *pair), np.einsum(subscripts, *exact)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)
    assert found.dtype == (matrix @ operand(kind, 32)).dtype
    out = np.empty(expected.shape)
    assert np.einsum(subscripts, *pair, out=out, optimize=True) is out
    assert (out == found).all()


def test_einsum_of_a_transpose_and_floats():
    """Activations are quantised along the label that is summed over, as in a product."""
    matrix, x = KINDS["scaled"], cases.floats(3, 32)
    assert cases.same_bits(np.einsum("bj,ij->bi", x, matrix), x @ matrix.T)
    assert cases.same_bits(np.einsum("bj,ji->bi", x, matrix.T), x @ matrix.T)
    assert cases.same_bits(np.einsum("ji,bj->ib", matrix.T, x), (x @ matrix.T).T)
    assert cases.same_bits(np.einsum("j,ij", x[0].tolist(), matrix), x[0] @ matrix.T)


@pytest.mark.parametrize("shape", [(32,), (32, 3), (2, 32, 3), (2, 4, 32, 3)])
def test_dot(shape):
    """As numpy.dot has its axes, which of more than two dimensions are not those of matmul."""
    matrix, x = KINDS["two_bit"], cases.activations(*shape)
    exact = np.dot(matrix.to_trits().astype(np.int32), x.astype(np.int32))
    assert cases.same_bits(np.dot(matrix, x), exact)
    y = cases.activations(*shape[:-2], shape[-1], 5) if len(shape) > 1 else cases.activations(5)
    exact = np.dot(y.astype(np.int32), matrix.to_trits().astype(np.int32))
    assert cases.same_bits(np.dot(y, matrix), exact)
    out = np.empty(exact.shape, np.int32)
    assert np.dot(y, matrix, out=out) is out
    assert cases.same_bits(out, exact)


@KIND
def test_shapes(kind):
    """Of the matrix, without its values."""
    for matrix in (KINDS[kind], KINDS[kind].T):
        assert np.shape(matrix) == matrix.shape
        assert np.ndim(matrix) == 2
        assert np.size(matrix) == 160
        assert np.size(matrix, 1) == matrix.shape[1]
        assert np.transpose(matrix).shape == matrix.shape[::-1]
        assert cases.same_bits(np.transpose(matrix, (0, 1)).to_dense(), matrix.to_dense())
        assert matrix.transpose().T.shape == matrix.shape


W, X = KINDS["two_bit"], cases.activations(3, 32)


@pytest.mark.parametrize(
    ("words", "call"),
    [
        ("numpy.linalg.norm: TernaryMatrix numpy.asarray(W)", lambda: np.linalg.norm(W)),
        ("numpy.sum: TernaryMatrix numpy.asarray(W)", lambda: np.sum(W)),
        ("numpy.array_equal: numpy.asarray(W)", lambda: np.array_equal(X, W)),
        ("numpy.tensordot: numpy.asarray(W)", lambda: np.tensordot(X, W, 1)),
        ("numpy.where: numpy.asarray(W)", lambda: np.where(W, 1, 0)),
        ("numpy.sum: FloatMatrix numpy.asarray(W)", lambda: np.sum(KINDS["fp8"])),
        ("numpy.concatenate: FloatMatrix", lambda: np.concatenate([KINDS["fp8"]] * 2)),
        ("numpy.count_nonzero: FloatMatrix", lambda: np.count_nonzero(KINDS["fp8"])),
        ("numpy.count_nonzero axis", lambda: np.count_nonzero(W, axis=0)),
        ("numpy.add: numpy.asarray(W)", lambda: X + W),
        ("numpy.multiply: numpy.asarray(W)", lambda: np.multiply(W, 2)),
        ("numpy.add.reduce: numpy.asarray(W)", lambda: np.add.reduce(W)),
        ("numpy.matmul dtype", lambda: np.matmul(X, W.T, dtype=np.float64)),
        ("numpy.matmul axes", lambda: np.matmul(X, W.T, axes=[(0, 1), (0, 1), (0, 1)])),
        ("numpy.equal: numpy.asarray(W)", lambda: X == W),
        ("einsum: no product one label", lambda: np.einsum("bj,ij->b", X, W)),
        ("einsum: no product one label", lambda: np.einsum("ij,ij->i", W[:3], X)),
        ("einsum: no product one label", lambda: np.einsum("ij,ab->ijab", W, X)),
        ("einsum: no product one label", lambda: np.einsum("ii,bi->b", W, X)),
        ("einsum: no product one label", lambda: np.einsum("bb,ib->i", X, W)),
        ("einsum: no product one label", lambda: np.einsum("...,b...->b...", W, X)),
        ("einsum: no product one label", lambda: np.einsum("bj,ij->bii", X, W)),
        ("einsum: two packed", lambda: np.einsum("ij,jk", W, W.T)),
        ("einsum: string", lambda: np.einsum("ij->ji", W)),
        ("einsum: string", lambda: np.einsum(W, [0, 1], X, [2, 1])),
        ("einsum: string", lambda: np.einsum("bj,ij,i->b", X, W, X[0, :5])),
        ("einsum: dtype", lambda: np.einsum("bj,ij", X, W, dtype=np.float64)),
        ("einsum: masked array filled(0)",
         lambda: np.einsum("bj,ij", np.ma.masked_array(X, X > 0), W)),
        ("matmul: masked array filled(0)", lambda: np.dot(np.ma.masked_array(X, X > 0), W.T)),
        ("dot: out numpy.matmul",
         lambda: np.dot(W, cases.activations(2, 32, 3), out=np.empty((2, 5, 3), np.int32))),
    ],
)  # fmt: skip
def test_others_are_a_type_error(words, call):
    """That names the function and says what to type."""
    fails(TypeError, words, call)


@pytest.mark.parametrize(
    ("words", "call"),
    [
        ("einsum: label 'j' sizes 32 31", lambda: np.einsum("bj,ij->bi", X[:, 1:], W)),
        ("einsum: operand of 2 dimensions", lambda: np.einsum("abj,ij->abi", X, W)),
        ("einsum: operand of 2 dimensions", lambda: np.einsum("j,ij->i", X, W)),
        ("einsum: subscripts 'bj,ij->b1'", lambda: np.einsum("bj,ij->b1", X, W)),
        ("einsum: subscripts", lambda: np.einsum("bj", X, W)),
        ("einsum: out shape (3, 5)", lambda: np.einsum("bj,ij", X, W, out=np.empty((5, 3)))),
        ("matmul: a shape", lambda: np.dot(X, W)),
        ("repeated axis", lambda: np.transpose(W, (0, 0))),
    ],
)
def test_what_does_not_fit_is_a_value_error(words, call):
    """As NumPy's own."""
    fails(ValueError, words, call)


class Quantity(np.ndarray):
    """An array with functions of its own, as astropy's."""

    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        return "its own"

    def __array_function__(self, function, types, arguments, options):
        return "its own"


class Foreign:
    """Something else with functions of its own, as arrays of dask and cupy are."""

    def __array_function__(self, function, types, arguments, options):
        return "its own"


def test_others_get_their_turn():
    """Where an operand knows more of a function than this does."""
    assert np.add(W, X[:1].view(Quantity)) == "its own"
    assert np.concatenate([W, Foreign()]) == "its own"
