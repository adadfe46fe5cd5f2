"""Random models of each trunk, made and written by transformers."""

from __future__ import annotations

import copy

import numpy as np

SIZES = {
    "vocab_size": 64,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": None,
}

YARN = {
    "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "rope_theta": 500.0,
}  # fmt: skip
YARN_SAYS_ALL = {
    **YARN, "mscale": 0.7, "mscale_all_dim": 1.3, "truncate": False, "beta_fast": 20,
    "beta_slow": 2,
}  # fmt: skip
LONG = {
    "rope_type": "longrope", "short_factor": [1 + i / 10 for i in range(8)],
    "long_factor": [1 + i / 2 for i in range(8)], "rope_theta": 500.0,
}  # fmt: skip
DELTA = {
    "linear_num_key_heads": 2, "linear_num_value_heads": 6, "linear_key_head_dim": 12,
    "linear_value_head_dim": 20,
}  # fmt: skip
SLIDING, FULL = "sliding_attention", "full_attention"
#: Name -> the class of transformers, and what its config says besides SIZES.
TRUNKS = {
    "llama yarn": ("Llama", {"head_dim": 16, "rope_parameters": YARN}),
    # Beyond the last pair, and beyond the border of that.
    "llama yarn, near": (
        "Llama",
        {"head_dim": 16, "rope_parameters": {
            **YARN, "rope_theta": 10.0, "original_max_position_embeddings": 64}},
    ),
    "llama yarn, far": (
        "Llama",
        {"head_dim": 16, "rope_parameters": {
            **YARN, "rope_theta": 10.0, "original_max_position_embeddings": 4096}},
    ),
    "llama longrope": (
        "Llama",
        {"head_dim": 16, "rope_parameters": {**LONG, "original_max_position_embeddings": 32}},
    ),
    "llama longrope, short": (
        "Llama",
        {"head_dim": 16, "rope_parameters": {**LONG, "original_max_position_embeddings": 128}},
    ),
    "qwen2": ("Qwen2", {}),
    "qwen2 tied, windows": (
        "Qwen2",
        {"use_sliding_window": True, "sliding_window": 17, "max_window_layers": 1,
         "tie_word_embeddings": True},
    ),
    "qwen3": ("Qwen3", {"head_dim": 20}),
    "qwen3 tied, yarn": (
        "Qwen3", {"head_dim": 16, "rope_parameters": YARN_SAYS_ALL, "tie_word_embeddings": True},
    ),
    "gemma3": (
        "Gemma3",
        {"head_dim": 16, "sliding_window": 21, "query_pre_attn_scalar": 30,
         "layer_types": [SLIDING, FULL, SLIDING]},
    ),
    "gemma3, scaled": (
        "Gemma3",
        {"head_dim": 20, "sliding_window": 70, "sliding_window_pattern": 2,
         "rope_parameters": {
             FULL: {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e4},
             SLIDING: {"rope_type": "default", "rope_theta": 300.0}}},
    ),
    "qwen3.5": (
        "Qwen3_5",
        {"head_dim": 16, "layer_types": ["linear_attention", "linear_attention", FULL], **DELTA},
    ),
    "qwen3.5, one head": (
        "Qwen3_5",
        {"head_dim": 16, "layer_types": ["linear_attention", FULL, "linear_attention"], **DELTA,
         "linear_num_key_heads": 1, "linear_num_value_heads": 1},
    ),
    "qwen3.5 tied, yarn": (
        "Qwen3_5",
        {"head_dim": 24, "layer_types": [FULL, "linear_attention", FULL], **DELTA,
         "linear_num_key_heads": 6, "tie_word_embeddings": True,
         "rope_parameters": {**YARN, "partial_rotary_factor": 0.5}},
    ),
}  # fmt: skip


def made(name, seed, torch, transformers, **options):
    """A random model of a class, its values exact in bfloat16, ternary where it is linear."""
    torch.manual_seed(seed)
    config_name = f"{name}TextConfig" if hasattr(transformers, f"{name}TextConfig") else None
    config_class = getattr(transformers, config_name or f"{name}Config")
    model = getattr(transformers, f"{name}ForCausalLM")(
        config_class(**{**SIZES, **copy.deepcopy(options)})
    )
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if "norm" in key:
                weight.uniform_(0.5, 1.5)
            elif key.endswith(("_proj.weight", "in_proj_qkv.weight", "in_proj_z.weight")):
                scale = torch.rand(()).bfloat16().float() / 2 + 0.125
                weight.copy_(torch.randint(-1, 2, weight.shape) * scale)
            else:
                weight.normal_(0, 0.3)
            weight.copy_(weight.bfloat16().float())
    return model.eval()


def bitnet(folder, name, kind, seed, torch, transformers, settings, **options):
    """A folder with a quantization_config, and the model that transformers opens, in float32."""
    plain = made(name, seed, torch, transformers, **options)
    state, random = dict(plain.state_dict()), np.random.default_rng(2)
    for key in [key for key in state if "_proj.weight" in key]:
        if settings.get("use_rms_norm"):
            inner = random.uniform(0.5, 1.5, state[key].shape[1])
            state[key.replace("weight", "rms_norm.weight")] = torch.tensor(inner).bfloat16()
        if kind != "online":
            # Also the inverse is exact.
            size = torch.tensor([float(2.0 ** random.integers(-3, 0))])
            trits = state[key].sign()
            pack = transformers.integrations.bitnet.pack_weights
            state[key] = pack(trits) if kind == "bitlinear" else trits
            state[f"{key}_scale"] = 1 / size if kind == "bitlinear" else size
    settings = {"quant_method": "bitnet", **settings}
    if kind != "bitlinear":
        settings |= {"linear_class": "autobitlinear", "quantization_mode": kind}
    if plain.config.tie_word_embeddings:
        del state["lm_head.weight"]
    plain.config.quantization_config = settings
    plain.save_pretrained(folder, state_dict=state)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return torch.nn.Module.float(theirs).eval()


def logits_in_double(model, tokens, torch, in_double):
    """Of a model that is float64 from then on."""
    torch.nn.Module.double(model)
    with torch.no_grad(), in_double():
        # Its frequencies are made when it is.
        rotary = model.model.rotary_emb
        model.model.rotary_emb = type(rotary)(model.config)
        return model(torch.tensor([tokens])).logits[0].numpy()
