"""Files of models with gated delta nets: folders, packed files and GGUF files, of one another."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ternops.decoder import Model, open_checkpoint, reference
from ternops.decoder.formats import convert
from ternops.decoder.formats.convert_gguf import convert_to_gguf
from ternops.decoder.formats.gguf import Gguf
from ternops.decoder.formats.hugging_face_config import read_config
from tests.helpers import cases, checkpoints, gguf_files
from tests.helpers.checkpoints import refused

CONFIG = {
    "architectures": ["Qwen3_5ForCausalLM"], "model_type": "qwen3_5_text", "hidden_act": "silu",
    "hidden_size": 24, "intermediate_size": 70, "num_hidden_layers": 3, "num_attention_heads": 3,
    "num_key_value_heads": 1, "head_dim": 16, "vocab_size": 33, "max_position_embeddings": 40,
    "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "eos_token_id": 1,
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "partial_rotary_factor": 0.25,
                        "mrope_section": [1, 1, 0], "mrope_interleaved": True},
    "linear_conv_kernel_dim": 4, "linear_num_key_heads": 2, "linear_num_value_heads": 6,
    "linear_key_head_dim": 8, "linear_value_head_dim": 8, "attn_output_gate": True,
    "full_attention_interval": 4, "mamba_ssm_dtype": "float32", "mtp_num_hidden_layers": 1,
}  # fmt: skip
TOKENS = [0, 32, 7, 7, 19, 2, 30, 1, 4, 4, 9, 8]
LAYER = "model.layers.{}."
SHARED = {"mlp.gate_proj": (70, 24), "mlp.up_proj": (70, 24), "mlp.down_proj": (24, 70),
          "input_layernorm": (24,), "post_attention_layernorm": (24,)}  # fmt: skip
DELTA = {
    "linear_attn.in_proj_qkv": (80, 24), "linear_attn.in_proj_z": (48, 24),
    "linear_attn.out_proj": (24, 48), "linear_attn.in_proj_a": (6, 24),
    "linear_attn.in_proj_b": (6, 24), "linear_attn.conv1d": (80, 1, 4), "linear_attn.norm": (8,),
}  # fmt: skip
ATTENTION = {
    "self_attn.q_proj": (96, 24), "self_attn.k_proj": (16, 24), "self_attn.v_proj": (16, 24),
    "self_attn.o_proj": (24, 48), "self_attn.q_norm": (16,), "self_attn.k_norm": (16,),
}  # fmt: skip
FLOATS = ("in_proj_a", "in_proj_b")


def tensors(dtype=np.float16):
    """Products of trits and a scale a matrix; what a delta net has besides, in floats."""
    random = np.random.default_rng(3)
    values = {name: random.standard_normal((33, 24)) for name in
              ("model.embed_tokens.weight", "lm_head.weight")}  # fmt: skip
    values["model.norm.weight"] = random.uniform(-0.5, 1, 24)
    for layer in range(3):
        prefix = LAYER.format(layer)
        for name, shape in {**SHARED, **(ATTENTION if layer == 1 else DELTA)}.items():
            if "_proj" in name and not name.endswith(FLOATS):
                scale = np.float16(random.uniform(0.1, 0.5))
                value = random.integers(-1, 2, shape) * scale
            else:
                value = random.standard_normal(shape) / 4
            values[f"{prefix}{name}.weight"] = value
        if layer != 1:
            values[f"{prefix}linear_attn.dt_bias"] = random.standard_normal(6)
            values[f"{prefix}linear_attn.A_log"] = random.standard_normal(6)
    return {name: value.astype(dtype) for name, value in values.items()}


def read(folder, *removed, **changes):
    raw = {key: each for key, each in {**CONFIG, **changes}.items() if key not in removed}
    return read_config(checkpoints.write(folder, raw))


def test_a_folder(tmp_path):
    """The oracle's bits; the same out of a packed file, and out of GGUF, where the value heads are
    in another order, and out of that again."""
    folder = checkpoints.write(tmp_path / "folder", CONFIG, tensors())
    model = Model.from_pretrained(folder, threads=2)
    logits = model.logits(TOKENS)
    assert logits.std() > 0.1
    assert cases.same_bits(logits, reference.logits(model, TOKENS))
    convert.convert(folder, tmp_path / "packed")
    packed = Model.from_pretrained(tmp_path / "packed", threads=1)
    assert packed.config == model.config
    assert cases.same_bits(packed.logits(TOKENS), logits)
    for source, target in ((folder, "a.gguf"), (tmp_path / "a.gguf", "b.gguf")):
        convert_to_gguf(source, tmp_path / target)
        moved = Model.from_pretrained(tmp_path / target, threads=1)
        assert moved.config.delta_tiled
        assert cases.same_bits(moved.logits(TOKENS), logits)
    a, b = (Gguf(tmp_path / name) for name in ("a.gguf", "b.gguf"))
    assert a.config == b.config
    assert not cases.same_bits(a.vector(0, "forget"), open_checkpoint(folder).vector(0, "forget"))
    assert cases.same_bits(a.vector(0, "forget"), b.vector(0, "forget"))
    convert.convert(tmp_path / "a.gguf", tmp_path / "packed again")
    again = Model.from_pretrained(tmp_path / "packed again", threads=1)
    assert cases.same_bits(again.logits(TOKENS), logits)


def test_what_a_folder_holds(tmp_path):
    """One is added to norms but those of heads behind a delta net; rates are exponentials."""
    values = tensors()
    checkpoint = open_checkpoint(checkpoints.write(tmp_path, CONFIG, values))
    wide = {name: each.astype(np.float32) for name, each in values.items()}
    prefix = LAYER.format(2)
    for place, name, more in (("input", "input_layernorm", 1), ("delta", "linear_attn.norm", 0)):
        right = wide[f"{prefix}{name}.weight"] + np.float32(more)
        assert cases.same_bits(checkpoint.norm(2, place), right)
    right = wide[f"{LAYER.format(1)}self_attn.q_norm.weight"] + np.float32(1)
    assert cases.same_bits(checkpoint.norm(1, "q"), right)
    assert np.allclose(checkpoint.vector(2, "forget_rate")[0],
                       np.exp(wide[f"{prefix}linear_attn.A_log"]))  # fmt: skip
    taps = wide[f"{prefix}linear_attn.conv1d.weight"]
    assert cases.same_bits(checkpoint.vector(2, "taps"), np.ascontiguousarray(taps[:, 0].T))
    for name, tensor in (("forget", "in_proj_a"), ("write", "in_proj_b")):
        right = wide[f"{prefix}linear_attn.{tensor}.weight"]
        assert cases.same_bits(checkpoint.vector(2, name), right)


def test_the_numbers(tmp_path):
    """Those that a folder says, and what its program takes where it does not."""
    config = read(tmp_path)
    assert config.delta_layers == (1, 0, 1)
    assert (config.delta_heads, config.delta_key_heads, config.delta_tiled) == (6, 2, False)
    assert (config.delta_key_dim, config.delta_value_dim) == (8, 8)
    assert (config.head_dim, config.rotary_dim, config.rope_theta) == (16, 4, 1e6)
    names = [name for name in CONFIG if name.startswith("linear_")]
    usual = read(
        tmp_path, *names, "layer_types", "head_dim", "rope_parameters", "hidden_act",
        "max_position_embeddings", num_hidden_layers=9,
    )  # fmt: skip
    assert usual.delta_layers == (1, 1, 1, 0, 1, 1, 1, 0, 1)
    assert (usual.delta_heads, usual.delta_key_heads) == (32, 16)
    assert (usual.delta_key_dim, usual.delta_value_dim) == (128, 128)
    assert (usual.head_dim, usual.rotary_dim, usual.context) == (256, 64, 32768)
    assert read(tmp_path, "layer_types", full_attention_interval=2).delta_layers == (1, 0, 1)
    assert read(tmp_path, "rope_parameters", partial_rotary_factor=0.5).rotary_dim == 8
    assert read(tmp_path, "rope_parameters", partial_rotary_factor=1).rotary_dim == 0
    none = read(tmp_path, layer_types=["full_attention"] * 3)
    assert (none.delta_layers, none.delta_heads) == ((), 0)


def test_yarn_of_the_part_that_is_rotated(tmp_path):
    rope = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 10,
            "rope_theta": 1e4, "partial_rotary_factor": 0.5}  # fmt: skip
    config = read(tmp_path, rope_parameters=rope)
    assert (config.rotary_dim, len(config.rope_factors)) == (8, 4)
    assert config.rope_scale == 0.1 * math.log(4) + 1


def test_a_folder_of_a_model_that_sees(tmp_path):
    """What it says of text, under names of its own; heads that guess tokens are left out."""
    values = {
        name.replace("model.", "model.language_model."): each for name, each in tensors().items()
    }
    values["model.visual.patch_embed.proj.weight"] = np.ones(3, np.float16)
    values["mtp.layers.0.mlp.up_proj.weight"] = np.ones(3, np.float16)
    raw = {
        "architectures": ["Qwen3_5ForConditionalGeneration"], "model_type": "qwen3_5",
        "text_config": {key: CONFIG[key] for key in CONFIG if key != "architectures"},
        "vision_config": {"hidden_size": 3}, "tie_word_embeddings": False,
    }  # fmt: skip
    folder = checkpoints.write(tmp_path / "sees", raw, values)
    text = checkpoints.write(tmp_path / "text", CONFIG, tensors())
    models = [Model.from_pretrained(each, threads=1) for each in (folder, text)]
    assert models[0].config == models[1].config
    assert cases.same_bits(*(each.logits(TOKENS) for each in models))
    del raw["text_config"]
    refused(checkpoints.write(tmp_path / "sees", raw, values), "config: model_type 'qwen3_5' text")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"layer_types": ["full_attention"]}, "layer_types each of the 3 layers"),
        ({"layer_types": ["full_attention", "mamba", "mamba"]}, "layer_types 'mamba' linear"),
        ({"layer_types": None, "full_attention_interval": 0}, "full_attention_interval 0 from 1"),
        ({"hidden_act": "gelu_pytorch_tanh"}, "hidden_act 'gelu_pytorch_tanh' silu"),
        ({"linear_conv_kernel_dim": 3}, "linear_conv_kernel_dim 3 expected 4"),
        ({"linear_num_value_heads": "6"}, "delta_heads '6' expected 1"),
        ({"linear_num_value_heads": 5}, "5 delta_heads multiple of the 2"),
        ({"linear_key_head_dim": 0}, "delta_key_dim 0 expected 1"),
        ({"rope_parameters": {"partial_rotary_factor": 1.5}}, "partial_rotary_factor 1.5 up to 1"),
        ({"rope_parameters": {"partial_rotary_factor": 0.2}}, "partial_rotary_factor 0.2 even"),
        ({"rope_parameters": {"partial_rotary_factor": "1"}}, "partial_rotary_factor '1' up to 1"),
        ({"rope_parameters": {"mrope_sections": [1]}}, "rope mrope_sections"),
        ({"attn_output_gate": False}, "attn_output_gate False True"),
        ({"num_experts": 8}, "num_experts 8"),
        ({"model_type": "qwen3_5_moe_text"}, "model_type qwen3_5_moe_text qwen3_5_text"),
        ({"architectures": ["Qwen3NextForCausalLM"]}, "architectures Qwen3NextForCausalLM"),
    ],
)
def test_a_config_of_another_model(tmp_path, changes, words):
    """Is refused in one line, naming the setting."""
    refused(checkpoints.write(tmp_path, {**CONFIG, **changes}, tensors()), f"config: {words}")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("linear_attn.conv1d.weight", None, "conv1d.weight missing"),
        ("linear_attn.conv1d.weight", np.ones((80, 4, 1)), "conv1d (80, 4, 1) (80, 1, 4)"),
        ("linear_attn.conv1d.bias", np.ones(80), "conv1d.bias place"),
        ("linear_attn.A_log", np.ones(5), "A_log (5,) (6,)"),
        ("linear_attn.A_log", np.full(6, 100), "A_log exponent exceeds float32"),
        ("linear_attn.A_log", np.full(6, -110), "A_log exponent exceeds float32"),
        ("linear_attn.dt_bias", np.full(6, np.nan), "dt_bias NaN"),
        ("linear_attn.in_proj_a.weight", np.ones((6, 23)), "in_proj_a (6, 23) (6, 24)"),
        ("self_attn.o_proj.weight", np.ones((24, 48)), "o_proj place"),
    ],
)
def test_tensors_of_another_model(tmp_path, name, value, words):
    """Missing ones, those of another shape, and those of the other kind of layer."""
    values = {**tensors(), f"{LAYER.format(2)}{name}": value}
    if value is None:
        del values[f"{LAYER.format(2)}{name}"]
    else:
        values[f"{LAYER.format(2)}{name}"] = value.astype(np.float32)
    refused(checkpoints.write(tmp_path, CONFIG, values), f"checkpoint: {words}")


def gguf(tmp_path, metadata=None, tensors=None, **settings):
    values = gguf_files.random_values(gguf_files.QWEN35)
    metadata = {f"qwen35.{key}": each for key, each in (metadata or {}).items()}
    return gguf_files.write_gguf(
        tmp_path / "a.gguf", values, "qwen35", metadata=metadata, tensors=tensors, **settings
    )


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"ssm.conv_kernel": 3}, "ssm.conv_kernel 3 expected 4"),
        ({"ssm.conv_kernel": None}, "ssm.conv_kernel missing"),
        ({"ssm.inner_size": 255}, "ssm.inner_size 255 4 heads of 64"),
        ({"ssm.group_count": 3}, "4 delta_heads multiple of the 3"),
        ({"full_attention_interval": 0}, "full_attention_interval 0 1 or more"),
        ({"rope.dimension_sections": [3, 3, 1, 1]}, "rope.dimension_sections [3, 3, 1, 1] 16"),
        ({"rope.dimension_sections": 8}, "rope.dimension_sections 8 list of numbers"),
        ({"rope.dimension_count": 15}, "rope.dimension_sections"),
        ({"attention.recurrent_layers": [1, 1]}, "2 delta_layers each of the 4"),
        ({"attention.recurrent_layers": [1, 1, 2, 0]}, "delta_layers (1, 1, 2, 0) 0 or 1"),
        ({"expert_count": 8}, "expert_count 8"),
    ],
)
def test_metadata_of_another_model(tmp_path, metadata, words):
    """Are refused in one line, naming the key."""
    refused(gguf(tmp_path, metadata), f"config: {words}")


def test_tensors_of_gguf(tmp_path):
    """Rates are negative there; layers that guess tokens ahead are left out."""
    refused(gguf(tmp_path, tensors={"blk.1.ssm_a": np.array([-1, -1, 0, -1], np.float32)}),
            "checkpoint: blk.1.ssm_a 0 negative")  # fmt: skip
    refused(gguf(tmp_path, tensors={"blk.3.ssm_a": -np.ones(4, np.float32)}), "model: blk.3.ssm_a")
    plain = Gguf(gguf(tmp_path)).config
    ahead = {"blk.4.nextn.eh_proj.weight": np.ones((2, 2), np.float32)}
    refused(gguf(tmp_path, tensors=ahead), "model: blk.4.nextn.eh_proj.weight")
    path = gguf(tmp_path, {"block_count": 5, "nextn_predict_layers": 1}, ahead)
    assert Gguf(path).config == plain
    layers = [1, 1, 1, 0]
    assert Gguf(gguf(tmp_path, {"attention.recurrent_layers": layers})).config == plain


@pytest.mark.parametrize(("size", "moves"), [(64, True), (16, False)])
def test_heads_that_share_scales(tmp_path, size, moves):
    """Heads cannot change places where inputs of two of them share a scale."""
    config = {**CONFIG, "hidden_size": 64, "intermediate_size": 64, "head_dim": 32,
              "num_attention_heads": 2, "linear_key_head_dim": size, "linear_num_value_heads": 4,
              "linear_value_head_dim": size}  # fmt: skip
    folder = checkpoints.write(tmp_path / "folder", config)
    shapes = read_config(folder)
    random, values = np.random.default_rng(5), {}
    form = shapes.trunk.hugging_face[0]
    for layer in range(3):
        for name, (rows, columns) in shapes.linear_shapes(layer).items():
            scale = random.uniform(0.5, 1, (rows, columns // 32, 1)).astype(np.float16) / 8
            trits = random.integers(-1, 2, (rows, columns // 32, 32))
            values[form.matrix(layer, name)] = (scale * trits).reshape(rows, columns)
        for name, count in shapes.norm_sizes(layer).items():
            values[form.norm(layer, name)[0]] = random.standard_normal(count) / 4
        for name, (rows, columns) in shapes.vector_shapes(layer).items():
            shape = {"taps": (columns, 1, rows)}.get(name, (rows, columns)[rows == 1 :])
            values[form.vector(layer, name)] = random.standard_normal(shape) / 4
    for name in (form.embedding, form.head):
        values[name] = random.standard_normal((33, 64))
    values[form.final_norm] = random.standard_normal(64) / 4
    values = {name: each.astype(np.float16) for name, each in values.items()}
    checkpoints.write(folder, config, values)
    first = Model.from_pretrained(folder, threads=1)
    assert {each.group for each in first.types} == {32}
    if not moves:
        with pytest.raises(ValueError, match=r"^checkpoint: out has scales of 2 groups, expected "):
            convert_to_gguf(folder, tmp_path / "a.gguf")
        return
    convert_to_gguf(folder, tmp_path / "a.gguf")
    found = Model.from_pretrained(tmp_path / "a.gguf", threads=1).logits(TOKENS)
    # Sums of groups are added in another order.
    assert np.abs(found - first.logits(TOKENS)).max() < 0.2
    right = reference.logits(first, TOKENS, reference.Unquantised)
    exact = reference.logits(
        Model.from_pretrained(tmp_path / "a.gguf"), TOKENS, reference.Unquantised
    )
    assert np.abs(exact - right).max() < 1e-9
