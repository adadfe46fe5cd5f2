"""Folders of Qwen2, Gemma 3 and MiniCPM, and norms within linear layers: what config.json and the
tensors may say. What they compute is compared with transformers in `tests/peers`."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

from ternops.decoder import Model, open_checkpoint, reference
from ternops.decoder.formats import convert
from ternops.decoder.formats.hugging_face_config import read_config
from tests.helpers import cases, checkpoints
from tests.helpers.checkpoints import refused

PLAIN = {
    **{key: value for key, value in checkpoints.CONFIG.items() if key != "quantization_config"},
    "hidden_act": "silu",
}
QWEN2 = {**PLAIN, "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"}
QWEN3 = {**PLAIN, "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"}
GEMMA3 = {
    **{key: value for key, value in PLAIN.items() if key not in ("hidden_act", "rope_theta")},
    "architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "num_hidden_layers": 2,
    "layer_types": ["sliding_attention", "full_attention"], "sliding_window": 7,
    "query_pre_attn_scalar": 30,
}  # fmt: skip
MINICPM = {
    **PLAIN, "architectures": ["MiniCPMForCausalLM"], "model_type": "minicpm", "scale_emb": 12,
    "scale_depth": 1.4, "dim_model_base": 8,
}  # fmt: skip
CONFIGS = {"qwen2": QWEN2, "qwen3": QWEN3, "gemma3": GEMMA3, "minicpm": MINICPM}
TOKENS = [0, 32, 7, 7, 19, 2, 30, 1, 4, 4, 9, 8]
LAYER = "model.layers.{}."


def tensors(trunk, inner=None):
    """Products of trits and a scale a matrix; inner: what norms within linear layers are called."""
    random, values = np.random.default_rng(3), {}

    def vector(size):
        return random.uniform(0.5, 2, size).astype(np.float16)

    for name, each in checkpoints.tensors().items():
        if "_proj" in name:
            scale = np.float16(random.uniform(0.1, 1))
            values[name] = (random.integers(-1, 2, each.shape) * scale).astype(np.float16)
            if inner:
                values[name.replace("weight", f"{inner}.weight")] = vector(each.shape[1])
            if trunk == "qwen2" and name.split(".")[-2] in ("q_proj", "k_proj", "v_proj"):
                values[name.replace("weight", "bias")] = vector(len(each)) - np.float16(1)
        elif "sub_norm" not in name:
            values[name] = each.astype(np.float16)
    for layer in range(2):
        names = {"qwen3": ("q", "k"), "gemma3": ("q", "k")}.get(trunk, ())
        for name in names:
            values[f"{LAYER.format(layer)}self_attn.{name}_norm.weight"] = vector(10)
        if trunk == "gemma3":
            for name in ("pre_feedforward_layernorm", "post_feedforward_layernorm"):
                values[f"{LAYER.format(layer)}{name}.weight"] = vector(24)
    return values


def check(folder, threads=2):
    """The oracle's bits; the same out of a packed file. Gives the model."""
    model = Model.from_pretrained(folder, threads=threads)
    logits = model.logits(TOKENS)
    assert np.isfinite(logits).all()
    assert cases.same_bits(logits, reference.logits(model, TOKENS))
    convert.convert(folder, folder / "packed")
    packed = Model.from_pretrained(folder / "packed", threads=1)
    assert packed.config == model.config
    assert cases.same_bits(packed.logits(TOKENS), logits)
    return model


@pytest.mark.parametrize("trunk", CONFIGS)
@pytest.mark.parametrize("prefixed", [True, False])
def test_a_folder(tmp_path, trunk, prefixed):
    """With names of either kind the same model."""
    values = tensors(trunk)
    if not prefixed:
        values = {name.removeprefix("model."): each for name, each in values.items()}
    model = check(checkpoints.write(tmp_path, CONFIGS[trunk], values))
    assert model.config.architecture == trunk
    assert not model.config.tied
    for layer, weights in enumerate(model.weights.layers):
        assert set(weights.norms) == set(model.config.trunk.norms)
        assert set(weights.biases) == ({"q", "k", "v"} if trunk == "qwen2" else set())
        for name, bias in weights.biases.items():
            stem = LAYER.format(layer) if prefixed else f"layers.{layer}."
            right = values[f"{stem}self_attn.{name}_proj.bias"]
            assert cases.same_bits(bias, right.astype(np.float32))


def test_the_norms_of_gemma(tmp_path):
    """One is added to each weight; post_attention_layernorm is of what attention gives."""
    values = tensors("gemma3")
    model = Model.from_pretrained(checkpoints.write(tmp_path, GEMMA3, values))
    for place, name in (
        ("input", "input_layernorm"), ("o_output", "post_attention_layernorm"),
        ("post", "pre_feedforward_layernorm"), ("down_output", "post_feedforward_layernorm"),
        ("q", "self_attn.q_norm"), ("k", "self_attn.k_norm"),
    ):  # fmt: skip
        right = values[f"{LAYER.format(1)}{name}.weight"].astype(np.float32) + 1
        assert cases.same_bits(model.weights.layers[1].norms[place], right)
    assert cases.same_bits(model.weights.norm, values["model.norm.weight"].astype(np.float32) + 1)


def test_the_numbers_of_gemma(tmp_path):
    """Of transformers 5, those of 4, and its defaults."""

    def read(**changes):
        raw = {key: value for key, value in {**GEMMA3, **changes}.items() if value is not None}
        return read_config(checkpoints.write(tmp_path, raw))

    config = read()
    assert config.activation == "gelu_tanh"
    assert (config.windows, config.query_scalar) == ((7, 0), 30.0)
    assert (config.rope_theta, config.rope_local_theta) == (1e6, 1e4)
    assert config.embedding_scale == math.sqrt(24)
    assert config == read(hidden_activation="gelu_pytorch_tanh", final_logit_softcapping=None)
    defaults = read(
        layer_types=None, sliding_window=None, query_pre_attn_scalar=None, head_dim=None,
        max_position_embeddings=None, tie_word_embeddings=None, num_hidden_layers=7,
    )  # fmt: skip
    assert defaults.windows == (4096,) * 5 + (0, 4096)
    assert (defaults.query_scalar, defaults.head_dim, defaults.context) == (256.0, 256, 131072)
    assert defaults.tied
    assert read(layer_types=None, sliding_window_pattern=2).windows == (7, 0)
    old = read(rope_theta=5e5, rope_local_base_freq=300.0,
               rope_scaling={"rope_type": "linear", "factor": 8.0})  # fmt: skip
    new = read(rope_parameters={
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 5e5},
        "sliding_attention": {"rope_type": "default", "rope_theta": 300.0}})  # fmt: skip
    assert old == new
    assert (old.rope_theta, old.rope_local_theta) == (5e5, 300.0)
    assert cases.same_bits(8 * old.rope_angles(), read(rope_theta=5e5).rope_angles())
    assert cases.same_bits(old.rope_angles(local=True)[:, 1:2], np.arange(40)[:, None] / 300**0.2)


def test_the_windows_of_qwen(tmp_path):
    """Of the layers from max_window_layers on, or as listed, if use_sliding_window says so."""

    def windows(config=QWEN2, **changes):
        return read_config(checkpoints.write(tmp_path, {**config, **changes})).windows

    on = {"use_sliding_window": True, "sliding_window": 9}
    assert windows() == windows(sliding_window=9, max_window_layers=0) == ()
    assert windows(**on) == ()
    assert windows(**on, max_window_layers=1) == windows(QWEN3, **on, max_window_layers=1) == (0, 9)
    assert windows(use_sliding_window=True, max_window_layers=0) == (4096, 4096)
    assert windows(use_sliding_window=True, sliding_window=None, max_window_layers=0) == ()
    assert windows(**on, layer_types=["sliding_attention", "full_attention"]) == (9, 0)
    assert windows(layer_types=["full_attention"] * 2) == ()


def test_the_scales_of_minicpm(tmp_path):
    """And what its program takes without them; its own program is no surprise, another one is."""

    def read(*removed, **changes):
        raw = {key: value for key, value in {**MINICPM, **changes}.items() if key not in removed}
        return read_config(checkpoints.write(tmp_path, raw))

    code = {"AutoModelForCausalLM": "modeling_minicpm.MiniCPMForCausalLM"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config = read(auto_map=code)
        code["AutoModelForCausalLM"] = "openbmb/X--modeling_minicpm.MiniCPMForCausalLM"
        assert read(auto_map=code) == config
    assert read(use_mup=True) == config
    assert config.embedding_scale == 12.0
    assert config.residual_scale == 1.4 / math.sqrt(2)
    assert config.logit_scale == 8 / 24
    plain = read("scale_emb", "scale_depth", "dim_model_base", "tie_word_embeddings", "hidden_act")
    assert (plain.embedding_scale, plain.residual_scale) == (1.0, 1 / math.sqrt(2))
    assert (plain.logit_scale, plain.tied, plain.activation) == (1 / 24, True, "silu")
    with pytest.warns(UserWarning, match="auto_map names .*modeling_other"):
        read(auto_map={"AutoModelForCausalLM": "modeling_other.MiniCPMForCausalLM"})


@pytest.mark.parametrize("trunk", CONFIGS)
@pytest.mark.parametrize("inner", ["norm", "rms_norm"])
def test_norms_within_linear_layers(tmp_path, trunk, inner):
    """Found by their names where nothing says so, with the model's epsilon; the floats of such a
    BitNet are masters if they are no products."""
    values = tensors(trunk, inner)
    first = f"{LAYER.format(0)}self_attn.o_proj.weight"
    values[first] = checkpoints.tensors()[first].astype(np.float16)
    folder = checkpoints.write(tmp_path, CONFIGS[trunk], values)
    model = check(folder)
    assert model.config.inner_norms
    assert model.config.inner_epsilon == model.config.epsilon == 1e-5
    for layer, weights in enumerate(model.weights.layers):
        for place, name in (("q", "self_attn.q_proj"), ("down", "mlp.down_proj")):
            right = values[f"{LAYER.format(layer)}{name}.{inner}.weight"].astype(np.float32)
            assert cases.same_bits(weights.norms[f"{place}_input"], right)
    assert open_checkpoint(folder).trits(0, "o")[1].shape == ()


def test_use_rms_norm(tmp_path):
    """Has an epsilon of its own."""
    settings = {"quant_method": "bitnet", "linear_class": "autobitlinear",
                "quantization_mode": "online"}  # fmt: skip
    says = {**QWEN3, "quantization_config": {**settings, "use_rms_norm": True}}
    values = tensors("qwen3", "rms_norm")
    assert check(checkpoints.write(tmp_path, says, values)).config.inner_epsilon == 1e-6
    says["quantization_config"]["rms_norm_eps"] = 1e-3
    assert check(checkpoints.write(tmp_path, says, values)).config.inner_epsilon == 1e-3


def test_use_rms_norm_and_the_tensors(tmp_path):
    """That do not agree with it."""
    settings = {"quant_method": "bitnet", "linear_class": "autobitlinear",
                "quantization_mode": "online", "use_rms_norm": True}  # fmt: skip
    config = {**QWEN3, "quantization_config": settings}
    values = tensors("qwen3", "rms_norm")
    del values[f"{LAYER.format(1)}mlp.up_proj.rms_norm.weight"]
    refused(checkpoints.write(tmp_path, config, values), "layers.1.mlp.up_proj.rms_norm missing")
    refused(checkpoints.write(tmp_path, config, tensors("qwen3")), "q_proj.rms_norm missing")
    values = tensors("qwen3", "rms_norm")
    settings["use_rms_norm"] = False
    refused(checkpoints.write(tmp_path, config, values), "rms_norm.weight no place")
    settings |= {"use_rms_norm": True, "rms_norm_eps": 0}
    refused(checkpoints.write(tmp_path, config, values), "config: inner_epsilon 0 positive")


@pytest.mark.parametrize("trunk", ["qwen2", "qwen3", "gemma3"])
def test_a_program_without_a_head(tmp_path, trunk):
    """It has no other than its embedding, whatever config.json says of that."""
    name = {"qwen2": "Qwen2Model", "qwen3": "Qwen3Model", "gemma3": "Gemma3TextModel"}[trunk]
    values = {key.removeprefix("model."): each for key, each in tensors(trunk).items()}
    del values["lm_head.weight"]
    config = {**CONFIGS[trunk], "architectures": [name], "tie_word_embeddings": False}
    model = check(checkpoints.write(tmp_path, config, values))
    assert model.config.tied
    assert model.weights.head is model.weights.embedding


@pytest.mark.parametrize(
    ("trunk", "changes", "words"),
    [
        ("gemma3", {"hidden_activation": "gelu"}, "hidden_activation 'gelu' gelu_new"),
        ("gemma3", {"final_logit_softcapping": 30.0}, "final_logit_softcapping 30.0"),
        ("gemma3", {"use_bidirectional_attention": True}, "use_bidirectional_attention True"),
        ("gemma3", {"sliding_window": None}, "sliding_window None number from 1 on"),
        ("gemma3", {"sliding_window": 0}, "sliding_window 0"),
        ("gemma3", {"sliding_window": "7"}, "sliding_window '7'"),
        ("gemma3", {"layer_types": ["full_attention"]}, "layer_types each of the 2 layers"),
        ("gemma3", {"layer_types": "full"}, "layer_types 'full' each"),
        ("gemma3", {"layer_types": ["full_attention", "mamba"]}, "layer_types 'mamba' expected"),
        ("gemma3", {"layer_types": None, "sliding_window_pattern": 0}, "sliding_window_pattern 0"),
        ("gemma3", {"query_pre_attn_scalar": -1}, "query_pre_attn_scalar -1 positive"),
        ("gemma3", {"rope_local_base_freq": 0}, "rope_theta 0 positive"),
        ("gemma3", {"rope_parameters": {"rope_type": "default"}},
         "rope_parameters 'rope_type' 'sliding_attention'"),
        ("gemma3", {"rope_parameters": {"sliding_attention": {"type": "linear", "factor": 2}}},
         "rope 'sliding_attention' 'default'"),
        ("gemma3", {"rope_parameters": {"full_attention": 3}}, "full_attention 3 object"),
        ("gemma3", {"model_type": "gemma3"}, "model_type 'gemma3' 'gemma3_text'"),
        ("gemma3", {"attention_bias": True}, "attention_bias True"),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": "1"},
         "max_window_layers '1'"),
        ("qwen2", {"mlp_bias": True}, "mlp_bias True"),
        ("minicpm", {"scale_emb": 0}, "scale_emb 0 positive"),
        ("minicpm", {"scale_depth": "1.4"}, "scale_depth '1.4' positive"),
        ("minicpm", {"dim_model_base": -8}, "dim_model_base -8 positive"),
        ("minicpm", {"num_experts": 8}, "num_experts 8"),
        ("minicpm", {"use_mup": False}, "use_mup False True"),
        ("minicpm", {"attention_bias": True}, "attention_bias True"),
        ("qwen3", {"scale_emb": 12}, "scale_emb 12 expected 1"),
        ("qwen3", {"query_pre_attn_scalar": 256}, "query_pre_attn_scalar 256 expected 10"),
        ("qwen3", {"architectures": ["Gemma2ForCausalLM"]}, "architectures Gemma3ForCausalLM"),
    ],
)  # fmt: skip
def test_a_config_of_another_model(tmp_path, trunk, changes, words):
    """Is refused in one line, naming the setting."""
    config = {**CONFIGS[trunk], **changes}
    refused(checkpoints.write(tmp_path, config, tensors(trunk)), f"config: {words}")


@pytest.mark.parametrize(
    ("trunk", "name", "value", "words"),
    [
        ("qwen2", "self_attn.q_proj.bias", None, "q_proj.bias missing"),
        ("qwen2", "self_attn.k_proj.bias", np.ones(9, np.float16), "k_proj.bias (9,) (10,)"),
        ("qwen2", "self_attn.v_proj.bias", np.full(10, np.nan, np.float16), "v_proj.bias NaN"),
        ("qwen2", "self_attn.o_proj.bias", np.ones(24, np.float16), "o_proj.bias place q, k, v"),
        ("qwen3", "self_attn.q_proj.bias", np.ones(30, np.float16), "q_proj.bias place no biases"),
        ("qwen3", "self_attn.q_proj.norm.bias", np.ones(24, np.float16), "norm.bias place"),
        ("gemma3", "post_feedforward_layernorm.weight", None, "post_feedforward missing"),
        ("gemma3", "pre_feedforward_layernorm.weight", np.ones(9, np.float16), "pre (9,) (24,)"),
        ("minicpm", "self_attn.q_norm.weight", np.ones(10, np.float16), "q_norm place"),
    ],
)
def test_tensors_of_another_model(tmp_path, trunk, name, value, words):
    """Missing ones, those of another shape, and those that would be left out."""
    values = {**tensors(trunk), f"{LAYER.format(1)}{name}": value}
    if value is None:
        del values[f"{LAYER.format(1)}{name}"]
    refused(checkpoints.write(tmp_path, CONFIGS[trunk], values), f"checkpoint: {words}")


def test_yarn(tmp_path):
    """By hand, from the paper's formulas: fast pairs are kept, slow ones stretched."""
    rope = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096,
            "rope_theta": 1e6}  # fmt: skip
    raw = {**QWEN3, "head_dim": 128, "rope_parameters": rope}
    config = read_config(checkpoints.write(tmp_path, raw))
    turns = 4096 * 1e6 ** (-np.arange(0, 128, 2) / 128) / (2 * np.pi)
    factors = np.array(config.rope_factors)
    assert (factors[turns > 40] == 1).all()
    assert (factors[turns < 0.9] == 4).all()
    assert (np.diff(factors) >= 0).all()
    assert len(np.unique(factors)) > 10
    assert config.rope_scale == 0.1 * math.log(4) + 1
    other = {**rope, "attention_factor": 1.5, "factor": None}
    config = read_config(checkpoints.write(tmp_path, {**raw, "rope_parameters": other}))
    assert config.rope_scale == 1.5
    # Without a factor: of the context, 40 here, and the original one.
    assert min(config.rope_factors) == 40 / 4096
    # What divides lies between two pairs without truncate, which null leaves out as false does.
    rounded, exact, null = (
        read_config(checkpoints.write(tmp_path, {**raw, "rope_parameters": {**rope, **says}}))
        for says in ({}, {"truncate": False}, {"truncate": None})
    )
    assert null == exact != rounded
    same = {**rope, "mscale": 0.7, "mscale_all_dim": 0.7}
    config = read_config(checkpoints.write(tmp_path, {**raw, "rope_parameters": same}))
    assert config.rope_scale == 1


def test_longrope(tmp_path):
    """A list for a short and one for a long context; the packed file keeps both."""
    rope = {"rope_type": "longrope", "short_factor": [1.0, 1, 1, 1, 2], "rope_theta": 1e4,
            "long_factor": [4.0] * 5, "original_max_position_embeddings": 10}  # fmt: skip
    folder = checkpoints.write(tmp_path, {**MINICPM, "rope_scaling": rope}, tensors("minicpm"))
    model = check(folder)
    c = model.config
    assert (c.rope_factors, c.rope_long_factors) == ((1, 1, 1, 1, 2), (4,) * 5)
    assert c.rope_scale == math.sqrt(1 + math.log(4) / math.log(10))
    short = Model.from_pretrained(folder, context=10, threads=1)
    assert not cases.same_bits(short.logits(TOKENS[:10]), model.logits(TOKENS[:10]))
    assert cases.same_bits(4 * c.rope_angles()[:10, :4], short.config.rope_angles()[:, :4])
