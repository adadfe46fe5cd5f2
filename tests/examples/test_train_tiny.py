"""The tiny model as it is trained: what torch computes is what the decoder computes."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from ternops.decoder import Model, open_checkpoint, reference

torch = pytest.importorskip("torch", reason="torch is not installed")


@pytest.fixture
def train_tiny():
    import train_tiny

    return train_tiny


def test_activations_of_a48_are_the_decoders(train_tiny, tmp_path):
    """The packaged checkpoint with them, from the folder that the script writes: apart by what a
    float32 sum in another order tips over, where 8-bit activations are far away."""
    source = train_tiny.load_folder(train_tiny.TINY)
    tokenizer = open_checkpoint().tokenizer()
    train_tiny.save_folder(tmp_path / "a48", source, tokenizer, True)
    raw = json.loads((tmp_path / "a48" / "config.json").read_text())
    assert raw["quantization_config"]["activation_quantization"] == "a4.8"
    model = Model.from_pretrained(tmp_path / "a48", threads=1, cache="fp32")
    plain = Model.from_pretrained(threads=1, cache="fp32")
    assert model.config == dataclasses.replace(plain.config, activation_quantization="a4.8")
    tokens = tokenizer.encode("def length(self):\n    return len(self._items)\n").ids
    found = []
    for is_a48 in (True, False):
        numbers = train_tiny.Numbers(is_a48=is_a48)
        with torch.no_grad():
            found.append(train_tiny.logits_of(source, torch.tensor([tokens]), numbers)[0].numpy())
    theirs, of_8_bits = found
    ours = reference.logits(model, tokens)
    size = np.linalg.norm(ours)
    apart, far = (np.linalg.norm(each - ours) / size for each in (theirs, of_8_bits))
    print(f"{apart:.4f} apart, with 8 bits {far:.4f}")
    assert apart < 0.02 < 0.1 < far
    ours = reference.logits(plain, tokens)
    assert np.linalg.norm(of_8_bits - ours) < 0.02 * np.linalg.norm(ours)


def test_the_larger_half(train_tiny):
    """Of magnitudes, rounded up; gradients pass where something is kept."""
    x = torch.tensor([[3.0, -4.0, 0.5, 1.0, -2.0]], requires_grad=True)
    kept = train_tiny.larger_half(x)
    assert kept.tolist() == [[3, -4, 0, 0, -2]]
    kept.sum().backward()
    assert x.grad.tolist() == [[1, 1, 0, 0, 1]]


def test_the_gradient_goes_straight_through(train_tiny):
    """Of int4 codes, cut off or not, as if they were the activations themselves."""
    random = torch.Generator().manual_seed(0)
    x = torch.randn(6, 40, generator=random, requires_grad=True)
    weight = torch.randn(8, 40, generator=random, requires_grad=True)
    y = train_tiny.BitLinear.apply(x, torch.float32, True, weight)
    step = x.detach().abs().mean(1, keepdim=True) / 7**0.5
    codes = (x.detach() / step).round().clamp(-8, 7)
    scale = weight.detach().abs().mean()
    ternary = (weight.detach() / scale).round().clamp(-1, 1) * scale
    assert torch.allclose(y, codes * step @ ternary.T, atol=1e-4)
    y.sum().backward()
    assert torch.allclose(x.grad, ternary.sum(0).expand(6, 40), atol=1e-4)
    assert torch.allclose(weight.grad, (codes * step).sum(0).expand(8, 40), atol=1e-4)
