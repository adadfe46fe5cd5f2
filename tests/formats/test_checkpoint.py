"""Hugging Face folders are read exactly; damaged and foreign ones are refused in one line."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from ternops.absmean import absmean
from ternops.decoder import Model, reference
from ternops.decoder.config import Config
from ternops.decoder.formats.hugging_face_config import read_config
from ternops.decoder.formats.loading import TINY, open_checkpoint
from ternops.decoder.formats.tensors import Tensors
from ternops.decoder.text import load_tokenizer
from tests.helpers import cases, checkpoints
from tests.helpers.checkpoints import refused

TOKENS = [0, 32, 7, 7, 19, 2]


def test_the_numbers_of_a_config(tmp_path):
    """Every field of config.json arrives in Config."""
    config = read_config(checkpoints.write(tmp_path))
    assert config == Config(
        hidden=24, ffn=70, layers=2, heads=3, kv_heads=1, head_dim=10, vocabulary=33, context=40,
        activation="relu2", architecture="bitnet", tied=False, rope_theta=10000.0, epsilon=1e-5,
        eos=(1,),
    )  # fmt: skip


def test_what_a_config_may_leave_out(tmp_path):
    """head_dim, key/value heads, theta, epsilon, end token and tying have their usual defaults."""
    kept = ("hidden_act", "hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size",
            "num_attention_heads", "max_position_embeddings")  # fmt: skip
    raw = {key: checkpoints.CONFIG[key] for key in kept} | {"architectures": ["LlamaForCausalLM"]}
    config = read_config(checkpoints.write(tmp_path, raw))
    assert (config.head_dim, config.kv_heads, config.eos, config.tied) == (8, 3, (), False)
    assert (config.rope_theta, config.epsilon, config.architecture) == (10000.0, 1e-6, "llama")
    raw |= {"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}, "eos_token_id": [3, 4]}
    config = read_config(checkpoints.write(tmp_path, raw))
    assert (config.rope_theta, config.eos) == (5e5, (3, 4))


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("architectures", None, "config: architectures BitNetForCausalLM"),
        ("architectures", "LlamaForCausalLM", "config: architectures"),
        ("architectures", [], "config: architectures"),
        ("architectures", [1], "config: architectures"),
        ("architectures", [["LlamaForCausalLM"]], "config: architectures"),
        ("architectures", ["GPT2LMHeadModel"], "config: architectures GPT2LMHeadModel"),
        ("attention_bias", True, "config: bias"),
        ("mlp_bias", True, "config: bias"),
        ("hidden_act", "gelu", "config: hidden_act gelu silu"),
        ("hidden_act", ["silu"], "config: hidden_act"),
        ("hidden_size", 0, "config: hidden 0"),
        ("hidden_size", -24, "config: hidden -24"),
        ("hidden_size", "24", "config: hidden '24'"),
        ("hidden_size", 24.0, "config: hidden 24.0"),
        ("hidden_size", None, "config: hidden None"),
        ("hidden_size", 2**24, "config: hidden 16777216"),
        ("intermediate_size", True, "config: ffn True"),
        ("num_hidden_layers", 0, "config: layers 0"),
        ("num_hidden_layers", 10**12, "config: layers 4096"),
        ("architectures", ["x" * 5000], "config: architectures xxx...xxx"),
        ("num_attention_heads", 0, "config: heads 0"),
        ("num_attention_heads", "3", "config: heads '3'"),
        ("num_key_value_heads", 2, "config: 3 heads 2"),
        ("num_key_value_heads", "1", "config: kv_heads '1'"),
        ("num_key_value_heads", -1, "config: kv_heads -1"),
        ("head_dim", 9, "config: head_dim 9 even"),
        ("head_dim", 0, "config: head_dim 0"),
        ("head_dim", 2**24 - 2, "config: head_dim 65536"),
        ("vocab_size", [], "config: vocabulary []"),
        ("max_position_embeddings", 0, "config: context 0"),
        ("rms_norm_eps", 0, "config: epsilon 0"),
        ("rms_norm_eps", None, "config: epsilon None"),
        ("rms_norm_eps", float("nan"), "config: epsilon nan"),
        ("rope_theta", -1.0, "config: rope_theta -1.0"),
        ("rope_theta", "big", "config: rope_theta 'big'"),
        ("rope_theta", float("inf"), "config: rope_theta inf"),
        ("rope_scaling", {"type": "dynamic", "factor": 2}, "config: rope dynamic linear"),
        ("rope_scaling", "linear", "config: rope_scaling linear"),
        ("rope_parameters", {"rope_type": "dynamic"}, "config: rope dynamic"),
        ("rope_parameters", [], "config: rope_parameters []"),
        ("eos_token_id", "1", "config: eos_token_id '1'"),
        ("eos_token_id", [1, None], "config: eos_token_id"),
        ("quantization_config", {"quant_method": "gptq"}, "config: gptq bitnet"),
        ("quantization_config", "bitnet", "config: quantization_config"),
    ],
)  # fmt: skip
def test_a_bad_setting_is_named(tmp_path, key, value, words):
    """Each with its name and value."""
    refused(checkpoints.write(tmp_path, {**checkpoints.CONFIG, key: value}), words)


@pytest.mark.parametrize(
    "key", [k for k in checkpoints.CONFIG if k.startswith(("hidden_", "inter", "num_h", "num_at"))]
    + ["vocab_size", "max_position_embeddings"],
)  # fmt: skip
def test_a_missing_setting_is_named(tmp_path, key):
    """One line that names the key of config.json."""
    config = {k: v for k, v in checkpoints.CONFIG.items() if k != key}
    refused(checkpoints.write(tmp_path, config), f"config: {key} missing")


def test_a_size_without_head_dim(tmp_path):
    """hidden_size that the heads do not divide needs a head_dim."""
    config = {**checkpoints.CONFIG, "head_dim": None, "hidden_size": 25}
    refused(checkpoints.write(tmp_path, config), "config: hidden_size 25 3 head_dim")


@pytest.mark.parametrize(
    "data", [b"", b"{", b"\xff\xfe{}", b"[" * 100_000, b"[]", b"null", b"3", b'"a"']
)
def test_a_config_that_is_not_a_json_object(tmp_path, data):
    """Nothing, half of it, other bytes, endless nesting, other JSON."""
    (checkpoints.write(tmp_path) / "config.json").write_bytes(data)
    refused(tmp_path, "model: config.json")


def test_missing_files(tmp_path):
    """The folder, its config and its weights."""
    refused(tmp_path / "none", "model: none no file or folder", FileNotFoundError)
    checkpoints.write(tmp_path)
    refused(tmp_path / "config.json", "model: config.json safetensors")
    (tmp_path / "model.safetensors").unlink()
    refused(tmp_path, "model: model.safetensors", FileNotFoundError)
    with pytest.raises(FileNotFoundError, match=r"no tokenizer\.json"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="is no tokenizer") as caught:
        load_tokenizer(tmp_path)
    assert "\n" not in str(caught.value)


def change(values, name, index, value):
    """One element of a tensor set to a value."""
    values[name][index] = value


EMBEDDING = "model.embed_tokens.weight"


@pytest.mark.parametrize(
    ("words", "damage"),
    [
        ("is missing", lambda v, n: v.pop(n)),
        ("shape (24, 30) (30, 24)", lambda v, n: v.update({n: v[n].T.copy()})),
        ("shape (720,) (30, 24)", lambda v, n: v.update({n: v[n].reshape(-1)})),
        ("shape (0, 24) (30, 24)", lambda v, n: v.update({n: v[n][:0]})),
        ("dtype I32 BF16", lambda v, n: v.update({n: v[n].astype(np.int32)})),
        ("dtype F64 BF16", lambda v, n: v.update({n: v[n].astype(np.float64)})),
        ("dtype U8 BF16", lambda v, n: v.update({n: v[n].astype(np.uint8)})),
        ("NaN", lambda v, n: change(v, n, (3, 4), np.nan)),
        ("infinity", lambda v, n: change(v, n, (29, 23), -np.inf)),
    ],
)
def test_a_bad_tensor_is_named(tmp_path, words, damage):
    """Missing, of another shape or dtype, or not finite."""
    values = checkpoints.tensors()
    damage(values, checkpoints.FIRST)
    refused(checkpoints.write(tmp_path, None, values), f"checkpoint: {checkpoints.FIRST} {words}")


def test_other_bad_tensors(tmp_path):
    """The head, a norm, and an embedding beyond float16."""
    for name in ("lm_head.weight", "model.norm.weight", EMBEDDING):
        values = checkpoints.tensors()
        del values[name]
        refused(checkpoints.write(tmp_path, None, values), f"checkpoint: {name} missing")
    values = checkpoints.tensors()
    change(values, EMBEDDING, (0, 0), 1e6)
    refused(checkpoints.write(tmp_path, None, values), "checkpoint: float16 65504")


def test_damaged_weights(tmp_path):
    """Cut off anywhere, bytes too many, and a file of another kind."""
    path = checkpoints.write(tmp_path) / "model.safetensors"
    data = path.read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    for length in (0, 1, 7, 8, 9, header - 1, header, header + 1, len(data) - 1):
        path.write_bytes(data[:length])
        refused(tmp_path, "model: model.safetensors intact")
    for other in (data + b"\0", b"x" * 1000, (2**62).to_bytes(8, "little") + data[8:]):
        path.write_bytes(other)
        refused(tmp_path, "model: model.safetensors intact")


@pytest.mark.parametrize("count", [1, 2, 5])
def test_shards_equal_a_single_file(tmp_path, count):
    """The same logits from any number of files."""
    values = checkpoints.tensors()
    single = Model.from_pretrained(checkpoints.write(tmp_path / "single"), threads=1)
    parts = checkpoints.write_shards(tmp_path / "shards", values, count)
    sharded = Model.from_pretrained(parts, threads=1)
    assert cases.same_bits(single.logits(TOKENS), sharded.logits(TOKENS))


@pytest.mark.parametrize(
    ("words", "index", "error"),
    [
        ("index.json JSON", "{", ValueError),
        ("index.json object", "[]", ValueError),
        ("shard index weight_map", "{}", ValueError),
        ("shard index weight_map", '{"weight_map": {}}', ValueError),
        ("shard index weight_map", '{"weight_map": 3}', ValueError),
        ("shard []", '{"weight_map": {"a": []}}', ValueError),
        ("index.json JSON", "[" * 100_000, ValueError),
        ("shard 3", '{"weight_map": {"a": 3}}', ValueError),
        ("shard ../a", '{"weight_map": {"a": "../a"}}', ValueError),
        ("shard /etc/passwd", '{"weight_map": {"a": "/etc/passwd"}}', ValueError),
        ("shard none", '{"weight_map": {"a": "none"}}', FileNotFoundError),
    ],
)
def test_a_bad_index_is_named(tmp_path, words, index, error):
    """No JSON, no map, names that lead elsewhere, a shard that is not there."""
    folder = checkpoints.write_shards(tmp_path / "x", checkpoints.tensors(), 2)
    (folder / "model.safetensors.index.json").write_text(index)
    refused(folder, f"model: {words}", error)


@pytest.mark.parametrize("weights", ["ternary", "fp16"])
def test_float16_equals_float32(tmp_path, weights):
    """Values that both dtypes hold give the same logits, and those equal the oracle."""
    models = [
        Model.from_pretrained(
            checkpoints.write(tmp_path / dtype, None, checkpoints.tensors(dtype)),
            weights=weights, threads=1,
        )
        for dtype in ("float16", "float32")
    ]  # fmt: skip
    half, single = (model.logits(TOKENS) for model in models)
    assert cases.same_bits(half, single)
    assert cases.same_bits(half, reference.logits(models[0], TOKENS))
    assert (models[0].encoding == "fp16") == (weights == "fp16")


def test_the_linear_layers_are_the_quantised_masters():
    """Of the packaged bfloat16 checkpoint: trits and scale of each layer are absmean's."""
    tensors, model = Tensors(TINY), Model.from_pretrained(threads=1)
    half = Model.from_pretrained(weights="fp16", threads=1)
    names = {"q": "self_attn.q_proj", "down": "mlp.down_proj"}
    for index, layer in enumerate(model.weights.layers):
        for key, name in names.items():
            shape = model.config.linear_shapes()[key]
            master = tensors.floats(f"model.layers.{index}.{name}.weight", shape)
            trits, scale = absmean(master)
            assert cases.same_bits(layer.linear[key].to_trits(), trits)
            assert cases.same_bits(layer.linear[key].scale, scale)
            dense = (trits * scale).astype(np.float16).astype(np.float32)
            assert cases.same_bits(half.weights.layers[index].linear[key].to_dense(), dense)
    assert model.weights.embedding.is_bf16
    assert model.weights.head is model.weights.embedding


def test_progress_and_the_untied_head(tmp_path):
    """Every layer is announced; an lm_head of its own decides the logits."""
    calls = []
    folder = checkpoints.write(tmp_path)
    model = Model.from_pretrained(folder, threads=1, progress=lambda *call: calls.append(call))
    assert calls == [(1, 2), (2, 2)]
    values = checkpoints.tensors()
    values["lm_head.weight"] = np.zeros_like(values["lm_head.weight"])
    zero = Model.from_pretrained(checkpoints.write(tmp_path, None, values), threads=1)
    assert (zero.logits(TOKENS) == 0).all()
    assert (model.logits(TOKENS) != 0).any()


def test_a_model_outlives_its_folder(tmp_path):
    """Weights are copied: nothing changes when the files are gone."""
    folder = checkpoints.write(tmp_path / "gone")
    model = Model.from_pretrained(folder, threads=1)
    before = model.logits(TOKENS)
    (folder / "model.safetensors").write_bytes(json.dumps(checkpoints.CONFIG).encode() * 1000)
    shutil.rmtree(folder)
    assert cases.same_bits(model.logits(TOKENS), before)


@pytest.mark.parametrize("path", ["", "no/such/folder", "name"])
def test_a_path_that_leads_nowhere(path):
    """An empty one, as of an unset variable, is not the default."""
    with pytest.raises(FileNotFoundError, match=f"^model: '{path}' is no file or folder; exp"):
        Model.from_pretrained(path)


@pytest.mark.parametrize("architecture", ["Qwen3_5ForCausalLM", "Gemma3ForCausalLM"])
def test_layers_without_end_are_refused_at_once(tmp_path, architecture):
    """Of architectures that have a number for each layer, made before all else."""
    config = {**checkpoints.CONFIG, "architectures": [architecture], "num_hidden_layers": 10**12}
    refused(checkpoints.write(tmp_path, config), "config: layers 1000000000000 4096")


def test_a_table_of_rotations_has_a_limit(tmp_path):
    """Wide heads and a long context, each of which may be: half a terabyte of a small folder."""
    wide = {"num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 4096, "hidden_size": 2}
    config = {**checkpoints.CONFIG, **wide, "max_position_embeddings": 2**20}
    values = checkpoints.tensors()
    shapes = {"q_proj": (4096, 2), "k_proj": (4096, 2), "v_proj": (4096, 2), "o_proj": (2, 4096),
              "gate_proj": (70, 2), "up_proj": (70, 2), "down_proj": (2, 70), "embed": (33, 2),
              "lm_head": (33, 2), "attn_sub_norm": (4096,), "ffn_sub_norm": (70,)}  # fmt: skip
    for name in values:
        shape = next((shapes[each] for each in shapes if each in name), (2,))
        values[name] = np.ones(shape, np.float16)
    folder = checkpoints.write(tmp_path / "long", config, values)
    refused(folder, "config: context 1048576 4096 rotated dimensions 268435456")
    config["max_position_embeddings"] = 64
    assert open_checkpoint(checkpoints.write(tmp_path / "short", config, values)).config.hidden == 2
