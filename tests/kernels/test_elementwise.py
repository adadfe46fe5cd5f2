"""Norms, activations, softmax, quantisation, rotation: the oracles' bits exactly."""

from __future__ import annotations

import numpy as np
import pytest

from ternops import simd
from ternops.absmean import BITNET_ABSMAX, MIN_ABSMAX
from ternops.kernels import attention, elementwise, reference
from ternops.simd import kernel, load, pointer, store
from tests.helpers import cases

#: On both sides of multiples of 16, and longer.
LENGTHS = (*range(1, 35), 47, 48, 49, 63, 64, 65, 100, 255, 256, 257, 1000)


def row(count, seed=0, spread=3):
    """Random float32 of different magnitudes, some of them exactly 0 and -0."""
    random = np.random.default_rng((seed, count))
    x = random.standard_normal(count) * 10.0 ** random.integers(-spread, spread + 1, count)
    x[random.random(count) < 0.05] = 0.0
    return np.copysign(x, random.standard_normal(count)).astype(np.float32)


def padded(x):
    """A copy followed by 16 floats that must not count, and the view that does."""
    buffer = np.full(len(x) + 16, 7, x.dtype)
    buffer[: len(x)] = x
    return buffer, buffer[: len(x)]


@kernel
def _exp(source, target, count):
    for i in range(0, count, 16):
        store(pointer(target) + 4 * i, elementwise.exp(load(simd.f32, pointer(source) + 4 * i)))


def test_exp_is_the_reference_and_close_to_the_truth():
    """On a fine grid of its whole range; 0 below -87, within 1 ulp of float64's above."""
    x = np.linspace(-90, 88, 1 << 18, dtype=np.float32)
    x[:16] = [-np.inf, -1e30, -87, np.nextafter(np.float32(-87), 0), 0.0, -0.0, 1e-45, -1e-30,
              88, 0.34657359, -0.34657359, 0.34657362, 1, -1, 0.5, -0.5]  # fmt: skip
    found = np.empty_like(x)
    _exp(x, found, len(x))
    with np.errstate(invalid="ignore", over="ignore"):
        assert cases.same_bits(found, reference.exp(x))
    assert (found[x <= -87] == 0).all()
    exact = np.exp(x[x > -87].astype(np.float64))
    ulp = np.spacing(exact.astype(np.float32)).astype(np.float64)
    assert (np.abs(found[x > -87] - exact) <= ulp).all()


@kernel
def _gate_sigmoid(gate, x, count):
    elementwise.gate_sigmoid(pointer(gate), pointer(x), count)


def test_a_gate_of_attention():
    """With nothing written after it."""
    for count in LENGTHS:
        gate, (buffer, x) = row(count, spread=1), padded(row(count, seed=1))
        expected = x * reference.sigmoid(gate)
        _gate_sigmoid(gate, buffer, count)
        assert cases.same_bits(x, expected)
        assert (buffer[count:] == 7).all()


@kernel
def _softmax(x, count):
    elementwise.softmax(pointer(x), count)


@pytest.mark.parametrize("spread", [0, 2])
def test_softmax(spread):
    """In place for every length; scores far below the largest become 0."""
    for count in LENGTHS:
        x = row(count, spread=spread)
        buffer, values = padded(x)
        _softmax(buffer, count)
        with np.errstate(over="ignore"):
            assert cases.same_bits(values, reference.softmax(x)), count
        assert abs(values.sum(dtype=np.float64) - 1) < 1e-5
    x = np.array([0, -86.9, -87.1, -1e30, -np.inf, 0], np.float32)
    buffer, values = padded(x)
    _softmax(buffer, len(x))
    with np.errstate(over="ignore", invalid="ignore"):
        assert cases.same_bits(values, reference.softmax(x))
    assert values[0] == values[5] == 0.5
    assert (values[2:5] == 0).all()


@kernel
def _gates(gate, up, first, last, relu2, silu, gelu):
    elementwise.gate_relu2(pointer(gate), pointer(up), first, last, pointer(relu2))
    elementwise.gate_silu(pointer(gate), pointer(up), first, last, pointer(silu))
    elementwise.gate_gelu_tanh(pointer(gate), pointer(up), first, last, pointer(gelu))


def test_gates():
    """relu2, silu and gelu of any part of a row, without a word outside it."""
    for count in LENGTHS:
        gate, up = row(count, 1), row(count, 2)
        gate[: count // 4] = np.resize([-200, 200, -87.5, 88, 0], count // 4)
        for first in {0, count // 32 * 16}:
            relu2, silu, gelu = np.full((3, count + 16), -5, np.float32)
            _gates(gate, up, first, count, relu2, silu, gelu)
            part = slice(first, count)
            positive = np.maximum(gate, 0)
            assert cases.same_bits(relu2[part], (positive * positive * up)[part])
            with np.errstate(over="ignore", invalid="ignore"):
                assert cases.same_bits(silu[part], (reference.silu(gate) * up)[part])
                assert cases.same_bits(gelu[part], (reference.gelu_tanh(gate) * up)[part])
            for out in (relu2, silu, gelu):
                assert (out[:first] == -5).all()
                assert (out[count:] == -5).all()


def test_gates_where_exp_ends():
    """Very negative gates give (almost) nothing, very positive ones themselves; never NaN."""
    gate = np.array([-1e30, -1000, -88, -87, -86.5, 0, 87, 1000, 1e30, 3.4e38], np.float32)
    up, (relu2, silu, gelu) = np.ones_like(gate), np.empty((3, len(gate)), np.float32)
    _gates(gate, up, 0, len(gate), relu2, silu, gelu)
    with np.errstate(over="ignore", invalid="ignore"):
        assert cases.same_bits(silu, reference.silu(gate))
        assert cases.same_bits(gelu, reference.gelu_tanh(gate))
        assert cases.same_bits(relu2, np.maximum(gate, 0) ** 2)
    for each in (silu, gelu):
        assert np.isfinite(each).all()
        assert (each[6:] == gate[6:]).all()


def test_gelu_is_close_to_the_truth():
    """Of float64's with tanh: within 3 parts in 10**6 where it is not tiny."""
    x = np.linspace(-6, 6, 10001).astype(np.float32)
    wide = x.astype(np.float64)
    exact = wide / 2 * (1 + np.tanh((2 / np.pi) ** 0.5 * (wide + 0.044715 * wide**3)))
    np.testing.assert_allclose(reference.gelu_tanh(x), exact, rtol=3e-6, atol=1e-9)


@kernel
def _sums(x, y, scale, first, last, scaled):
    elementwise.add_scaled(pointer(scaled), pointer(y), scale, first, last)
    elementwise.add(pointer(x), pointer(y), first, last)
    elementwise.scale_row(pointer(y), last, scale)


def test_sums_and_scales():
    """Of any part of a row; a scale of 1 is none."""
    for count in LENGTHS:
        for scale in (np.float32(0.3), np.float32(1)):
            x, y = row(count, 1), row(count, 2)
            first, (buffer, sums), (other, scaled) = count // 32 * 16, padded(x), padded(x)
            rows, product = padded(y)
            _sums(buffer, rows, scale, first, count, other)
            assert cases.same_bits(sums, np.append(x[:first], (x + y)[first:]))
            right = np.append(x[:first], reference.fma(y, scale, x)[first:])
            assert cases.same_bits(scaled, right)
            assert scale != 1 or cases.same_bits(scaled, sums)
            assert cases.same_bits(product, y * scale)
            assert all((each[count:] == 7).all() for each in (buffer, other, rows))


@kernel
def _rms_norm(x, weight, count, epsilon, target):
    elementwise.rms_norm(pointer(x), pointer(weight), count, epsilon, pointer(target))


@pytest.mark.parametrize("epsilon", [1e-5, 1e-6, 0.1])
def test_rms_norm(epsilon):
    """Every length, also where the row lies; a row of zeros stays zeros."""
    for count in LENGTHS:
        weight = row(count, 3, spread=0)
        for x in (row(count), np.zeros(count, np.float32), row(count, spread=12)):
            buffer, out = padded(np.full(count, np.nan, np.float32))
            _rms_norm(x, weight, count, epsilon, buffer)
            assert cases.same_bits(out, reference.rms_norm(x, weight, epsilon)), count
            assert (buffer[count:] == 7).all()
            buffer, inside = padded(x)
            _rms_norm(buffer, weight, count, epsilon, buffer)
            assert cases.same_bits(inside, out), count
            assert (buffer[count:] == 7).all()


@kernel
def _quantize_row(x, count, floor, target, result):
    step, total = elementwise.quantize_row(pointer(x), count, floor, pointer(target))
    result[0] = step
    result[1] = total


@pytest.mark.parametrize("floor", [MIN_ABSMAX, BITNET_ABSMAX])
def test_quantize_row(floor):
    """int8, step and sum; ties go to even; rows below the floor use the floor."""
    result = np.empty(2, np.float64)
    for count in LENGTHS:
        ties = (np.arange(count) % 128 - 63.5).astype(np.float32)
        ties[0] = 127
        tiny = np.full(count, -1e-40, np.float32)
        zeros = np.zeros(count, np.float32)
        small, large = row(count, 5) * np.float32(1e-9), row(count, 6) * np.float32(1e30)
        for x in (row(count), ties, zeros, tiny, small, large):
            quantized, step = reference.quantize_rows(x[None], floor)
            target = np.full(count + 16, 99, np.int8)
            _quantize_row(x, count, floor, target, result)
            assert cases.same_bits(target[:count], quantized[0]), count
            assert (target[count:] == 99).all()
            assert cases.same_bits(np.float32(result[0]), step[0])
            assert result[1] == quantized.sum(dtype=np.int64)


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
def test_a_bad_value_anywhere_makes_the_step_nan(bad):
    """In the first, a middle and the last place of whole and partial vectors."""
    result = np.empty(2, np.float64)
    for count in (1, 15, 16, 17, 40):
        for place in {0, count // 2, count - 1}:
            x = row(count)
            x[place] = bad
            _quantize_row(x, count, MIN_ABSMAX, np.empty(count, np.int8), result)
            assert np.isnan(result[0])


@kernel
def _rotate(x, cosine, sine, rotated, head_dim, target):
    attention.rotate(pointer(x), pointer(cosine), pointer(sine), rotated, head_dim, pointer(target))


@pytest.mark.parametrize("rest", [0, 2, 18, 96])
@pytest.mark.parametrize("rotated", [2, 4, 10, 30, 32, 34, 50, 64, 80, 100, 128])
def test_rotate(rotated, rest):
    """The halves of what is rotated of a head turned by an angle each, what is not as it is, with
    nothing written after it."""
    head_dim = rotated + rest
    x, angles = row(head_dim), np.linspace(0, 300, rotated // 2)
    cosine, sine = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    target = np.full(head_dim + 16, -5, np.float32)
    _rotate(x, cosine, sine, rotated, head_dim, target)
    a, b = x[: rotated // 2], x[rotated // 2 : rotated]
    expected = np.concatenate([a * cosine - b * sine, b * cosine + a * sine, x[rotated:]])
    assert cases.same_bits(target[:head_dim], expected)
    assert (target[head_dim:] == -5).all()
