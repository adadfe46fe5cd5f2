"""Random BitNet checkpoints as transformers writes them, and their models."""

from __future__ import annotations

import numpy as np

from tests.peers import random_models

SIZES = {**random_models.SIZES, "num_hidden_layers": 2}
#: Of logits up to 10. One activation that float32 rounds to another int8 would change them by 0.1.
LARGEST = 2e-5
#: Arguments of `write`: no activation of `prompt_of` the seed is near the middle of two int8.
KINDS = [
    ("bitnet", "offline", 65),
    ("bitnet", "unpacked", 65),
    ("bitnet", "online", 135),
    ("llama", "bitlinear", 186),
    ("qwen3", "offline", 120),
    ("qwen3", "online", 138),
]


def load_theirs(folder, torch, transformers):
    """Their model, computing in float32: loading leaves bfloat16 norms and embeddings as they are,
    and a quantised model's own float() refuses."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return torch.nn.Module.float(model).eval()


def write(folder, layout, kind, seed, torch, transformers, **options):
    """A random checkpoint, written by transformers in bfloat16.

    layout: "bitnet" with relu2, norms before o_proj and down_proj and a tied head, as 2B4T,
    "llama" with neither, as Falcon3, or "qwen3" with norms of heads; all with grouped queries.
    kind: "online", "offline" (packed), "unpacked" (offline trits as floats), "bitlinear", or
    "floats": products of trits and a scale that nothing declares.
    """
    torch.manual_seed(seed)
    if layout == "bitnet":
        config = transformers.BitNetConfig(**SIZES, tie_word_embeddings=True, **options)
        model = transformers.BitNetForCausalLM(config)
    elif layout == "qwen3":
        config = transformers.Qwen3Config(**SIZES, head_dim=20, **options)
        model = transformers.Qwen3ForCausalLM(config)
    else:
        config = transformers.LlamaConfig(**SIZES, head_dim=16, **options)
        model = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.uniform_(0.5, 1.5) if "norm" in name else weight.normal_(0, 0.3)
    state = model.to(torch.bfloat16).state_dict()
    if config.tie_word_embeddings:
        del state["lm_head.weight"]
    if kind != "online":
        for name in [name for name in state if "_proj" in name]:
            state |= quantized(name, state[name].float(), kind, torch, transformers)
    settings = {"quant_method": "bitnet"}
    if kind != "bitlinear":
        mode = "online" if kind == "online" else "offline"
        settings |= {"linear_class": "autobitlinear", "quantization_mode": mode}
    if kind != "floats":
        config.quantization_config = settings
    model.save_pretrained(folder, state_dict=state)


def quantized(name, weight, kind, torch, transformers):
    """What a quantised layer's weight becomes in a file; a BitLinear's scale is the inverse."""
    size = weight.abs().mean()
    trits = (weight / size).round().clamp(-1, 1)
    if kind == "floats":
        return {name: (trits * size).to(torch.bfloat16)}
    scale = 1 / size if kind == "bitlinear" else size
    pack = transformers.integrations.bitnet.pack_weights
    stored = trits.to(torch.bfloat16) if kind == "unpacked" else pack(trits)
    return {name: stored, f"{name}_scale": scale.reshape(1).to(torch.bfloat16)}


def prompt_of(seed):
    """Eight tokens of a list."""
    return np.random.default_rng(seed).integers(2, SIZES["vocab_size"], 8).tolist()
