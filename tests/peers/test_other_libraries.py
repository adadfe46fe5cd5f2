"""Matrices among PyTorch's and JAX's arrays, and sent by joblib and dask to other processes."""

from __future__ import annotations

import numpy as np
import pytest

import ternops
from tests.helpers import cases
from tests.helpers.checks import fails

pytestmark = pytest.mark.peers

MATRIX = ternops.pack(cases.trits(5, 7), 0.5)
X = cases.floats(3, 7).astype(np.float32)


def product(matrix, x):
    """For other processes."""
    return x @ matrix.T


@pytest.fixture(scope="module")
def jax():
    return pytest.importorskip("jax", reason="jax is not installed (make test-peers)")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "int8"])
def test_arrays_of_jax(jax, dtype):
    """Products from either side and numpy.einsum of arrays on the CPU."""
    x = jax.numpy.asarray(X.astype(dtype) if dtype != "bfloat16" else X).astype(dtype)
    same = np.asarray(x).astype(np.float32) if dtype == "bfloat16" else np.asarray(x)
    assert cases.same_bits(x @ MATRIX.T, same @ MATRIX.T)
    assert cases.same_bits(MATRIX @ x.T, MATRIX @ same.T)
    assert cases.same_bits(np.einsum("bj,ij->bi", x, MATRIX), same @ MATRIX.T)
    assert cases.same_bits(ternops.matmul(x, MATRIX.T), same @ MATRIX.T)


def test_jax_says_what_it_does_not_take(jax):
    """A traced array has no values."""
    with pytest.raises(Exception, match="traced array") as caught:
        jax.jit(lambda x: ternops.matmul(x, MATRIX.T))(X)
    assert isinstance(caught.value, TypeError)


class Lent:
    """An array that has DLPack alone."""

    def __init__(self, array):
        self.array = array

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)


def test_tensors_of_torch(torch):
    """Whatever way they are lent; what is not there to be read is one line."""
    x = torch.tensor(X)
    for each in (x, x.bfloat16().float(), Lent(x), x[:, ::1].contiguous()):
        expected = np.from_dlpack(each) @ MATRIX.T
        assert cases.same_bits(each @ MATRIX.T, expected)
        assert cases.same_bits(np.einsum("bj,ij->bi", each, MATRIX), expected)
    for bad in (x.to("meta"), x.to_sparse(), x.clone().requires_grad_(), Lent(x.bfloat16())):
        fails(TypeError, "matmul: a:", lambda: ternops.matmul(bad, MATRIX.T))  # noqa: B023
    fails(TypeError, "matmul: a complex64", lambda: ternops.matmul(x.to(torch.complex64), MATRIX.T))


@pytest.mark.parametrize("backend", ["loky", "multiprocessing", "threading"])
def test_joblib(backend):
    """Also a matrix that is so large that workers get a file of it, mapped."""
    joblib = pytest.importorskip("joblib", reason="joblib is not installed (make test-peers)")
    large = ternops.pack(cases.trits(1500, 4096), cases.scales(1500)["rows"])
    assert large.nbytes > 1 << 20
    for matrix in (MATRIX, large, large.to("tl2"), large.T):
        x = cases.floats(2, matrix.shape[1])
        found = joblib.Parallel(2, backend=backend)(
            joblib.delayed(product)(matrix, x) for _ in range(2)
        )
        assert all(cases.same_bits(each, x @ matrix.T) for each in found)
    assert joblib.hash(large) == joblib.hash(large.T.T) != joblib.hash(large.T)


@pytest.fixture(scope="module")
def dask():
    dask = pytest.importorskip("dask", reason="dask is not installed (make test-peers)")
    pytest.importorskip("dask.array", reason="dask.array is not installed (make test-peers)")
    return dask


@pytest.mark.parametrize("scheduler", ["threads", "processes", "sync"])
def test_dask(dask, scheduler):
    """As an argument of delayed functions and of blocks of an array."""
    x = dask.array.from_array(X, chunks=(1, 7))
    with dask.config.set(scheduler=scheduler):
        found = dask.delayed(product)(MATRIX, X).compute()
        assert cases.same_bits(found, X @ MATRIX.T)
        blocks = x.map_blocks(lambda each, w: each @ w.T, MATRIX, dtype=np.float32, chunks=(1, 5))
        assert cases.same_bits(blocks.compute(), X @ MATRIX.T)
    token = dask.base.tokenize(MATRIX)
    assert token == dask.base.tokenize(ternops.pack(cases.trits(5, 7), 0.5))
    assert token != dask.base.tokenize(ternops.pack(cases.trits(5, 7), 0.25))


def test_a_cluster_of_dask(dask):
    """Processes that get the matrix once, as buffers beside the pickle."""
    distributed = pytest.importorskip(
        "distributed", reason="distributed is not installed (make test-peers)"
    )
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, dashboard_address=None, processes=True
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        large = ternops.pack(cases.trits(300, 4096), encoding="base3")
        x = cases.floats(2, 4096)
        [there] = client.scatter([large])
        found = client.submit(product, there, x).result()
        assert cases.same_bits(found, x @ large.T)
