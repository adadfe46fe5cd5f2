"""LoRA adapters that peft makes and writes, beside ternary weights, against peft itself."""

from __future__ import annotations

import numpy as np
import pytest

from ternops.decoder import Model, reference
from tests.peers.bitnet_folders import SIZES, load_theirs, write
from tests.peers.random_models import made

peft = pytest.importorskip("peft", reason="peft is not installed (make test-peers)")
pytestmark = pytest.mark.peers

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
EVERY = [*ATTENTION, "gate_proj", "up_proj", "down_proj"]
#: Of logits up to 10: float32 sums in another order. One activation that lies so near to a border
#: that it becomes another int8 changes them by 0.1; the seeds keep away from that.
LARGEST = 2e-5
STEPS = 32


@pytest.mark.parametrize(
    ("layout", "kind", "seed", "adapter", "settings"),
    [
        ("bitnet", "offline", 65, 1, {"r": 4, "lora_alpha": 8, "target_modules": EVERY}),
        ("llama", "offline", 186, 4, {"r": 3, "lora_alpha": 5, "target_modules": ATTENTION}),
        ("qwen3", "online", 138, 3, {
            "r": 16, "lora_alpha": 4, "target_modules": EVERY, "use_rslora": True}),
        ("qwen3", "offline", 120, 1, {
            "r": 4, "lora_alpha": 8, "target_modules": EVERY, "rank_pattern": {"down_proj": 9},
            "alpha_pattern": {"q_proj": 3, r"layers\.0\.mlp\.up_proj": 7}}),
    ],
)  # fmt: skip
def test_the_same_logits_and_greedy_tokens(
    tmp_path, torch, transformers, layout, kind, seed, adapter, settings
):
    write(tmp_path / "base", layout, kind, seed, torch, transformers)
    theirs = load_theirs(tmp_path / "base", torch, transformers)
    base = Model.from_pretrained(tmp_path / "base", cache="fp32")
    prompt = np.random.default_rng(seed).integers(2, SIZES["vocab_size"], 8).tolist()
    torch.manual_seed(adapter)
    theirs = peft.get_peft_model(theirs, peft.LoraConfig(**settings)).eval()
    with torch.no_grad():
        for name, weight in theirs.named_parameters():
            if "lora_B" in name:  # zeros at first
                weight.normal_(0, 0.2)
    theirs.save_pretrained(tmp_path / "adapter")
    ours = Model.from_pretrained(tmp_path / "base", lora=tmp_path / "adapter", cache="fp32")
    theirs.generation_config.eos_token_id = None
    with torch.no_grad():
        asked = torch.tensor([prompt])
        tokens = theirs.generate(input_ids=asked, do_sample=False, max_new_tokens=STEPS)[0].tolist()
        expected = theirs(torch.tensor([tokens])).logits[0].numpy()
    error = np.abs(ours.logits(tokens) - expected).max()
    changed = np.abs(base.logits(tokens) - expected).max()
    print(f"{layout} {kind}: {error:.2g} of {np.abs(expected).max():.2g}, without it {changed:.2g}")
    assert changed > 1
    assert error < LARGEST
    assert prompt + list(ours.generate(prompt, STEPS, stop_at_eos=False)) == tokens


def test_dora_is_refused(tmp_path, torch, transformers):
    write(tmp_path / "base", "llama", "online", 1, torch, transformers)
    theirs = load_theirs(tmp_path / "base", torch, transformers)
    settings = peft.LoraConfig(r=2, target_modules=ATTENTION, use_dora=True)
    peft.get_peft_model(theirs, settings).save_pretrained(tmp_path / "adapter")
    with pytest.raises(ValueError, match="use_dora is True, expected False"):
        Model.from_pretrained(tmp_path / "base", lora=tmp_path / "adapter")


@pytest.mark.parametrize("beginning", ["pissa", "pissa_niter_2", "olora"])
def test_a_base_that_peft_changes(tmp_path, torch, transformers, beginning):
    """peft takes what A and B begin with away from the base's weights, anew whenever it opens such
    an adapter: refused, until peft itself has written it as one of the base as it is."""
    write(tmp_path / "base", "llama", "floats", 186, torch, transformers)
    theirs = load_theirs(tmp_path / "base", torch, transformers)
    settings = {"r": 4, "lora_alpha": 8, "target_modules": EVERY, "init_lora_weights": beginning}
    torch.manual_seed(1)
    theirs = peft.get_peft_model(theirs, peft.LoraConfig(**settings)).eval()
    theirs.peft_config["default"].init_lora_weights = True
    theirs.save_pretrained(tmp_path / "first")
    theirs.peft_config["default"].init_lora_weights = beginning
    with torch.no_grad():
        for name, weight in theirs.named_parameters():
            if "lora_B" in name:
                weight.add_(0.2 * torch.randn_like(weight))
    theirs.save_pretrained(tmp_path / "adapter")
    with pytest.raises(ValueError, match=f"init_lora_weights is '{beginning}', which changes the"):
        Model.from_pretrained(tmp_path / "base", lora=tmp_path / "adapter")
    tokens = np.random.default_rng(186).integers(2, SIZES["vocab_size"], 8).tolist()
    with torch.no_grad():
        expected = theirs(torch.tensor([tokens])).logits[0].numpy()
    first = str(tmp_path / "first")
    theirs.save_pretrained(tmp_path / "converted", path_initial_model_for_weight_conversion=first)
    settings = {"lora": tmp_path / "converted", "weights": "fp16", "cache": "fp32"}
    ours = Model.from_pretrained(tmp_path / "base", **settings)
    error = np.abs(ours.logits(tokens) - expected).max()
    print(f"{beginning}: {error:.2g} of {np.abs(expected).max():.2g}")
    assert error < LARGEST


def test_an_encoder(tmp_path, torch, transformers):
    """A program without a head, whose tensors peft names otherwise: normed hidden states."""
    theirs = made("Qwen3", 3, torch, transformers, head_dim=16, tie_word_embeddings=True).model
    theirs.save_pretrained(tmp_path / "base")
    settings = peft.LoraConfig(r=4, lora_alpha=12, target_modules=EVERY)
    theirs = peft.get_peft_model(theirs, settings).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in theirs.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.2)
    theirs.save_pretrained(tmp_path / "adapter")
    tokens = np.random.default_rng(1).integers(2, SIZES["vocab_size"], 20).tolist()
    with torch.no_grad():
        expected = theirs(torch.tensor([tokens])).last_hidden_state[0].numpy()
    settings = {"weights": "fp16", "cache": "fp32"}
    base = Model.from_pretrained(tmp_path / "base", **settings)
    ours = Model.from_pretrained(tmp_path / "base", lora=tmp_path / "adapter", **settings)
    found = reference.states(ours, tokens, reference.Unquantised)
    changed = np.abs(reference.states(base, tokens, reference.Unquantised) - expected).max()
    error = np.abs(found - expected).max()
    print(f"{error:.2g} of {np.abs(expected).max():.2g}, without it {changed:.2g}")
    assert changed > 0.5
    assert error < LARGEST
