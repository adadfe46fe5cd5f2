"""Unusual arrays and foreign byte orders: converted exactly, refused, or left to others."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import ternops
from tests.helpers import cases

MATRIX = ternops.pack(cases.trits(5, 7), 0.5)
X = cases.floats(3, 7).astype(np.float32)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("order", "><")
def test_either_byte_order(dtype, order):
    """Products, quantize and scales have the bits of the native order; the result is native."""
    native, other = X.astype(dtype), X.astype(order + dtype)
    found = other @ MATRIX.T
    assert cases.same_bits(found, native @ MATRIX.T)
    assert found.dtype.isnative
    assert cases.same_bits(MATRIX @ other.T, MATRIX @ native.T)
    assert cases.same_bits(other[:, :5] @ MATRIX, native[:, :5] @ MATRIX)
    for one, same in zip(
        (ternops.quantize(other), ternops.pack(cases.trits(3, 7), other[:, 0])),
        (ternops.quantize(native), ternops.pack(cases.trits(3, 7), native[:, 0])),
        strict=True,
    ):
        assert cases.same_bits(one.to_dense(), same.to_dense())


def test_out_may_have_the_other_byte_order():
    """It is filled with the same numbers."""
    out = np.empty((3, 5), ">f4")
    assert ternops.matmul(X, MATRIX.T, out=out) is out
    assert (out == X @ MATRIX.T).all()


def test_bfloat16_is_float32_with_fewer_digits():
    """As NumPy promotes the arrays of ml_dtypes; nothing is rounded on the way."""
    half = X.astype(ml_dtypes.bfloat16)
    assert cases.same_bits(half @ MATRIX.T, half.astype(np.float32) @ MATRIX.T)
    wide = half.astype(np.float32)
    one, same = ternops.quantize(half), ternops.quantize(wide)
    assert cases.same_bits(one.to_dense(), same.to_dense())
    with pytest.raises(TypeError, match=r"^matmul: a has dtype float8_e4m3fn, expected int8"):
        X.astype(ml_dtypes.float8_e4m3fn) @ MATRIX.T


MASKED = np.ma.masked_array(np.ones((7, 7), np.float32), np.eye(7, dtype=bool))


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("matmul: a", lambda: MASKED @ MATRIX.T),
        ("matmul: b", lambda: MATRIX @ MASKED),
        ("matmul: b", lambda: MATRIX @ list(MASKED)),
        ("matmul: b", lambda: MATRIX @ [[np.ma.masked] * 7] * 7),
        ("matmul: a", lambda: [(MASKED[0], MASKED[1])] @ MATRIX.T),
        ("w", lambda: ternops.quantize([list(MASKED[0])])),
        ("matmul: a", lambda: np.matmul(MASKED, MATRIX.T)),
        ("w", lambda: ternops.quantize(MASKED)),
        ("trits", lambda: ternops.pack(MASKED.astype(np.int8))),
        ("scale", lambda: ternops.pack(cases.trits(7, 7), MASKED[0])),
    ],
)
def test_a_mask_is_not_lost_unsaid(name, call):
    """A TypeError of one line that says what to do; a mask of nothing is one, too."""
    with pytest.raises(
        TypeError, match=rf"^{name} is a masked array, expected .*: {name.split()[-1]}\.filled\(0\)"
    ):
        call()


def test_out_may_not_be_masked():
    """What is masked there would be overwritten."""
    out = np.ma.masked_array(np.ones((3, 5), np.float32), np.zeros((3, 5), bool))
    with pytest.raises(TypeError, match=r"^matmul: out is MaskedArray, expected a plain array$"):
        ternops.matmul(X, MATRIX.T, out=out)


class Reflected:
    """Something that multiplies itself, as scipy's sparse arrays and linear operators do."""

    shape = (7, 2)

    def __matmul__(self, other):
        return NotImplemented

    def __rmatmul__(self, left):
        return "reflected", left


class Opaque(Reflected):
    """One that looks like an array and says that NumPy may not touch it."""

    __array_ufunc__ = None

    def __array__(self, dtype=None, copy=None):
        raise AssertionError("not to be converted")


@pytest.mark.parametrize("other", [Reflected(), Opaque()])
def test_an_operand_with_an_operator_of_its_own_gets_its_turn(other):
    """`W @ other` is other's `__rmatmul__`, with W; what knows nothing of W is a TypeError."""
    word, left = MATRIX @ other
    assert word == "reflected"
    assert left is MATRIX
    with pytest.raises(TypeError, match="unsupported operand type"):
        other @ MATRIX


class Prior(Reflected):
    """An array of another library, which NumPy's arrays leave products with themselves to."""

    __array_priority__ = 1

    def __array__(self, dtype=None, copy=None):
        return X.T

    def __rmatmul__(self, left):
        return NotImplemented if left is MATRIX else ("reflected", left)


def test_an_array_of_another_library_comes_first():
    """Its `__rmatmul__` is asked, as by NumPy; where that knows nothing of us, it is an array."""
    other = MATRIX.unscaled
    assert other @ Prior() == ("reflected", other)
    assert cases.same_bits(MATRIX @ Prior(), MATRIX @ X.T)


class Tensor:
    """One of torch's, as far as NumPy sees it: a bfloat16 that it has no name for."""

    dtype = "torch.bfloat16"

    def float(self):
        return X

    def __array__(self, dtype=None, copy=None):
        raise TypeError("Got unsupported ScalarType BFloat16")


class Gradient(Tensor):
    dtype = "torch.float32"

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad.")


def test_tensors():
    """bfloat16 is float32; anything that is not an array is an error that names the argument."""
    assert cases.same_bits(Tensor() @ MATRIX.T, X @ MATRIX.T)
    assert (ternops.quantize(Tensor()).to_trits() == ternops.quantize(X).to_trits()).all()
    with pytest.raises(TypeError, match=r"^matmul: b: Can't call numpy\(\) on Tensor that"):
        MATRIX @ Gradient()
    with pytest.raises(TypeError, match=r"^w: Can't call numpy"):
        ternops.quantize(Gradient())
    with pytest.raises(ValueError, match=r"^matmul: b: setting an array element with a sequence"):
        MATRIX @ [[1.0, 2.0], [3.0]]


@pytest.mark.peers
def test_tensors_of_torch():
    """Products and matrices of them are those of their float32 arrays."""
    torch = pytest.importorskip("torch")
    half = torch.tensor(X).bfloat16()
    wide = half.float().numpy()
    assert cases.same_bits(half @ MATRIX.T, wide @ MATRIX.T)
    assert cases.same_bits(MATRIX @ half.T, MATRIX @ wide.T)
    assert cases.same_bits(MATRIX @ torch.tensor(X).T, MATRIX @ X.T)
    for argument, call in (("w", ternops.quantize), ("matmul: a", lambda x: x @ MATRIX.T)):
        with pytest.raises(TypeError, match=rf"^{argument}: Can't call numpy"):
            call(torch.tensor(X).requires_grad_())


@pytest.mark.peers
@pytest.mark.parametrize("kind", ["csr_array", "csc_matrix", "coo_array", "dia_array", "lil_array"])
def test_sparse_arrays_of_scipy(kind):
    """On either side: what the dense matrix gives."""
    sparse = getattr(pytest.importorskip("scipy.sparse"), kind)
    for found, expected in (
        (MATRIX @ sparse(X.T), MATRIX.to_dense() @ X.T),
        (sparse(X) @ MATRIX.T, X @ MATRIX.to_dense().T),
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_transpose_is_numpys():
    """The axes that `numpy.ndarray.transpose` takes, in its forms, and its errors."""
    for axes in ((), (None,), (1, 0), ((1, 0),), ([-1, -2],), (0, 1), ((0, 1),)):
        expected = MATRIX.to_trits().transpose(*axes)
        assert (MATRIX.transpose(*axes).to_trits() == expected).all()
        assert MATRIX.transpose(*axes).shape == expected.shape
    for axes in ((0,), (0, 0), (2, 1), ((0, 1, 0),)):
        with pytest.raises(ValueError, match="ax"):
            MATRIX.transpose(*axes)


def test_an_array_like_object_is_an_array():
    """With `__array__` it is multiplied, as before; so are lists."""

    class Like:
        def __array__(self, dtype=None, copy=None):
            return X.T

        def __rmatmul__(self, left):
            raise AssertionError("not to be asked")

    assert cases.same_bits(MATRIX @ Like(), MATRIX @ X.T)
    assert cases.same_bits(
        X.astype(np.float64).tolist() @ MATRIX.T, X.astype(np.float64) @ MATRIX.T
    )


@pytest.mark.parametrize("shape", [(7,), (3, 7), (2, 3, 7)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int8])
def test_in_place(shape, dtype):
    """``x @= W.T`` is ``x = x @ W.T`` in the memory and the dtype of x."""
    square = ternops.pack(cases.trits(7, 7), None if dtype == np.int8 else 0.25)
    x = cases.activations(*shape) // 32 if dtype == np.int8 else cases.floats(*shape).astype(dtype)
    for matrix in (square, square.T):
        expected, found = (x @ matrix).astype(dtype), x.copy()
        before = found
        found @= matrix
        assert found is before
        assert cases.same_bits(found, expected)


def test_in_place_of_another_shape_or_axes():
    """A matrix that is not square does not fit; other axes are not supported."""
    x = X.copy()
    with pytest.raises(ValueError, match=r"^matmul: out has shape"):
        x @= MATRIX.T
    with pytest.raises(TypeError):
        np.matmul(X, MATRIX.T, axes=[(0, 1), (0, 1), (0, 1)])


def test_an_array_of_the_cpu_that_has_dlpack_alone():
    """Its numbers are taken; those of a device that this process cannot read are a TypeError."""

    class Foreign:
        def __init__(self, array, device=1):
            self._array, self._device = array, device

        def __dlpack__(self, **options):
            return self._array.__dlpack__(**options)

        def __dlpack_device__(self):
            return self._device, 0

    trits, x = cases.trits(5, 9), cases.activations(2, 9)
    assert np.array_equal(ternops.pack(Foreign(trits)).to_trits(), trits)
    assert np.array_equal(Foreign(x) @ ternops.pack(trits).T, x.astype(np.int32) @ trits.T)
    with pytest.raises(TypeError, match="trits: in memory of DLPack's device type 2, expected 1"):
        ternops.pack(Foreign(trits, device=2))
