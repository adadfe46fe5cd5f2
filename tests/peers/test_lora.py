"""LoRA adapters that peft makes and writes, beside ternary weights, against peft itself."""

from __future__ import annotations

import numpy as np
import pytest

from ternops.decoder import Model
from tests.peers.bitnet_folders import SIZES, load_theirs, write

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
