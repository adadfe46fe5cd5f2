"""What a gated delta net computes besides products: the oracles' bits exactly, and the truth."""

from __future__ import annotations

import numpy as np
import pytest

from ternops import simd
from ternops.kernels import delta, elementwise, reference
from ternops.simd import kernel, load, pointer, store
from tests.helpers import cases

#: On both sides of vectors and of what is computed together.
SIZES = (1, 2, 10, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 128, 160)


def floats(*shape, seed=0):
    return np.random.default_rng((seed, *shape)).standard_normal(shape).astype(np.float32)


@kernel
def _softplus(source, target, count):
    for i in range(0, count, 16):
        store(pointer(target) + 4 * i, delta.softplus(load(simd.f32, pointer(source) + 4 * i)))


@kernel
def _sigmoid(source, target, count):
    for i in range(0, count, 16):
        value = elementwise.sigmoid(load(simd.f32, pointer(source) + 4 * i))
        store(pointer(target) + 4 * i, value)


@pytest.mark.parametrize(
    ("function", "name", "true"),
    [
        (_softplus, "softplus", lambda x: np.logaddexp(0, x)),
        (_sigmoid, "sigmoid", lambda x: 1 / (1 + np.exp(-x))),
    ],
)
def test_on_a_grid(function, name, true):
    """Within 3 ulp of float64 wherever exp does not end, and its limits beyond."""
    x = np.linspace(-87, 87, 1 << 16, dtype=np.float32)
    x[:16] = [0.0, -0.0, 1e-30, -1e-30, 1, -1, 20, -20, 40, -40, 86, -86, 1e-7, -1e-7, 3, -3]
    found = np.empty_like(x)
    function(x, found, len(x))
    oracle = np.errstate(over="ignore", invalid="ignore")(getattr(reference, name))
    assert cases.same_bits(found, oracle(x))
    exact = true(x.astype(np.float64))
    ulp = np.spacing(exact.astype(np.float32)).astype(np.float64)
    assert (np.abs(found - exact) <= 3 * ulp)[np.abs(x) < 86].all()
    ends = np.array([-1e30, 1e30, -200, 200] * 4, np.float32)
    found = np.empty_like(ends)
    function(ends, found, 16)
    assert cases.same_bits(found, oracle(ends))
    with np.errstate(over="ignore"):
        assert np.abs(found - true(ends.astype(np.float64))).max() < 1e-30


@kernel
def _convolve(x, stride, tokens, before, taps, first, last):
    delta.convolve(pointer(x), stride, tokens, pointer(before), pointer(taps), first, last)


@pytest.mark.parametrize("columns", [1, 16, 17, 50, 64])
def test_convolve(columns):
    """Some tokens at a time, from none on, and columns in two parts: as all at once."""
    x, taps = floats(20, columns), floats(4, columns, seed=1)
    expected = reference.convolve(x, np.zeros((3, columns), np.float32), taps)
    whole = np.concatenate([np.zeros((3, columns)), x]).astype(np.float64)
    sums = sum(taps[i] * whole[i : i + 20] for i in range(4))
    assert np.abs(expected - sums / (1 + np.exp(-sums))).max() < 1e-5
    found, before = x.copy(), np.zeros((3, columns), np.float32)
    border = columns // 2 // 16 * 16
    start = 0
    for count in (1, 1, 2, 0, 3, 4, 9):
        part = found[start : start + count]
        for first, last in ((0, border), (border, columns)):
            _convolve(part, columns, count, before, taps, first, last)
        start += count
    assert start == 20
    assert cases.same_bits(found, expected)
    assert cases.same_bits(before, x[-3:])


@kernel
def _unit(x, count, scale, target):
    delta.unit(pointer(x), count, scale, pointer(target))


@pytest.mark.parametrize("count", SIZES)
def test_a_row_of_length_one(count):
    """Times a scale, in place; nothing is written after it."""
    target = np.full(count + 16, -5, np.float32)
    target[:count] = x = floats(count)
    _unit(target, count, np.float32(0.3), target)
    assert cases.same_bits(target[:count], reference.unit(x, 0.3))
    assert (target[count:] == -5).all()
    assert abs(np.linalg.norm(target[:count].astype(np.float64)) - 0.3) < 1e-4


@kernel
def _gates(x, hidden, tokens, forget, write, bias, rate, kept, written):
    delta.gates(
        pointer(x), hidden, tokens, pointer(forget), pointer(write), pointer(bias), pointer(rate),
        pointer(kept), pointer(written), 3,
    )  # fmt: skip


@pytest.mark.parametrize("tokens", range(1, delta.GATED + 1))
@pytest.mark.parametrize("count", SIZES)
def test_gates(count, tokens):
    """How much a head keeps and writes of each token."""
    x, forget, write = floats(tokens, count), floats(count, seed=1), floats(count, seed=4)
    bias, rate = floats(1), np.abs(floats(1, seed=2))
    found = np.full((2, tokens, 3), -5, np.float32)
    _gates(x, count, tokens, forget, write, bias, rate, found[0], found[1])
    keep = reference.exp(reference.softplus(reference.dot(x, forget) + bias) * -rate)
    assert cases.same_bits(found[0, :, 0].copy(), keep)
    assert cases.same_bits(found[1, :, 0].copy(), reference.sigmoid(reference.dot(x, write)))
    assert (found[:, :, 1:] == -5).all()


@kernel
def _steps(state, key_dim, count, query, key, value, stride, keep, share, tokens, out):
    delta.delta_steps(
        pointer(state), key_dim, count, pointer(query), pointer(key), pointer(value), stride,
        pointer(keep), pointer(share), 1, tokens, pointer(out), count + 3,
    )  # fmt: skip


@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize("key_dim", [1, 7, 32])
def test_a_state(key_dim, count):
    """Ten tokens of a head, some at a time; what fills chunks up stays 0, and what lies between
    the tokens' results stays as it is."""
    tokens, chunks = 10, -(-count // 16)
    rows = floats(tokens, 2 * key_dim + count)
    rows[:, : 2 * key_dim] = reference.unit(
        rows[:, : 2 * key_dim].reshape(tokens, 2, key_dim), 1
    ).reshape(tokens, -1)
    query, key, value = rows[:, :key_dim], rows[:, key_dim : 2 * key_dim], rows[:, 2 * key_dim :]
    keep, share = np.random.default_rng(3).uniform(0, 1, (2, tokens)).astype(np.float32)
    state, expected = np.zeros((1, key_dim, count), np.float32), np.empty_like(value)
    for t in range(tokens):
        state, expected[t] = reference.delta_step(
            state, query[None, t], key[None, t], value[None, t], keep[t : t + 1], share[t : t + 1]
        )
    found = np.zeros((chunks, key_dim, 16), np.float32)
    out = np.full((tokens, count + 3), -5, np.float32)
    start = 0
    for part in (1, 4, 0, 5):
        _steps(
            found, key_dim, count, rows[start:], rows[start:, key_dim:], rows[start:, 2 * key_dim:],
            rows.shape[1], keep[start:], share[start:], part, out[start:],
        )  # fmt: skip
        start += part
    assert cases.same_bits(out[:, :count].copy(), expected)
    assert (out[:, count:] == -5).all()
    whole = found.swapaxes(0, 1).reshape(key_dim, -1)
    assert cases.same_bits(whole[:, :count].copy(), state[0])
    assert not whole[:, count:].any()


def test_a_key_that_was_written_is_found():
    """All of a value, where nothing is forgotten: the delta rule replaces what was there."""
    key = np.eye(4, dtype=np.float32)[None]
    one, state = np.ones(1, np.float32), np.zeros((1, 4, 5), np.float32)
    for value, at in ((floats(1, 5), 2), (floats(1, 5, seed=1), 2), (floats(1, 5, seed=2), 0)):
        state, found = reference.delta_step(state, key[:, at], key[:, at], value, one, one)
        assert cases.same_bits(found, value)
    assert cases.same_bits(state[:, 2], floats(1, 5, seed=1))
