"""Matrices of floats of eight bits: made, multiplied as the oracle says, copied."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from ternops.float_matrix import METHODS, FloatMatrix, quantize_floats
from ternops.kernels import reference
from ternops.kernels.fp16 import KINDS
from ternops.quantizers import fp8
from tests.helpers import cases

METHOD = pytest.mark.parametrize("method", METHODS)


def expected(matrix, x):
    weights = fp8.decode(matrix.to_codes(), fp8.FORMATS[matrix.method])
    return reference.float8_product(weights, KINDS[matrix.method].factor, matrix.scale, x)


@METHOD
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_what_it_is_made_of(method, dtype):
    """A scale a row that makes the largest weight the largest number, codes that are nearest."""
    w = cases.floats(7, 100, dtype=dtype).clip(-6e4, 6e4).astype(dtype)
    w[3] = 0
    matrix = quantize_floats(w, method)
    most = fp8.FORMATS[method].most
    absmax = np.abs(w.astype(np.float64)).max(axis=1)
    scale = np.where(absmax > 0, absmax / most, 1).astype(np.float32)
    assert cases.same_bits(matrix.scale, scale)
    codes = fp8.encode(w.astype(np.float64) / scale[:, None], fp8.FORMATS[method])
    assert cases.same_bits(matrix.to_codes(), codes)
    dense = fp8.decode(codes, fp8.FORMATS[method]) * scale[:, None]
    assert cases.same_bits(matrix.to_dense(), dense)
    assert cases.same_bits(np.asarray(matrix.T), dense.T)
    half = 2.0 ** -(fp8.FORMATS[method].mantissa + 1)
    least = half * 2.0 ** (1 - fp8.FORMATS[method].bias) * scale[:, None]
    assert (
        np.abs(dense - w) <= np.maximum(1.001 * half * np.abs(w.astype(np.float64)), least)
    ).all()
    assert (matrix.shape, matrix.T.shape, matrix.size) == ((7, 100), (100, 7), 700)
    assert (matrix.encoding, matrix.method, matrix.group) == ("fp8", method, None)


@METHOD
@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (1, 1), (3, 100), (33, 64), (257, 65)])
def test_products(method, shape):
    """The oracle's bits, for all dtypes of activations and both directions."""
    rows, columns = shape
    matrix = quantize_floats(cases.floats(rows, columns), method)
    for tokens in (0, 1, 3, 5):
        x = cases.floats(tokens, columns, seed=tokens)
        for threads in (1, 3):
            found = matrix.T.product(x, "a", True, threads)
            assert cases.same_bits(found, expected(matrix, x).astype(np.float32))
        assert cases.same_bits(x @ matrix.T, found)
        assert cases.same_bits(matrix @ x.T, found.T)
        other = cases.floats(tokens, rows, seed=9)
        right = other.astype(np.float64) @ matrix.to_dense().astype(np.float64)
        assert (other @ matrix).shape == (tokens, columns)
        assert np.allclose(other @ matrix, right, rtol=1e-6, atol=1e-30)
        assert np.allclose(matrix.T @ other.T, right.T, rtol=1e-6, atol=1e-30)
    if columns:
        for dtype in (np.int8, np.float16, np.float64):
            x = cases.floats(2, 3, columns).clip(-100, 100).astype(dtype)
            found = x @ matrix.T
            flat = x.reshape(6, columns).astype(np.float32)
            assert cases.same_bits(found, expected(matrix, flat).reshape(2, 3, rows))
        assert cases.same_bits(matrix @ flat[0], expected(matrix, flat[:1])[0])


@METHOD
def test_copies(method):
    """By value; its arrays cannot be written."""
    matrix = quantize_floats(cases.floats(5, 70), method)
    for each in (copy.copy(matrix), copy.deepcopy(matrix), pickle.loads(pickle.dumps(matrix))):
        assert isinstance(each, FloatMatrix)
        assert cases.same_bits(each.to_dense(), matrix.to_dense())
        assert each.method == method
    assert copy.copy(matrix.T).shape == (70, 5)
    with pytest.raises(ValueError, match="read-only"):
        matrix.to_codes()[0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        matrix.scale[0] = 1
    assert repr(matrix) == (
        f"FloatMatrix(shape=(5, 70), encoding='fp8', method='{method}', bits_per_weight=15.086)"
    )
    wide = quantize_floats(np.ones((3, 4096), np.float32), method)
    assert wide.bits_per_weight == pytest.approx(8 + 32 / 4096)


@METHOD
def test_bad_input(method):
    """One line each."""
    w = cases.floats(3, 64)
    for bad in (np.nan, np.inf, -np.inf):
        broken = w.copy()
        broken[1, 5] = bad
        with pytest.raises(ValueError, match=r"^w: holds -?(nan|inf), expected finite numbers$"):
            quantize_floats(broken, method)
    with pytest.raises(ValueError, match=r"^w: method .* gives a scale of .*, beyond float32$"):
        quantize_floats(np.full((1, 8), 1e300), method)
    with pytest.raises(TypeError, match=r"^w: dtype int8, expected float16, float32 or float64"):
        quantize_floats(np.zeros((2, 4), np.int8), method)
    with pytest.raises(ValueError, match=r"^method='e3m4': expected e4m3 or e5m2 with encoding"):
        quantize_floats(w, "e3m4")
    matrix = quantize_floats(w, method)
    with pytest.raises(ValueError, match=r"^matmul: a has shape \(2, 3\), expected 64 on axis -1 "):
        np.zeros((2, 3), np.float32) @ matrix.T
    with pytest.raises(ValueError, match=r"^matmul: b has shape \(3, 2\), expected 64 on axis -2 "):
        matrix @ np.zeros((3, 2), np.float32)
    with pytest.raises(TypeError, match=r"^matmul: b has dtype int32, expected int8, float16, "):
        matrix @ np.zeros(64, np.int32)
    tiny = quantize_floats(np.full((1, 64), 1e-45, np.float32), method)
    assert tiny.scale[0] == np.float32(2.0**-126)
