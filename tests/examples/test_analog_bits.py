"""Bit Diffusion: bits, noise, the sampler, the network on kernels; with torch, the training."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ternops.absmean import MIN_ABSMAX
from ternops.kernels.reference import quantize_rows

CLASSES = np.arange(10)


@pytest.fixture
def analog():
    import analog_bits

    return analog_bits


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(16, size=(10, 64), dtype=np.int8)


@pytest.fixture
def weights(analog):
    random = np.random.default_rng(1)
    ternary = {
        name: (random.integers(-1, 2, shape, np.int8), 0.02)
        for name, shape in analog.shapes().items()
    }
    floats = {"classes": random.standard_normal((10, analog.WIDTH), np.float32),
              "bias": random.standard_normal(analog.ANALOG, np.float32)}  # fmt: skip
    return analog.Weights(ternary, floats)


def test_bits_are_a_pixels_highest_first_and_give_it_back(analog, pixels):
    bits = analog.to_bits(pixels)
    assert bits[:, :4].tolist() == [
        [1 if digit == "1" else -1 for digit in f"{each:04b}"] for each in pixels[:, 0]
    ]
    assert (analog.to_pixels(bits) == pixels).all()
    assert (analog.to_pixels(0.01 * bits) == pixels).all()


def test_noise_grows_with_time(analog):
    shares = analog.signal_share(np.linspace(0, 1, 11))
    assert shares[0] == pytest.approx(1, abs=1e-6)
    assert shares[-1] == pytest.approx(0, abs=1e-6)
    assert (np.diff(shares) < 0).all()


@pytest.mark.parametrize(("is_conditioned", "apart"), [(True, 0), (False, 0), (True, 1)])
def test_what_a_perfect_network_predicts_is_sampled(
    analog, pixels, is_conditioned, apart, monkeypatch
):
    monkeypatch.setattr(analog, "APART", apart)
    bits, seen = analog.to_bits(pixels).astype(np.float32), []

    def perfect(x, predicted, times, classes):
        seen.append((x, predicted, times[0]))
        return 3 * bits[classes]  # which is cut to 1

    noise = np.random.default_rng(2).standard_normal(bits.shape, np.float32)
    found = analog.sample(perfect, CLASSES, noise, 8, is_conditioned)
    assert (found == bits).all()
    assert [time for *_, time in seen] == pytest.approx(1 - np.arange(8) / 8)
    assert (seen[0][1] == 0).all()
    assert all((predicted == is_conditioned * bits).all() for _, predicted, _ in seen[1:])
    # A DDIM step keeps the noise: x is the bits and it, by the share of the time it was moved to.
    # Where that is not the next step's time, the next step takes them for something else.
    for step, (x, *_) in enumerate(seen[1:2] if apart else seen[1:], 1):
        share = analog.signal_share(1 - (step + apart) / 8)
        first = analog.signal_share(1.0)
        rest = (noise - np.sqrt(first) * bits) / np.sqrt(1 - first)
        expected = np.sqrt(share) * bits + np.sqrt(1 - share) * rest
        np.testing.assert_allclose(x, expected, atol=1e-4)


def test_kernels_compute_the_network(analog, weights):
    random = np.random.default_rng(3)
    x, predicted = random.standard_normal((2, 10, analog.ANALOG), np.float32)
    times = np.linspace(0, 1, 10, dtype=np.float32)
    inputs = np.concatenate([x, predicted], 1)

    def linear(name, each):
        trits, scale = weights.ternary[name]
        codes, step = quantize_rows(np.asarray(each, np.float32), MIN_ABSMAX)
        sums = codes.astype(np.int64) @ trits.T.astype(np.int64)
        return (sums * np.float32(scale) * np.reshape(step, (-1, 1))).astype(np.float32)

    expected = analog.forward(
        np, linear, weights.floats, inputs, analog.time_features(times), CLASSES
    )
    found = analog.on_kernels(weights)(x, predicted, times, CLASSES)
    assert found.shape == (10, analog.ANALOG)
    # A code may round the other way where a float before it differs in its last bit.
    assert np.median(np.abs(found - expected)) < 1e-5
    np.testing.assert_allclose(found, expected, atol=0.1)
    moved = analog.on_kernels(weights)(x, predicted, times, CLASSES[::-1])
    assert np.abs(found - moved).max() > 0.1


def test_differing_bits_are_counted_exactly(analog):
    signs = np.random.default_rng(4).choice(np.array([-1, 1], np.int8), (30, analog.ANALOG))
    data = analog.pack_bits(signs[:20])
    assert data.bits_per_weight < 1.2
    expected = (signs[:, None] != signs[None, :20]).sum(axis=2)
    assert (analog.differing_bits(signs, data) == expected).all()


def test_the_committed_samples_are_drawn(analog):
    from pictures import digits_figure

    found = json.loads((analog.RESULTS / "results.json").read_text("utf-8"))
    assert found["weights"] == sum(rows * columns for rows, columns in analog.shapes().values())
    assert found["recognised"]["conditioned"] > 0.95
    assert found["kernels and torch"]["median difference of a prediction"] < 1e-5
    assert found["kernels and torch"]["same bits of samples"] > 0.99
    texts = [text for each in found["samples"].values() for text in each]
    assert len(set(texts)) == len(texts) == 10 * analog.SHOWN
    samples, images = digits_figure(found).axes
    for axes in (samples, images):
        assert axes.images[0].get_array().shape == (10 * 9 - 1, 10 * 9 - 1)


@pytest.mark.peers
def test_training_lowers_the_loss_and_kernels_predict_what_torch_does(analog, pixels):
    bits = analog.to_bits(pixels).astype(np.float32)
    network = analog.train(bits, CLASSES, 60)
    x = np.sqrt(0.5) * (bits + np.random.default_rng(5).standard_normal(bits.shape, np.float32))
    x, zeros = x.astype(np.float32), np.zeros_like(bits)
    times = np.full(10, 0.5, np.float32)
    theirs = network.denoiser()(x, zeros, times, CLASSES)
    found = analog.on_kernels(network.weights())(x, zeros, times, CLASSES)
    assert np.median(np.abs(found - theirs)) < 1e-5
    assert np.abs(found - theirs).max() < 0.1
    assert np.mean((found > 0) == (bits > 0)) > 0.95
