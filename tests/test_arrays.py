"""Arrays that are no plain ones in native order: converted exactly, refused, or left to others."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import ternops
from tests import cases

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
        ("matmul: a", lambda: np.matmul(MASKED, MATRIX.T)),
        ("w", lambda: ternops.quantize(MASKED)),
        ("trits", lambda: ternops.pack(MASKED.astype(np.int8))),
        ("scale", lambda: ternops.pack(cases.trits(7, 7), MASKED[0])),
    ],
)
def test_a_mask_is_not_lost_unsaid(name, call):
    """A TypeError of one line that says what to do; a mask of nothing is one, too."""
    with pytest.raises(TypeError, match=rf"^{name} is a masked array, expected .*filled\(0\)"):
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
    """A matrix that is not square does not fit; other axes are no product of ours."""
    x = X.copy()
    with pytest.raises(ValueError, match=r"^matmul: out has shape"):
        x @= MATRIX.T
    with pytest.raises(TypeError):
        np.matmul(X, MATRIX.T, axes=[(0, 1), (0, 1), (0, 1)])
