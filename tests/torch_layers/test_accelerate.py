"""Models of transformers on packed weights: the same greedy tokens, and files that load."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ternops.decoder import open_checkpoint
from tests.peers.bitnet_folders import KINDS, LARGEST, SIZES, load_theirs, prompt_of, write

pytest.importorskip("torch", reason="torch is not installed (make test-peers)")
from ternops.torch import TernaryLinear, accelerate, replace_linear

pytestmark = pytest.mark.peers

STEPS = 48


def generated(model, prompt, torch):
    model.generation_config.eos_token_id = None
    with torch.no_grad():
        asked = torch.tensor([prompt])
        tokens = model.generate(asked, do_sample=False, max_new_tokens=STEPS)
        return tokens[0].tolist(), model(tokens).logits[0]


@pytest.mark.parametrize(("layout", "kind", "seed"), KINDS)
def test_same_greedy_tokens(tmp_path, torch, transformers, layout, kind, seed):
    write(tmp_path, layout, kind, seed, torch, transformers)
    model = load_theirs(tmp_path, torch, transformers)
    expected, logits = generated(model, prompt_of(seed), torch)
    assert accelerate(model) is model
    layers = [name for name, each in model.named_modules() if isinstance(each, TernaryLinear)]
    tokens, found = generated(model, prompt_of(seed), torch)
    print(f"{len(layers)} layers, largest difference {(found - logits).abs().max():.2g}")
    assert len(layers) == 7 * SIZES["num_hidden_layers"]
    assert len(set(tokens)) > 8
    assert tokens == expected
    assert (found - logits).abs().max() < LARGEST


@pytest.mark.parametrize(("layout", "kind", "seed"), KINDS)
def test_saved_it_loads_everywhere(tmp_path, torch, transformers, layout, kind, seed):
    """Packed trits, which transformers reads with the same logits, and ternops."""
    write(tmp_path / "first", layout, kind, seed, torch, transformers)
    model = accelerate(load_theirs(tmp_path / "first", torch, transformers))
    tokens, logits = generated(model, prompt_of(seed), torch)
    model.save_pretrained(tmp_path / "second")
    config = json.loads((tmp_path / "second" / "config.json").read_text("utf-8"))
    found = config["quantization_config"]
    assert (found["linear_class"], found["quantization_mode"]) == ("autobitlinear", "offline")
    again = load_theirs(tmp_path / "second", torch, transformers)
    with torch.no_grad():
        theirs = again(torch.tensor([tokens])).logits[0]
    assert (theirs - logits).abs().max() < LARGEST
    first, second = (open_checkpoint(tmp_path / name) for name in ("first", "second"))
    for layer in range(first.config.layers):
        for name in first.config.linear_shapes(layer):
            (trits, scale), (again, other) = (each.trits(layer, name) for each in (first, second))
            assert np.array_equal(trits, again)
            assert other == pytest.approx(scale, rel=1e-6)  # torch has its own mean


def test_a_trained_model_of_transformers(tmp_path, torch, transformers):
    """A float model with our BitLinear in it, made ternary and saved, is a BitNet of theirs."""
    torch.manual_seed(3)
    model = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**SIZES, head_dim=20)).eval()
    replace_linear(model)
    with torch.no_grad():
        tokens = torch.tensor([prompt_of(3)])
        expected = model(tokens).logits
        found = accelerate(model)(tokens).logits
        model.save_pretrained(tmp_path)
        theirs = load_theirs(tmp_path, torch, transformers)(tokens).logits
    assert (found - expected).abs().max() < LARGEST
    assert (theirs - expected).abs().max() < LARGEST


def test_bfloat16_models_run(tmp_path, torch, transformers):
    """Their own layers round activations to bfloat16 once more, all else rounds alike: logits are
    as near to those of float32."""
    write(tmp_path, "bitnet", "offline", 65, torch, transformers)
    exact = load_theirs(tmp_path, torch, transformers)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16).eval()
    tokens = torch.tensor([prompt_of(65) * 4])
    with torch.no_grad():
        expected, theirs = exact(tokens).logits, model(tokens).logits
        ours = accelerate(model)(tokens).logits
    assert ours.dtype == torch.bfloat16
    error, of_theirs = ((each.float() - expected).std() for each in (ours, theirs))
    print(f"standard deviation {expected.std():.3g}, error {error:.2g}, theirs {of_theirs:.2g}")
    assert error < 1.3 * of_theirs


def test_versions_that_are_too_old_are_one_line(monkeypatch, transformers):
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES, head_dim=16))
    monkeypatch.delattr(transformers.cache_utils, "DynamicLayer")
    message = f"transformers: version {transformers.__version__}, expected 4.54 or later"
    with pytest.raises(ImportError, match=message):
        accelerate(replace_linear(model))


def test_bad_models_are_one_line(tmp_path, torch, transformers):
    with pytest.raises(ValueError, match="model: has no BitLinear to replace"):
        accelerate(transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES, head_dim=16)))
    write(tmp_path, "llama", "unpacked", 1, torch, transformers)
    model = load_theirs(tmp_path, torch, transformers)
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[0, 0] = 0.5
    message = "model.layers.1.mlp.down_proj: weight: holds other numbers, expected -1, 0 and 1"
    with pytest.raises(ValueError, match=message):
        accelerate(model)
    assert not any(isinstance(each, TernaryLinear) for each in model.modules())
    model.model.layers[0].self_attn.q_proj.to("meta")
    with pytest.raises(TypeError, match=r"q_proj: weight: device meta, expected a CPU tensor"):
        accelerate(model)
