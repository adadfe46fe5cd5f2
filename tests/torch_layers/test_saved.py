"""What `save_pretrained` writes of an accelerated model, read by transformers, by ternops, and out
of the GGUF file that ternops makes of it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ternops.__main__ import main
from ternops.decoder import Model, open_checkpoint
from ternops.decoder.formats.loading import TINY
from tests.peers.bitnet_folders import SIZES, load_theirs

torch = pytest.importorskip("torch", reason="torch is not installed (make test-peers)")
from ternops.torch import BitLinear, TernaryLinear, accelerate, replace_linear  # noqa: E402

pytestmark = pytest.mark.peers

STEPS = 48
#: Of logits up to 10; one activation that float32 rounds to another int8 changes them by 0.1.
LARGEST = 2e-5
#: With a multiple of 32 for groups.
WIDE = {**SIZES, "hidden_size": 64, "intermediate_size": 128}
TOKENS = torch.tensor([list(range(2, 40))])


def trained(transformers, name, seed, **settings):
    """A model with random BitLinear layers of ours, and what it gives for TOKENS."""
    torch.manual_seed(seed)
    config = getattr(transformers, f"{name}Config")(**WIDE)
    model = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    replace_linear(model, **settings)
    with torch.no_grad():
        for key, weight in model.named_parameters():
            weight.uniform_(0.5, 1.5) if "norm" in key else weight.normal_(0, 0.3)
            weight.copy_(weight.bfloat16())
        return model, model(TOKENS).logits


def logits(model):
    with torch.no_grad():
        return model(TOKENS).logits


@pytest.mark.parametrize("kind", ["ternops", "transformers"])
def test_the_same_greedy_tokens_everywhere(tmp_path, transformers, kind, capsys):
    """Of the packaged model: transformers', accelerated, saved and loaded, here and as GGUF."""
    model, tokenizer = (
        load_theirs(TINY, torch, transformers),
        transformers.AutoTokenizer.from_pretrained(TINY),
    )
    asked = tokenizer("def main(", return_tensors="pt")["input_ids"]

    def generated(each):
        return each.generate(asked, do_sample=False, max_new_tokens=STEPS)[0].tolist()

    expected = generated(model)
    assert generated(accelerate(model)) == expected
    folder, file = tmp_path / "saved", tmp_path / "saved.gguf"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if kind == "transformers":
        assert generated(load_theirs(folder, torch, transformers)) == expected
        return
    assert main(["quantize", str(folder), str(file), "--to", "gguf"]) == 0
    for path in (folder, file):
        ours = Model.from_pretrained(path, threads=2)
        prompt = open_checkpoint(path).tokenizer().encode("def main(").ids
        assert prompt == asked[0].tolist()
        assert prompt + list(ours.generate(prompt, STEPS)) == expected


@pytest.mark.parametrize(
    ("name", "settings", "seed"),
    [
        ("Qwen2", {}, 1),  # whose queries, keys and values have biases
        ("Llama", {"rms_norm": True, "rms_norm_eps": 1e-5}, 3),
        ("Llama", {"weights": "sign"}, 1),
        ("Llama", {"keep": ("lm_head", "model.layers.0", "q_proj")}, 1),
    ],
)
def test_transformers_has_the_same_logits(tmp_path, transformers, name, settings, seed):
    """Loaded, and accelerated and saved once more."""
    model, expected = trained(transformers, name, seed, **settings)
    assert (logits(accelerate(model)) - expected).abs().max() < LARGEST
    for folder in (tmp_path / "first", tmp_path / "second"):
        model.save_pretrained(folder)
        model = load_theirs(folder, torch, transformers)
        assert (logits(model) - expected).abs().max() < LARGEST
        assert (logits(accelerate(model)) - expected).abs().max() < LARGEST
    if "keep" in settings:
        with pytest.raises(ValueError, match=r"config: modules_to_not_convert is .*q_proj.*expect"):
            open_checkpoint(folder)
    else:
        check_tensors(model, folder)


@pytest.mark.parametrize("name", ["Llama", "Qwen2"])
@pytest.mark.parametrize(("settings", "seed"), [({"weights": "seq"}, 1), ({"group": 32}, 2)])
def test_scales_of_rows_and_groups_are_read_here(tmp_path, transformers, name, settings, seed):
    """As transformers, which knows one number alone, refuses; GGUF has them in float16."""
    model, expected = trained(transformers, name, seed, **settings)
    assert (logits(accelerate(model)) - expected).abs().max() < LARGEST
    folder, file = tmp_path / "saved", tmp_path / "saved.gguf"
    model.save_pretrained(folder)
    check_tensors(model, folder)
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        load_theirs(folder, torch, transformers)
    ours = Model.from_pretrained(folder, threads=1, cache="fp32").logits(TOKENS[0].tolist())
    assert np.abs(ours - expected[0].numpy()).max() < LARGEST
    assert main(["quantize", str(folder), str(file), "--to", "gguf"]) == 0
    first, second = open_checkpoint(folder), open_checkpoint(file)
    for key in first.config.linear_shapes(1):
        (trits, scale), (again, other) = (each.trits(1, key) for each in (first, second))
        assert np.array_equal(trits, again)
        assert np.allclose(other, scale, rtol=2.0**-11)


def check_tensors(model, folder):
    """A folder has the trits, scales and biases of an accelerated model."""
    checkpoint, names = open_checkpoint(folder), {"q": "self_attn.q_proj", "down": "mlp.down_proj"}
    for key, name in names.items():
        layer = model.get_submodule(f"model.layers.1.{name}")
        trits, scale = checkpoint.trits(1, key)
        assert np.array_equal(trits, layer.matrix.to_trits())
        assert np.array_equal(scale, layer.matrix.scale)
        if layer.bias is not None:
            # Divided by the scale and multiplied again.
            found = checkpoint.bias(1, key)
            assert np.allclose(found, layer.bias.numpy(), rtol=3e-7, atol=0)


def test_biases_of_a_state_dict_come_back(transformers):
    """As those of a file, they are divided by the scale there."""
    model, expected = trained(transformers, "Qwen2", 1)
    accelerate(model)
    layer = model.model.layers[0].self_attn.q_proj
    state = {name: each.clone() for name, each in model.state_dict().items()}
    found = state["model.layers.0.self_attn.q_proj.bias"] * float(layer.matrix.scale)
    assert torch.allclose(found, layer.bias, rtol=1e-6)
    other, _ = trained(transformers, "Qwen2", 2)
    accelerate(other).load_state_dict(state)
    assert (logits(other) - expected).abs().max() < LARGEST


def test_norms_of_some_layers_are_told(transformers):
    """A config cannot say which; nothing is changed then."""
    model, _ = trained(transformers, "Llama", 1)
    model.model.layers[1].mlp.up_proj = BitLinear(64, 128, bias=False, rms_norm=True)
    with pytest.raises(ValueError, match="model: layers have 1e-06, None for the epsilon") as told:
        accelerate(model)
    assert "\n" not in str(told.value)
    assert not any(isinstance(each, TernaryLinear) for each in model.modules())


def test_bad_scales_of_a_folder_are_one_line(tmp_path, transformers):
    from safetensors.numpy import load_file, save_file

    model, _ = trained(transformers, "Llama", 1, weights="seq")
    accelerate(model).save_pretrained(tmp_path)
    path, name = tmp_path / "model.safetensors", "model.layers.0.self_attn.q_proj.weight_scale"
    tensors = load_file(path)
    for bad, message in (
        (np.full(64, -1, np.float32), "weight_scale holds the scale -1.0, expected positive"),
        (np.full((64, 3), 1, np.float32), r"weight_scale has shape \(64, 3\), expected \(1,\)"),
    ):
        save_file({**tensors, name: bad}, path, {"format": "pt"})
        with pytest.raises(ValueError, match=message):
            open_checkpoint(tmp_path).trits(0, "q")
    assert json.loads((tmp_path / "config.json").read_text("utf-8"))["quantization_config"]
