"""The Qwen3 trunk out of Hugging Face folders: what its config.json and its tensors may say."""

from __future__ import annotations

import numpy as np
import pytest

from ternops.decoder import Config, Model, open_checkpoint, reference
from ternops.decoder.formats import convert
from tests.helpers import cases, checkpoints
from tests.helpers.checkpoints import refused

QWEN3 = {
    **{k: v for k, v in checkpoints.CONFIG.items() if k != "quantization_config"},
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    # As transformers writes them into every config.json.
    "attention_bias": False,
    "sliding_window": None,
    "use_sliding_window": False,
    "max_window_layers": 28,
    "layer_types": ["full_attention"] * 2,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
}
TOKENS = [0, 32, 7, 7, 19, 2]
NORM = "model.layers.1.self_attn.k_norm.weight"


def qwen3_tensors():
    """Products of trits and a scale a matrix, and norms of heads."""
    random, values = np.random.default_rng(3), {}
    for name, each in checkpoints.tensors().items():
        if "_proj" in name:
            each = random.integers(-1, 2, each.shape) * np.float16(random.uniform(0.1, 1))
        if "sub_norm" not in name:
            values[name] = each.astype(np.float16)
    for layer in range(2):
        for name in ("q_norm", "k_norm"):
            weight = random.uniform(0.5, 2, 10).astype(np.float16)
            values[f"model.layers.{layer}.self_attn.{name}.weight"] = weight
    return values


@pytest.mark.parametrize("tied", [True, False])
def test_a_folder(tmp_path, tied):
    """Its numbers, its trits as they are, the oracle's logits; the same out of a packed file."""
    values = qwen3_tensors()
    if tied:
        del values["lm_head.weight"]
    folder = checkpoints.write(tmp_path / "x", {**QWEN3, "tie_word_embeddings": tied}, values)
    model = Model.from_pretrained(folder, threads=2)
    assert model.config == Config(
        hidden=24, ffn=70, layers=2, heads=3, kv_heads=1, head_dim=10, vocabulary=33, context=40,
        architecture="qwen3", tied=tied, rope_theta=1e6, epsilon=1e-6, eos=(1,),
    )  # fmt: skip
    for layer, weights in enumerate(model.weights.layers):
        assert set(weights.norms) == {"input", "q", "k", "post"}
        matrix, name = weights.linear["q"], f"model.layers.{layer}.self_attn.q_proj.weight"
        assert cases.same_bits(matrix.to_trits() * matrix.scale, values[name].astype(np.float32))
    logits = model.logits(TOKENS)
    assert cases.same_bits(logits, reference.logits(model, TOKENS))
    convert.convert(folder, tmp_path / "packed")
    packed = Model.from_pretrained(tmp_path / "packed", threads=1)
    assert packed.config == model.config
    assert cases.same_bits(packed.logits(TOKENS), logits)


def test_what_the_norms_of_heads_do(tmp_path):
    """They are not left out: other weights are other logits."""
    values, found = qwen3_tensors(), []
    for name in ("none", NORM, NORM.replace("k_norm", "q_norm")):
        changed = {**values, name: 2 * values[NORM]} if name != "none" else values
        folder = checkpoints.write(tmp_path, QWEN3, changed)
        found.append(Model.from_pretrained(folder, threads=1).logits(TOKENS))
    assert all((found[0] != each).any() for each in found[1:])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"layer_types": ["full_attention", "sliding_attention"]}, "config: sliding_window None"),
        ({"attention_bias": True}, "config: attention_bias True"),
        ({"use_qk_norm": False}, "config: use_qk_norm False True"),
        ({"model_type": "qwen3_moe"}, "config: model_type 'qwen3_moe' 'qwen3' Qwen3ForCausalLM"),
        ({"model_type": "llama"}, "config: model_type 'llama' 'qwen3'"),
        ({"num_experts": 8}, "config: num_experts 8"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 4.0}}, "config: rope 'dynamic'"),
        # What transformers takes without it is no quotient of hidden and heads.
        ({"head_dim": None}, "checkpoint: q_proj (30, 24) (24, 24)"),
    ],
)
def test_a_config_of_another_model(tmp_path, changes, words):
    """Is refused, naming the setting."""
    refused(checkpoints.write(tmp_path, {**QWEN3, **changes}, qwen3_tensors()), words)


def test_a_head_dim_that_is_missing(tmp_path):
    """It is 128, as in transformers."""
    config = {key: value for key, value in QWEN3.items() if key != "head_dim"}
    refused(checkpoints.write(tmp_path, config, qwen3_tensors()), "checkpoint: q_proj (384, 24)")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        (NORM, None, f"checkpoint: {NORM} missing"),
        (NORM, np.ones(9, np.float16), f"checkpoint: {NORM} shape (9,) (10,)"),
        (NORM, np.full(10, np.nan, np.float16), f"checkpoint: {NORM} NaN"),
        ("model.layers.0.self_attn.q_proj.bias", np.ones(30, np.float16), "q_proj.bias place"),
        ("model.layers.0.self_attn.attn_sub_norm.weight", np.ones(30), "attn_sub_norm place"),
        ("model.layers.0.self_attn.v_norm.weight", np.ones(10), "v_norm place"),
    ],
)
def test_tensors_of_another_model(tmp_path, name, value, words):
    """Missing ones, and those that would be left out."""
    values = {**qwen3_tensors(), name: value}
    if value is None:
        del values[name]
    refused(checkpoints.write(tmp_path, QWEN3, values), words)


def test_ordinary_floats(tmp_path):
    """Are refused, or rounded on demand, as those of a LLaMA."""
    values = qwen3_tensors()
    values[checkpoints.FIRST] = checkpoints.tensors()[checkpoints.FIRST]
    folder = checkpoints.write(tmp_path, QWEN3, values)
    refused(folder, f"checkpoint: {checkpoints.FIRST} ternary --quantize absmean")
    assert open_checkpoint(folder, quantize="absmean").trits(0, "q")[1].shape == ()
