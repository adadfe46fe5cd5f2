"""SciPy's sparse arrays and linear operators of a matrix."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest
import scipy.sparse
from scipy.sparse import linalg

import ternops
from ternops.encodings import ENCODINGS
from tests.helpers import cases
from tests.helpers.checks import fails
from tests.helpers.processes import ROOT, run_code

KINDS = [
    *((name, kind) for name in ENCODINGS for kind in ("none", "scalar", "rows")),
    ("two_bit", "groups"), ("nibble", "groups"),
]  # fmt: skip
KIND = pytest.mark.parametrize(("encoding", "kind"), KINDS)


def made(encoding, kind, rows=70, columns=96):
    """A matrix of each kind of scale."""
    scale = cases.group_scales(rows, 3) if kind == "groups" else cases.scales(rows)[kind]
    return ternops.pack(cases.trits(rows, columns, encoding=encoding), scale, encoding)


@KIND
def test_a_sparse_array(encoding, kind):
    """What SciPy makes of the dense matrix: by rows, and of the transpose by columns."""
    matrix = made(encoding, kind)
    for each, expected in (
        (matrix, scipy.sparse.csr_array(matrix.to_dense())),
        (matrix.T, scipy.sparse.csc_array(matrix.T.to_dense())),
    ):
        found = each.to_scipy()
        assert type(found) is type(expected)
        assert (found.shape, found.nnz) == (each.shape, each.nonzero_count)
        assert cases.same_bits(found.data, expected.data)
        assert found.indices.dtype == np.int32
        assert (found.indices == expected.indices).all()
        assert (found.indptr == expected.indptr).all()
        found.check_format()


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0), (1, 1)])
def test_empty_ones(shape):
    """Without values, and products without terms are 0."""
    matrix = ternops.pack(np.zeros(shape, np.int8))
    assert matrix.to_scipy().nnz == matrix.nonzero_count == 0
    for each in (matrix, matrix.T):
        product = each.as_linear_operator() @ np.ones((each.shape[1], 2))
        assert cases.same_bits(product, np.zeros((each.shape[0], 2)))


def exact(matrix, kind):
    """Its values, which float32 need not have."""
    values = matrix.to_trits().astype(np.longdouble)
    scale = matrix.scale
    if kind == "none":
        return values
    if kind == "groups":
        return values * np.repeat(scale, 32, axis=1)
    return values * (scale if kind == "scalar" else scale[:, None])


def bound(dense, x):
    """How far a product may be off: 2**-52 of the sum of magnitudes, and roundings of float64."""
    return 2.0**-51 * (np.abs(dense) @ np.full_like(x, 1) * np.abs(x).max(axis=0)) + 1e-300


@KIND
def test_an_operator_has_the_digits_of_float64(encoding, kind):
    """Vectors, matrices and the transpose, of any magnitude, int8 and lists as well."""
    matrix = made(encoding, kind)
    random = np.random.default_rng(3)
    for each, dense in ((matrix, exact(matrix, kind)), (matrix.T, exact(matrix, kind).T)):
        operator = each.as_linear_operator()
        assert (operator.shape, operator.dtype) == (each.shape, np.float64)
        for size in (1.0, 1e-200, 1e200, 3e-5):
            x = random.standard_normal((each.shape[1], 4)) * size
            x[:, 1] *= 10.0 ** random.integers(-30, 30, len(x))
            x[:, 2] = 0
            found, wanted = operator @ x, dense @ x.astype(np.longdouble)
            assert found.dtype == np.float64
            assert (np.abs(found - wanted) <= bound(dense, x)).all()
            assert kind == "groups" or cases.same_bits(operator @ x[:, 0], found[:, 0])
            back, wanted = operator.T @ found, dense.T @ found.astype(np.longdouble)
            assert (np.abs(back - wanted) <= bound(dense.T, found)).all()
        integers = cases.activations(each.shape[1])
        assert np.allclose(operator @ integers, dense @ integers, rtol=1e-13, atol=1e-9)
        assert cases.same_bits(operator @ integers.tolist(), operator @ integers)


def test_an_operator_is_linear():
    """Bit for bit where no digit is lost, which a product of rounded activations is not."""
    matrix = made("base3", "none")
    operator, x = matrix.as_linear_operator(), cases.activations(96, 2).astype(float) / 8
    a, b = x.T
    assert cases.same_bits(operator @ (a + 2 * b), operator @ a + 2 * (operator @ b))


def test_nan_stays_with_its_vector():
    """And nothing warns."""
    x = np.ones((96, 3))
    x[4, 1] = np.inf
    found = made("two_bit", "rows").as_linear_operator() @ x
    assert np.isnan(found[:, 1]).all()
    assert np.isfinite(found[:, [0, 2]]).all()


@pytest.mark.parametrize("kind", ["none", "scalar", "rows", "groups"])
def test_solvers_end_where_float64_does(kind):
    """Least squares, a symmetric system and singular values."""
    matrix = made("two_bit", kind, 150, 96)
    operator, dense = matrix.as_linear_operator(), matrix.to_dense().astype(np.float64)
    y = np.random.default_rng(2).standard_normal(150)
    x = linalg.lsqr(operator, y, atol=1e-14, btol=1e-14, iter_lim=2000)[0]
    expected = np.linalg.lstsq(dense, y, rcond=None)[0]
    assert np.abs(x - expected).max() < 1e-9 * np.abs(expected).max()
    x, info = linalg.cg(operator.T @ operator, dense.T @ y, rtol=1e-13, maxiter=2000)
    assert info == 0
    assert np.abs(x - expected).max() < 1e-8 * np.abs(expected).max()
    found = linalg.svds(operator, k=3, return_singular_vectors=False)
    largest = np.linalg.svd(dense, compute_uv=False)[:3]
    assert np.allclose(np.sort(found)[::-1], largest, rtol=1e-9)


@pytest.mark.parametrize("x", [np.ones(96, complex), np.ma.masked_array(np.ones(96)), ["a"] * 96])
def test_what_is_no_real_vector(x):
    """A TypeError of one line."""
    operator = made("two_bit", "none").as_linear_operator()
    fails(TypeError, "x", lambda: operator.matvec(x))


def test_without_scipy(monkeypatch):
    """An ImportError says what to install; nothing else imports it."""
    for name in ("scipy", "scipy.sparse", "scipy.sparse.linalg"):
        monkeypatch.setitem(sys.modules, name, None)
    matrix = made("two_bit", "none")
    for call in (matrix.to_scipy, matrix.as_linear_operator):
        fails(ImportError, "scipy.sparse pip install scipy", call)


def test_scipy_is_imported_there_alone():
    """Not with the library, nor by a product."""
    run_code(
        "import sys, numpy as np, ternops\n"
        "W = ternops.pack(np.ones((4, 4), np.int8))\n"
        "W @ np.ones(4), np.ones(4) @ W, W[:2], W.nonzero_count\n"
        "assert not any(each.split('.')[0] == 'scipy' for each in sys.modules)"
    )


def test_what_docs_show_runs():
    """Blocks of docs/LIBRARIES.md, one after another."""
    text = (ROOT / "docs" / "LIBRARIES.md").read_text("utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict = {}
    for block in blocks:
        exec(compile(block, "docs/LIBRARIES.md", "exec"), names)
    assert len(blocks) == 2
    assert names["solution"].shape == (512,)
