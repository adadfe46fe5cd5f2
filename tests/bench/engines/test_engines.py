"""The peers of the benchmark: their products are right, and one that is missing costs one line."""

import os
import sys
from contextlib import closing

import numpy as np
import pytest

from bench import engines
from bench.engines import Unsupported, numpy_blas
from tests.helpers import cases

FOUND, MISSING = engines.find()
BY_NAME = {engine.name: engine for engine in FOUND}

#: engine -> the most by which it rounds an activation, as a part of the largest one.
ROUNDING = {
    "NumPy float32": 2**-20,  # 2**-24, but at every step of the sum
    "torch int8": 1 / 200,  # half a step of 255, or of 127 where a CPU has no wider sums
    "torch bfloat16": 2**-8,  # 8 significant bits; those of the result weigh no more
    "llama.cpp TQ1_0": 1 / 254,  # half a step of int8
    "llama.cpp TQ2_0": 1 / 254,
    "llama.cpp F16": 2**-11,
    "litespark": 1 / 254,
    "litespark int8": 1 / 254,
}


def _engine(name):
    if name not in BY_NAME:
        pytest.skip("; ".join(MISSING))
    return BY_NAME[name]


def _tolerance(name, x):
    """Six standard deviations of a sum of K independent roundings, each uniform in its bound."""
    return 6 * ROUNDING[name] * np.abs(x).max() * np.sqrt(x.shape[1] / 3)


def _normal(tokens, columns):
    return np.random.default_rng(tokens).standard_normal((tokens, columns)).astype(np.float32)


@pytest.mark.parametrize("name", ROUNDING)
@pytest.mark.parametrize("tokens", [1, 5, 70])
@pytest.mark.parametrize("threads", [1, 2])
def test_product_is_right(name, tokens, threads):
    """Each engine computes x @ trits.T, within what it rounds the activations by."""
    engine = _engine(name)
    trits = cases.trits(200, 512)
    x = _normal(tokens, 512)
    with closing(engine.prepare(trits, x, threads)) as product:
        product()
        result = product.result()
        # At least the entropy of a trit, at most a float32.
        assert 1.58 / 8 * trits.size < product.nbytes <= 4 * trits.size
    expected = x.astype(np.float64) @ trits.T
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, rtol=0, atol=_tolerance(name, x))


def test_products_of_one_engine_take_turns():
    """Two products that are alive at once, of different threads, keep their own results."""
    for engine in FOUND:
        if engine.name == "litespark int8":  # may have to be compiled first; tested above
            continue
        x = _normal(3, 256)
        many, few = cases.trits(128, 256, seed=1), cases.trits(64, 256, seed=2)
        with (
            closing(engine.prepare(many, x, 2)) as first,
            closing(engine.prepare(few, x, 1)) as second,
        ):
            first()
            second()
            first()
            for product, trits in ((first, many), (second, few)):
                np.testing.assert_allclose(
                    product.result(), x @ trits.T, rtol=0, atol=_tolerance(engine.name, x)
                )


@pytest.mark.parametrize(
    ("name", "columns"),
    [("llama.cpp TQ1_0", 320), ("llama.cpp TQ2_0", 320), ("litespark", 258),
     ("litespark int8", 96)],
)  # fmt: skip
def test_a_shape_that_an_engine_cannot_take(name, columns):
    """It says so in one line, where ggml alone would abort the process."""
    engine = _engine(name)
    with pytest.raises(Unsupported, match=rf"needs K in .*{columns}$"):
        engine.prepare(cases.trits(8, columns), _normal(1, columns), 1)


def test_numpy_is_always_found():
    """It names its BLAS, and every engine has a version of one line."""
    assert "NumPy float32" in BY_NAME
    assert np.__version__ in BY_NAME["NumPy float32"].version
    for engine in FOUND:
        assert engine.version
        assert "\n" not in engine.version + engine.remark


@pytest.mark.parametrize(
    ("package", "name"),
    [("torch", "torch"), ("llama_cpp", "llama.cpp"), ("litespark_inference", "litespark")],
)
def test_a_peer_that_is_not_installed_costs_one_line(monkeypatch, package, name):
    """An import that fails takes away its own engines, and the others stay."""
    monkeypatch.setitem(sys.modules, package, None)
    found, missing = engines.find()
    assert not [engine for engine in found if engine.name.startswith(name)]
    assert len([line for line in missing if line.startswith(name)]) == 1
    assert found[0].name == "NumPy float32"


def test_a_peer_that_breaks_costs_one_line(monkeypatch):
    """An error of any kind is told by its first line, and what was found before it stays."""

    def broken():
        yield from numpy_engines()
        raise OSError("libfoo.so: undefined symbol\nand much more")

    numpy_engines = numpy_blas.engines
    monkeypatch.setattr(numpy_blas, "engines", broken)
    found, missing = engines.find()
    assert found[0].name == "NumPy float32"
    assert missing[0] == "NumPy float32: libfoo.so: undefined symbol"


def test_remark_on_what_the_environment_told_openblas(monkeypatch):
    """A BLAS that does less than the CPU can do is not a fair peer unless one says so."""
    for name in list(os.environ):
        if name.startswith("OPENBLAS_"):
            monkeypatch.delenv(name)
    haswell = {"internal_api": "openblas", "architecture": "Haswell"}
    monkeypatch.setattr(numpy_blas, "has_avx512", lambda: True)
    assert numpy_blas._remark(haswell | {"architecture": "SkylakeX"}) == ""
    assert "uses Haswell kernels; this CPU has AVX-512" in numpy_blas._remark(haswell)
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    assert "(OPENBLAS_CORETYPE=Haswell); this CPU has" in numpy_blas._remark(haswell)
    monkeypatch.setattr(numpy_blas, "has_avx512", lambda: False)
    assert numpy_blas._remark(haswell) == "its BLAS was told OPENBLAS_CORETYPE=Haswell"


def test_settle_waits_for_threads_that_compute(monkeypatch):
    """It looks again while CPU time goes by, and runs nothing before none does."""
    cpu = iter([0.0, 0.005, 0.005, 0.009, 0.009, 0.009, "never read"])
    left = []
    monkeypatch.setattr(engines, "_MAX_WAIT", 60)
    monkeypatch.setattr(engines.time, "process_time", lambda: next(cpu))
    engines.settle(lambda: left or left.extend(cpu))
    assert left == ["never read"]
