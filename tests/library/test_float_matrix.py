"""Matrices of floats of eight bits: made, multiplied as the oracle says, copied."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import safetensors.numpy

import ternops
from ternops.float_matrix import METHODS, FloatMatrix
from ternops.kernels import reference
from ternops.kernels.fp16 import KINDS
from ternops.quantizers import fp8
from tests.helpers import cases, internals
from tests.helpers.matrix_files import damage_is_noticed, refused

METHOD = pytest.mark.parametrize("method", METHODS)


def quantize_floats(w, method):
    return ternops.quantize(w, "fp8", method=method)


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
    assert matrix.to("fp8") is matrix
    for other in (
        ternops.quantize(w, method=method),
        ternops.quantize(w, "fp8", "row", method),
        *([ternops.quantize(w, encoding="fp8")] if method == "e4m3" else []),
    ):
        assert content(other) == content(matrix)


@METHOD
@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (1, 1), (3, 100), (33, 64), (257, 65)])
def test_products(method, shape):
    """The oracle's bits, for all dtypes of activations and both directions."""
    rows, columns = shape
    matrix = quantize_floats(cases.floats(rows, columns), method)
    for tokens in (0, 1, 3, 5):
        x = cases.floats(tokens, columns, seed=tokens)
        for threads in (1, 3):
            found = ternops.matmul(x, matrix.T, threads=threads)
            assert cases.same_bits(found, expected(matrix, x).astype(np.float32))
        assert cases.same_bits(x @ matrix.T, found)
        assert cases.same_bits(np.matmul(x, matrix.T), found)
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
    for arguments, words in (
        ({"group": 64}, "group=64: fp8 has a scale a row, expected 'row' or None"),
        ({"levels": 4}, "levels=4: fp8 has floats, expected None"),
        ({"method": "nf4"}, "method='nf4': expected e4m3 or e5m2 with encoding 'fp8'"),
        ({"encoding": "nibble"}, f"encoding='nibble': cannot hold the floats of method '{method}'"),
    ):
        given = {"encoding": "fp8", "method": method, **arguments}
        with pytest.raises(ValueError, match=f"^{words}"):
            ternops.quantize(w, **given)
    with pytest.raises(ValueError, match=rf"^method='nf5': expected one of absmean.*, {method}"):
        ternops.quantize(w, method="nf5")
    words = r"^encoding='fp9': expected one of auto, .*, fp8; did you mean 'fp8'\?$"
    with pytest.raises(ValueError, match=words):
        ternops.quantize(w, "fp9")
    with pytest.raises(ValueError, match=r"^encoding='nibble': a FloatMatrix has floats, "):
        matrix.to("nibble")
    with pytest.raises(TypeError, match=r"^matmul: a is FloatMatrix and b is FloatM"):
        ternops.matmul(matrix, matrix.T)
    for out, kind, words in (
        (np.zeros((3, 2)), ValueError, r"out has shape \(3, 2\), expected \(2, 3\)"),
        (np.zeros((2, 3), np.int32), TypeError, "out has dtype int32, expected float32"),
        ([[0]], TypeError, "out is list, expected a plain array"),
    ):
        with pytest.raises(kind, match=f"^matmul: {words}"):
            ternops.matmul(np.ones((2, 64)), matrix.T, out)
    with pytest.raises(ValueError, match=r"^threads=0"):
        ternops.matmul(matrix, np.ones(64), threads=0)


@METHOD
def test_out(method):
    """A result where it is asked for: of another dtype, in the operand itself, and by ``@=``."""
    matrix = quantize_floats(cases.floats(64, 64), method)
    x = cases.floats(5, 64)
    found = x @ matrix.T
    for out in (np.empty_like(found), np.empty(found.shape), np.empty((5, 128), "f4")[:, ::2]):
        assert ternops.matmul(x, matrix.T, out) is out
        assert np.array_equal(out, found)
    out = np.empty((64, 5), np.float32)
    assert ternops.matmul(matrix, x.T, out) is out
    assert cases.same_bits(out, np.ascontiguousarray(found.T))
    same = x.copy()
    assert ternops.matmul(same, matrix.T, same) is same
    assert cases.same_bits(same, found)
    x @= matrix.T
    assert cases.same_bits(x, found)


@METHOD
def test_what_is_not_finite_stays_in_its_row(method):
    """As floats have it: the sum of an infinity and of a NaN."""
    matrix = quantize_floats(np.ones((3, 70), np.float32), method)
    x = np.ones((4, 70), np.float32)
    x[1, 3], x[2, 4] = np.inf, np.nan
    for found in (x @ matrix.T, (matrix @ x.T).T):
        assert np.isfinite(found[[0, 3]]).all()
        assert (found[1] == np.inf).all()
        assert np.isnan(found[2]).all()


def content(matrix):
    """All that makes a matrix, for comparisons."""
    return (
        matrix.shape, matrix.method, matrix.to_codes().tobytes(), matrix.scale.tobytes(),
        matrix.to_dense().tobytes("C"),
    )  # fmt: skip


@METHOD
@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (3, 100), (37, 64)])
def test_a_file_gives_the_same_matrix(tmp_path, method, shape):
    """And the transpose its own, also saved again."""
    plain = quantize_floats(cases.floats(*shape), method)
    for matrix in (plain, plain.T):
        matrix.save(tmp_path / "a")
        loaded = ternops.load(tmp_path / "a")
        assert isinstance(loaded, FloatMatrix)
        assert content(loaded) == content(matrix)
        loaded.save(tmp_path / "b")
        assert content(ternops.load(tmp_path / "b")) == content(matrix)
        x = cases.floats(3, matrix.shape[1])
        assert cases.same_bits(x @ loaded.T, x @ matrix.T)


@METHOD
def test_a_damaged_file_is_never_another_matrix(tmp_path, method):
    """A bit of each byte flipped, and every length."""
    matrix = quantize_floats(cases.floats(2, 70), method)
    damage_is_noticed(tmp_path, matrix, content)


def code(value):
    def change(metadata, tensors):
        tensors["packed"][1, 2] = value

    return change


def scale(value):
    def change(metadata, tensors):
        tensors["scale"][1] = value

    return change


def field(**fields):
    return lambda metadata, tensors: metadata.update(fields)


def replaced(name, array):
    return lambda metadata, tensors: tensors.update({name: array})


@pytest.mark.parametrize(
    ("method", "change", "words"),
    [
        ("e4m3", code(0x7F), "packed: holds NaN or infinity"),
        ("e4m3", code(0xFF), "packed: holds NaN or infinity"),
        ("e5m2", code(0x7C), "packed: holds NaN or infinity"),
        ("e5m2", code(0xFF), "packed: holds NaN or infinity"),
        ("e4m3", scale(np.nan), "scale: not finite"),
        ("e5m2", scale(np.inf), "scale: not finite"),
        ("e4m3", field(method="e3m4"), "method 'e3m4', expected e4m3 or e5m2"),
        ("e4m3", field(rows="4"), r"packed: shape \(3, 70\), expected \(4, 70\)"),
        ("e4m3", field(columns="64"), r"packed: shape \(3, 70\), expected \(3, 64\)"),
        ("e4m3", field(columns=str(2**60)), "shape"),
        ("e4m3", field(rows="-3"), "shape"),
        ("e4m3", field(transposed="2"), "transposed '2'"),
        ("e4m3", field(encoding="base3"), "packed"),
        ("e4m3", replaced("packed", np.zeros(210, np.uint8)), "packed: shape"),
        ("e4m3", replaced("packed", np.zeros((3, 70), np.int8)), "packed: dtype I8"),
        ("e4m3", replaced("scale", np.ones((3, 1), np.float32)), "scale: float32"),
        ("e4m3", replaced("scale", np.ones(3, np.float16)), "scale: float16"),
        ("e4m3", lambda metadata, tensors: tensors.pop("scale"), "'scale'"),
        ("e4m3", lambda metadata, tensors: metadata.pop("method"), "'method'"),
    ],
)
def test_a_hostile_file_is_refused(tmp_path, method, change, words):
    """One whose checksum is right."""
    quantize_floats(cases.floats(3, 70), method).save(tmp_path / "good")
    with safetensors.safe_open(tmp_path / "good", framework="numpy") as file:
        metadata = dict(file.metadata())
        tensors = {name: file.get_tensor(name).copy() for name in file.keys()}  # noqa: SIM118
    change(metadata, tensors)
    metadata["crc32"] = internals.file_checksum(metadata, tensors)
    (tmp_path / "bad").write_bytes(safetensors.numpy.save(tensors, metadata))
    refused(tmp_path / "bad", words)
