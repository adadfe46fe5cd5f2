"""A model that is not what this decoder computes is refused by what its files say, in one line."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest

from ternops.decoder import Model, open_checkpoint
from ternops.decoder.formats.gguf import Gguf
from ternops.decoder.formats.hugging_face_config import read_config
from tests.helpers import cases, checkpoints, gguf_files
from tests.helpers.checkpoints import CONFIG, refused

LLAMA = {**CONFIG, "architectures": ["LlamaForCausalLM"], "model_type": "llama"}


def llama_tensors():
    return {name: each for name, each in checkpoints.tensors().items() if "sub_norm" not in name}


#: Of config.json: a value that changes the model, and values that do not. Heads of 10, hidden 24,
#: 2 layers, a context of 40.
SETTINGS = [
    ("attention_bias", True, [False]),
    ("mlp_bias", True, [False]),
    ("qkv_bias", True, [False]),
    ("embedding_multiplier", 12.0, [1, 1.0]),
    ("logits_scaling", 8.0, [1.0]),
    ("residual_multiplier", 0.22, [1.0]),
    ("attention_multiplier", 0.1, [10**-0.5, 0.31622777]),
    ("query_pre_attn_scalar", 256, [10]),
    ("scale_emb", 12, [1]),
    ("scale_depth", 1.4, [2**0.5]),
    ("dim_model_base", 256, [24]),
    ("logit_scale", 0.0625, [1.0]),
    ("mlp_multipliers", [1.0, 0.5], [[1.0, 1.0]]),
    ("attn_logit_softcapping", 50.0, [None, 0]),
    ("final_logit_softcapping", 30.0, [None]),
    ("clip_qkv", 8.0, [None]),
    ("use_qk_norm", True, [False]),
    ("is_causal", False, [True]),
    ("layer_types", ["full_attention", "sliding_attention"], [["full_attention"] * 2]),
    ("no_rope_layers", [1, 0], [[1, 1], []]),
    ("position_embedding_type", "alibi", ["rope"]),
    ("rope_interleave", True, [False]),
    ("rotary_pct", 0.5, [1.0]),
    ("num_local_experts", 8, [0, 1]),
    ("quantization", {"group_size": 64, "bits": 4}, []),
    ("use_bidirectional_attention", True, [False]),
]


@pytest.mark.parametrize(("key", "value", "neutral"), SETTINGS)
def test_a_setting_that_changes_the_computation(tmp_path, key, value, neutral):
    """Is named with its value, of either architecture; a neutral value is nothing."""
    for config in (LLAMA, CONFIG):
        refused(checkpoints.write(tmp_path, {**config, key: value}), f"config: {key} expected")
        plain = read_config(checkpoints.write(tmp_path, config))
        for each in neutral:
            assert read_config(checkpoints.write(tmp_path, {**config, key: each})) == plain


def test_settings_that_need_another(tmp_path):
    """A window, which is not LLaMA's; rope of some layers; swish, which is SiLU; unknown keys."""
    window = {**LLAMA, "sliding_window": 8, "nobody": "knows"}
    plain = read_config(checkpoints.write(tmp_path, {**LLAMA, "hidden_act": "silu"}))
    swish = read_config(checkpoints.write(tmp_path, {**window, "hidden_act": "swish"}))
    assert swish == plain
    assert plain.activation == "silu"
    rope = {"full_attention": {"rope_theta": 1e6}, "sliding_attention": {"rope_theta": 1e4}}
    refused(checkpoints.write(tmp_path, {**LLAMA, "rope_parameters": rope}),
            "config: rope 'full_attention' alone")  # fmt: skip


def test_the_program(tmp_path):
    """transformers takes that of model_type, or remote code: refused, or said in one line."""
    for kind in ("mistral", "granite", 3):
        refused(checkpoints.write(tmp_path, {**LLAMA, "model_type": kind}),
                f"config: model_type {kind!r} 'llama'")  # fmt: skip
    code = {"AutoConfig": "configuration_x.X", "AutoModelForCausalLM": "modeling_x.XForCausalLM"}
    folder = checkpoints.write(tmp_path, {**LLAMA, "auto_map": code}, llama_tensors())
    with pytest.warns(UserWarning, match=r"auto_map names .*'modeling_x\.XForCausalLM'.* not run"):
        open_checkpoint(folder)
    with warnings.catch_warnings():  # BitNet 2B4T's folder has one, and 1bitLLM's model_type
        warnings.simplefilter("error")
        open_checkpoint(checkpoints.write(tmp_path, {**CONFIG, "auto_map": code}))
        del code["AutoModelForCausalLM"]
        llama = {**LLAMA, "auto_map": code}
        open_checkpoint(checkpoints.write(tmp_path, llama, llama_tensors()))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("adapter_config.json", "adapter --lora merge"),
        ("adapter_model.safetensors", "adapter --lora merge"),
        ("adapter_model.bin", "adapter --lora merge"),
        ("adapters.safetensors", "adapter --lora merge"),
        ("adapters.npz", "adapter --lora merge"),
        ("quantize_config.json", "GPTQ"),
        ("quant_config.json", "AWQ"),
        ("hf_quant_config.json", "ModelOpt"),
    ],
)
def test_a_file_next_to_the_model(tmp_path, name, words):
    """That changes it: refused, with the rest of the model or without, and next to a GGUF file."""
    folder = checkpoints.write(tmp_path / "x")
    (folder / name).write_bytes(b"{}")
    refused(folder, f"model: x {name} {words}")
    for file in ("model.safetensors", "config.json"):
        (folder / file).unlink()
    refused(folder, f"model: x {name} {words}")
    if "adapter" in words:
        gguf_files.write_gguf(folder / "a.gguf", gguf_files.random_values(gguf_files.LLAMA))
        refused(folder, f"model: x {name} {words}")


def test_a_file_and_shards(tmp_path):
    """One of both is read, as transformers does, and said."""
    folder = checkpoints.write_shards(tmp_path, checkpoints.tensors(), 2)
    values = {name: each * 2 for name, each in checkpoints.tensors().items()}
    checkpoints.write(folder, None, values)
    with pytest.warns(UserWarning, match=r"index\.json: the first is read"):
        found = open_checkpoint(folder).final_norm()
    assert cases.same_bits(found, values["model.norm.weight"])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("lm_head.bias", "no place"),
        ("score.weight", "no place"),
        ("lm_head.weight_scale", "no place"),
        ("model.embed_tokens.weight_scale", "no place"),
        ("model.norm.bias", "no place"),
        ("model.embed_positions.weight", "no place"),
        ("layers.0.self_attn.q_proj.weight", "no place"),
        ("_orig_mod.model.norm.weight", "no place"),
        ("base_model.model.model.layers.0.mlp.up_proj.lora_A.weight", "no place"),
        ("vision_tower.patch_embed.weight", "no place"),
        ("lm_head.qweight", "another quantisation"),
        ("model.embed_tokens.scales", "another quantisation"),
        ("model.layers.0.self_attn.q_proj.qzeros", "another quantisation"),
        ("model.layers.0.self_attn.q_proj.weight_scale_inv", "another quantisation"),
        ("model.layers.0.self_attn.q_proj.weight.absmax", "another quantisation"),
        ("model.layers.0.self_attn.q_proj.biases", "another quantisation"),
    ],
)
def test_a_tensor_that_would_be_left_out(tmp_path, name, words):
    """Wherever it is; what old versions of transformers wrote is not missed."""
    values = checkpoints.tensors() | {"model.rotary_emb.inv_freq": np.ones(5, np.float32)}
    open_checkpoint(checkpoints.write(tmp_path, None, values))
    values[name] = np.ones(3, np.float32)
    refused(checkpoints.write(tmp_path, None, values), f"checkpoint: {name} {words}")


@pytest.mark.parametrize("packed", [True, False])
def test_a_scale_that_nothing_declares(tmp_path, packed):
    """A folder that lost its quantization_config: not read as trits without their scale."""
    values, _ = checkpoints.quantized(np.random.default_rng(0), 0.5, packed)
    config = {k: v for k, v in CONFIG.items() if k != "quantization_config"}
    folder = checkpoints.write(tmp_path, config, values)
    refused(folder, "checkpoint: weight_scale quantization_config")


VALUES = gguf_files.random_values(gguf_files.BITNET)


def write_bitnet(tmp_path, vocabulary, base, activation=None, **metadata):
    """A file of the architecture "bitnet"."""
    config = replace(gguf_files.BITNET, vocabulary=vocabulary, rope_theta=base)
    values = replace(VALUES, embedding=np.ones((vocabulary, 256), np.float32))
    metadata = {"bitnet.hidden_activation": activation, **metadata}
    return gguf_files.write_gguf(
        tmp_path / "a.gguf", values, "bitnet", config=config, metadata=metadata
    )


@pytest.mark.parametrize(
    ("vocabulary", "base", "expected", "model"),
    [(128256, 5e5, "relu2", "BitNet b1.58 2B4T"), (32002, 1e4, "silu", "1bitLLM")],
)
def test_the_activation_of_published_models(tmp_path, vocabulary, base, expected, model):
    """llama.cpp's converter does not write it: taken from what the file is, and said."""
    path = write_bitnet(tmp_path, vocabulary, base)
    with pytest.warns(UserWarning, match=f"hidden_activation is missing: {expected} .* {model}"):
        assert Gguf(path).config.activation == expected
    other = {"silu": "relu2", "relu2": "silu"}[expected]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        path = write_bitnet(tmp_path, vocabulary, base, other)
        assert Gguf(path).config.activation == other


@pytest.mark.parametrize(("vocabulary", "base"), [(128256, 1e4), (32002, 5e5), (300, 1e4)])
def test_an_activation_that_no_file_names(tmp_path, vocabulary, base):
    """Neither is taken."""
    refused(write_bitnet(tmp_path, vocabulary, base),
            f"config: bitnet.hidden_activation missing 'relu2' {vocabulary} {base}")  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value", "neutral"),
    [
        ("attention.scale", 0.0078125, [0.125, 0.0]),
        ("logit_scale", 8.0, [1.0, 0.0]),
        ("embedding_scale", 12.0, [1.0, 0.0]),
        ("residual_scale", 0.22, [1.0, 0.0]),
        ("expert_count", 8, [0]),
        ("attention.sliding_window", 47, [0, 48, 4096]),
        ("attention.causal", False, [True]),
        ("pooling_type", 2, [0, 1, 3]),
        ("attn_logit_softcapping", 50.0, [0.0]),
        ("final_logit_softcapping", 30.0, [0.0]),
        ("attention.clamp_kqv", 8.0, [0.0]),
        ("attention.max_alibi_bias", 8.0, [0.0]),
        ("use_parallel_residual", True, [False]),
        ("attention.sliding_window", [0, 16], [[0, 0]]),
    ],
)
def test_metadata_that_change_the_computation(tmp_path, key, value, neutral):
    """As in config.json."""
    values = gguf_files.random_values(gguf_files.LLAMA)
    for each in [*neutral, value]:
        path = gguf_files.write_gguf(tmp_path / "a.gguf", values, metadata={f"llama.{key}": each})
        if each is value:
            refused(path, f"config: llama.{key} expected")
        else:
            assert Gguf(path).config == gguf_files.LLAMA


@pytest.mark.parametrize("kind", ["adapter", "mmproj", "imatrix", 3])
def test_gguf_files_that_are_no_model(tmp_path, kind):
    """An adapter has the architecture of its model."""
    values = gguf_files.random_values(gguf_files.LLAMA)
    metadata = {"general.type": kind}
    path = gguf_files.write_gguf(tmp_path / "a.gguf", values, metadata=metadata)
    refused(path, f"config: general.type {kind!r} 'model'")
    metadata = {"general.type": "model"}
    Model.from_pretrained(gguf_files.write_gguf(tmp_path / "a.gguf", values, metadata=metadata))
