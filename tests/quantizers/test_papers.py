"""The papers' own numbers, as far as they follow without weights: levels, bits a weight, sizes."""

from __future__ import annotations

import numpy as np
import pytest

from ternops.quantizers import METHODS, choose, quantize
from ternops.quantizers.quantiles import NF4_LEVELS, normal_floats
from tests.quantizers import literal

#: QLoRA, appendix E.
NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0,
)  # fmt: skip


def test_nf4():
    """The paper's 16 numbers; how far their multiples of 1/127 are off."""
    assert normal_floats(4) == pytest.approx(NF4, abs=2e-7)
    assert normal_floats(4) == pytest.approx(literal.normal_float(4), abs=1e-12)
    off = np.abs(np.array(NF4_LEVELS) / 127 - NF4)
    assert len(NF4_LEVELS) == 16
    assert 0.0035 < off.max() < 0.5 / 127
    w = np.random.default_rng(0).standard_normal((64, 4096)).astype(np.float32)
    parts = w.reshape(-1, 64)
    most = np.abs(parts).max(axis=1, keepdims=True)
    exact = np.array(NF4)[np.abs(parts[..., None] / most[..., None] - NF4).argmin(axis=2)] * most
    found = quantize(w, choose(4096, method="nf4"))
    dense = found.values.reshape(-1, 64) * found.scale.reshape(-1, 1)
    errors = [((each - parts) ** 2).mean() for each in (dense, exact)]
    assert errors[0] < 1.01 * errors[1]


def test_floats_of_four_bits():
    """E2M1, E1M2 and E3M0 as their bits make them, times 2, 4 and 4."""
    for name, exponent, mantissa, bias, factor in (
        ("fp4", 2, 1, 1, 2), ("e1m2", 1, 2, 1, 4), ("e3m0", 3, 0, 3, 4),
    ):  # fmt: skip
        magnitudes = literal.minifloats(exponent, mantissa, bias)
        (levels,) = METHODS[name].levels.values()
        assert {abs(each) for each in levels} == {factor * each for each in magnitudes}
        assert levels == tuple(-each for each in reversed(levels))
    for name in ("mxfp4", "nvfp4"):
        assert METHODS[name].levels == METHODS["fp4"].levels


def test_elastic_levels():
    """ParetoQ: 0 and +-2/3 alpha, +-1/4 and +-3/4 alpha, thirds and quarters of its range."""
    w = np.linspace(-1, 1, 256, dtype=np.float32)[None]
    for count, expected in ((3, [-2 / 3, 0, 2 / 3]), (4, [-0.75, -0.25, 0.25, 0.75])):
        found = quantize(w, choose(256, method="seq", levels=count))
        parts, counts = np.unique(found.values * found.scale[0], return_counts=True)
        assert parts == pytest.approx(expected, abs=3e-4)
        assert counts == pytest.approx([256 / count] * count, abs=1.5)


def test_shifts():
    """DenseShift: +-2^p without 0, n bits with 2^(n - 1) exponents; 2^7 of four bits is no int8."""
    for count, exponents in ((4, 2), (8, 4), (14, 7)):
        levels = METHODS["denseshift"].levels[count]
        assert {abs(each) for each in levels} == {2**p for p in range(exponents)}
        assert 0 not in levels


def test_powers_of_two():
    """MX's and BCT's scales are; OCP MX 1.0, section 6.3: the largest weight has E2M1's largest
    exponent, and is at most 4/3 of what it becomes."""
    w = np.random.default_rng(1).standard_cauchy((16, 256)).astype(np.float32)
    for name, least in (("mxfp4", 4), ("bct", 3.5)):
        found = quantize(w, choose(256, method=name))
        assert (np.frexp(found.scale)[0] == 0.5).all()
        size = 256 // found.scale.shape[1]
        values = np.abs(found.values.reshape(16, -1, size)).max(axis=2)
        unit = 2 if name == "mxfp4" else 1
        assert values.min() >= least * unit - 1
        assert values.max() <= (12 if name == "mxfp4" else 8)


def bits(weights, *scales):
    """Bits a weight: of a weight, and of scales, each (bits, weights that share it)."""
    return weights + sum(each / shared for each, shared in scales)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        # QLoRA, section 3: 32 bits a group of 64, or 8 and 32 for 256 of them.
        (bits(4, (32, 64)), 4.5),
        (bits(4, (8, 64), (32, 64 * 256)), 4.127),
        # OCP MX 1.0, table 1: 32 weights and a byte.
        (bits(4, (8, METHODS["mxfp4"].group)), 4.25),
        # NVFP4: 16 weights and a byte.
        (bits(4, (8, METHODS["nvfp4"].group)), 4.5),
        # k-bit scaling laws, section 2: 16 bits a group of 64.
        (bits(4, (16, 64)), 4.25),
        # BitNet b1.58.
        (np.log2(3), 1.58),
    ],
)
def test_bits_a_weight(found, expected):
    assert found == pytest.approx(expected, abs=6e-3 if expected == 1.58 else 6e-4)


def test_ratios():
    """BCT's 7.988 of float32, BitsFusion's 7.9 and BitDelta's more than 10 of float16."""
    # Four bits and a byte of shift: 7.988 takes 1,332 weights that share one. Rows of 4096 do; our
    # groups of at most 256 columns are 7.94 times smaller.
    assert 32 / bits(4, (8, 1332)) == pytest.approx(7.988, abs=5e-4)
    assert 32 / bits(4, (8, 4096)) > 7.988 > 32 / bits(4, (8, 256)) > 7.93
    # 1.99 bits with all but the weights of the UNet's layers: 859.5 million of 16 bits, 1.72 GB.
    fewer_bits = 16 / np.array([1.99, 1.99 + 0.035])
    assert fewer_bits == pytest.approx([8.04, 7.9], abs=5e-3)
    # Llama-2 7B: its linear layers as signs, a scale each; embeddings, head and norms in 16 bits.
    linear = 32 * (4 * 4096 * 4096 + 3 * 4096 * 11008)
    rest = 2 * 32000 * 4096 + 65 * 4096
    assert (linear + rest) / 1e9 == pytest.approx(6.74, abs=5e-3)
    whole = 2 * (linear + rest)
    delta = linear / 8 + 4 * 32 * 7 + 2 * rest
    assert whole / delta > 10
