"""Every layout of ternary weights that Hugging Face folders come in, and what they say of chats."""

from __future__ import annotations

import json

import numpy as np
import pytest
import safetensors.numpy

from ternops.absmean import absmean
from ternops.decoder import Model
from ternops.decoder.formats.hugging_face import HuggingFace
from ternops.decoder.formats.hugging_face_config import read_config
from ternops.decoder.formats.tensors import Tensors
from tests.helpers import cases, checkpoints, internals
from tests.helpers.checkpoints import FIRST, quantization, quantized, refused

TOKENS = [0, 32, 7, 7, 19, 2]
SCALE = 1.7  # no power of two, so that a wrong direction or another rounding shows
LINEAR = {
    "q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj",
    "o": "self_attn.o_proj", "gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj",
}  # fmt: skip
LLAMA = {
    **{k: v for k, v in checkpoints.CONFIG.items() if k != "quantization_config"},
    "architectures": ["LlamaForCausalLM"],
    "hidden_act": "silu",
}


@pytest.fixture
def random():
    return np.random.default_rng(1)


def llama_tensors():
    """Those of CONFIG without the norms that LLaMA has not."""
    return {name: each for name, each in checkpoints.tensors().items() if "sub_norm" not in name}


def read_all(folder, trits):
    """The scales of all linear layers, whose trits must be these; by the tensor's name."""
    checkpoint, scales = HuggingFace(folder), {}
    for layer in range(2):
        for key, name in LINEAR.items():
            tensor = f"model.layers.{layer}.{name}.weight"
            found, scales[tensor] = checkpoint.trits(layer, key)
            assert cases.same_bits(found, trits[tensor])
    return scales


@pytest.mark.parametrize("packed", [True, False])
def test_offline_multiplies(tmp_path, random, packed):
    """Packed or not, also where 4 does not divide the outputs; the scale is weight_scale."""
    values, trits = quantized(random, SCALE, packed)
    scales = read_all(checkpoints.write(tmp_path, quantization("offline"), values), trits)
    assert len(scales) == 14
    for scale in scales.values():
        assert cases.same_bits(scale, np.asarray(np.float32(SCALE)))


@pytest.mark.parametrize("shape", [(), (1,)])
def test_bitlinear_divides(tmp_path, random, shape):
    """The scale is the inverse of weight_scale, rounded once to float32."""
    values, trits = quantized(random, SCALE)
    values = {k: v.reshape(shape) if k.endswith("_scale") else v for k, v in values.items()}
    scales = read_all(checkpoints.write(tmp_path, quantization("bitlinear"), values), trits)
    expected = np.float32(1 / np.float64(np.float32(SCALE)))
    for scale in scales.values():
        assert cases.same_bits(scale, np.asarray(expected))


@pytest.mark.parametrize(("kind", "packed"), [("offline", True), ("bitlinear", True),
                                              ("offline", False)])  # fmt: skip
def test_bfloat16_around_the_weights(tmp_path, random, kind, packed):
    """Norms, embedding and scales in bfloat16, as published, are read exactly."""
    values, trits = quantized(random, 0.40625, packed)
    folder = checkpoints.write(tmp_path, quantization(kind), values)
    checkpoints.write_bf16(folder / "model.safetensors", values)
    expected = np.float32(0.40625) if kind == "offline" else np.float32(1) / np.float32(0.40625)
    for scale in read_all(folder, trits).values():
        assert scale == expected
    checkpoint = HuggingFace(folder)
    cut = (values["model.norm.weight"].view(np.uint32) & 0xFFFF0000).view(np.float32)
    assert cases.same_bits(checkpoint.final_norm(), cut)
    assert checkpoint.embedding().is_bf16
    assert np.isfinite(Model.from_pretrained(folder, threads=1).logits(TOKENS)).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", [FIRST, "model.embed_tokens.weight", "model.norm.weight"])
def test_bfloat16_that_is_not_finite(tmp_path, monkeypatch, name, value):
    """Is found wherever it stands, in large tensors too, which are checked in parts."""
    internals.read_in_blocks(monkeypatch, 7)
    values = checkpoints.tensors()
    folder = checkpoints.write(tmp_path)
    checkpoints.write_bf16(folder / "model.safetensors", values)
    Model.from_pretrained(folder, threads=1)
    values[name].reshape(-1)[-1] = value
    checkpoints.write_bf16(folder / "model.safetensors", values)
    refused(folder, f"checkpoint: {name} NaN or infinity")


def test_the_three_directions_agree(tmp_path, random):
    """Packed, unpacked and, with a power of two, divided: the same bits of logits."""
    random_state = random.bit_generator.state
    logits = []
    for kind, packed, scale in (("offline", True, 0.25), ("offline", False, 0.25),
                                ("bitlinear", True, 4.0)):  # fmt: skip
        random.bit_generator.state = random_state
        values, _ = quantized(random, scale, packed)
        folder = checkpoints.write(tmp_path, quantization(kind), values)
        logits.append(Model.from_pretrained(folder, threads=1).logits(TOKENS))
    assert cases.same_bits(logits[0], logits[1])
    assert cases.same_bits(logits[0], logits[2])


def test_online_is_absmean_whatever_the_values(tmp_path, random):
    """Also of trits: transformers takes their mean for the scale, and so it is here."""
    values = checkpoints.tensors()
    values[FIRST] = random.integers(-1, 2, values[FIRST].shape).astype(np.float32) / 2
    trits, scale = absmean(values[FIRST])
    found = HuggingFace(checkpoints.write(tmp_path, None, values)).trits(0, "q")
    assert cases.same_bits(found[0], trits)
    assert found[1] == scale != 0.5


def test_products_that_nothing_declares(tmp_path, random):
    """Trits times one scale keep both (Falcon-E's bfloat16 files); other floats are an error, or
    quantised where that is asked for."""
    values = llama_tensors()
    trits = random.integers(-1, 2, values[FIRST].shape, np.int8)
    values[FIRST] = trits * np.float32(SCALE)
    checkpoint = HuggingFace(checkpoints.write(tmp_path, LLAMA, values))
    with pytest.raises(ValueError, match=r"v_proj\.weight is not ternary: --quantize absmean \(q"):
        checkpoint.trits(0, "v")
    checkpoint = HuggingFace(tmp_path, "absmean")
    found, scale = checkpoint.trits(0, "q")
    assert cases.same_bits(found, trits)
    assert scale == np.float32(SCALE)
    master = values[FIRST.replace("q_proj", "v_proj")]
    found, scale = checkpoint.trits(0, "v")
    assert cases.same_bits(found, absmean(master)[0])
    assert scale == absmean(master)[1]
    values[FIRST] = np.zeros_like(values[FIRST])
    found, _ = HuggingFace(checkpoints.write(tmp_path, LLAMA, values)).trits(0, "q")
    assert not found.any()


def test_the_names_of_1bitllm(tmp_path):
    """BitnetForCausalLM with other names of the norms: the logits of the same BitNet."""
    config = {**checkpoints.CONFIG, "hidden_act": "silu"}
    same = Model.from_pretrained(checkpoints.write(tmp_path / "one", config), threads=1)
    names = {"self_attn.attn_sub_norm": "self_attn.inner_attn_ln",
             "mlp.ffn_sub_norm": "mlp.ffn_layernorm"}  # fmt: skip
    values = {}
    for name, each in checkpoints.tensors().items():
        for old, new in names.items():
            name = name.replace(old, new)
        values[name] = each
    values["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(5, np.float32)
    config = {**LLAMA, "architectures": ["BitnetForCausalLM"], "weight_bits": 1, "input_bits": 8}
    other = Model.from_pretrained(checkpoints.write(tmp_path / "two", config, values), threads=1)
    assert cases.same_bits(same.logits(TOKENS), other.logits(TOKENS))
    for key in ("weight_bits", "input_bits"):
        refused(checkpoints.write(tmp_path / "two", {**config, key: 2}, values), f"config: {key} 2")


def test_which_head(tmp_path, monkeypatch):
    """tie_word_embeddings decides, unless the file has two matrices that differ, or one only."""
    internals.read_in_blocks(monkeypatch, 100)
    tied = {**checkpoints.CONFIG, "tie_word_embeddings": True}
    values = checkpoints.tensors()
    embedding, head = values["model.embed_tokens.weight"], values.pop("lm_head.weight")
    one = Model.from_pretrained(checkpoints.write(tmp_path, tied, values), threads=1)
    assert one.config.tied
    logits = one.logits(TOKENS)
    values["lm_head.weight"] = embedding
    both = Model.from_pretrained(checkpoints.write(tmp_path, tied, values), threads=1)
    assert both.config.tied
    assert cases.same_bits(both.logits(TOKENS), logits)
    del values["model.embed_tokens.weight"]
    other = Model.from_pretrained(checkpoints.write(tmp_path, tied, values), threads=1)
    assert cases.same_bits(other.logits(TOKENS), logits)
    values |= {"lm_head.weight": head, "model.embed_tokens.weight": embedding}
    two = Model.from_pretrained(checkpoints.write(tmp_path, tied, values), threads=1)
    assert not two.config.tied
    nearly = {**values, "lm_head.weight": embedding.copy()}
    nearly["lm_head.weight"][-1, -1] += 1
    assert not HuggingFace(checkpoints.write(tmp_path, tied, nearly)).config.tied
    untied = Model.from_pretrained(checkpoints.write(tmp_path, None, values), threads=1)
    assert cases.same_bits(two.logits(TOKENS), untied.logits(TOKENS))


@pytest.mark.parametrize("kind", ["offline", "bitlinear"])
@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.zeros(1, np.float32), "is 0.0 positive"),
        (np.full(1, -2, np.float32), "is -2.0 positive"),
        (np.full(1, np.nan, np.float32), "NaN finite"),
        (np.full(1, np.inf, np.float16), "infinity finite"),
        (np.ones(2, np.float32), "shape (2,) (1,)"),
        (np.ones((1, 1), np.float32), "shape (1, 1) (1,)"),
        (np.ones(0, np.float32), "shape (0,) (1,)"),
        (np.ones(1, np.float64), "dtype F64 BF16"),
        (np.ones(1, np.uint8), "dtype U8 BF16"),
        (None, "missing"),
    ],
)
def test_a_bad_scale_is_named(tmp_path, random, kind, value, words):
    """Zero, negative, not finite, of another shape or dtype, or not there."""
    values, _ = quantized(random, SCALE)
    del values[f"{FIRST}_scale"]
    if value is not None:
        values[f"{FIRST}_scale"] = value
    folder = checkpoints.write(tmp_path, quantization(kind), values)
    refused(folder, f"checkpoint: {FIRST}_scale {words}")


def test_a_scale_without_an_inverse(tmp_path, random):
    """1 / weight_scale must be a float32."""
    values, _ = quantized(random, 1e-40)
    folder = checkpoints.write(tmp_path, quantization("bitlinear"), values)
    refused(folder, f"checkpoint: {FIRST}_scale inverse")


@pytest.mark.parametrize(
    ("kind", "words", "damage"),
    [
        ("offline", "code 3 bit 0 [0, 0]", lambda w: w.__setitem__((0, 0), w[0, 0] | 3)),
        ("bitlinear", "code 3 bit 4 [7, 23]", lambda w: w.__setitem__((7, 23), 0x30)),
        # Output 31 of 30: bits that no weight has.
        ("offline", "code 3 bit 6 [7, 1]", lambda w: w.__setitem__((7, 1), 0xC0)),
        ("offline", "shape (7, 24) (8, 24)", lambda w: w[:7]),
        ("offline", "shape (8, 23) (8, 24)", lambda w: w[:, :23].copy()),
        ("offline", "shape (30, 24) (8, 24)", lambda w: np.ones((30, 24), np.uint8)),
        ("offline", "dtype I8 BF16", lambda w: w.view(np.int8)),
        ("bitlinear", "dtype F16 U8", lambda w: np.ones((30, 24), np.float16)),
        ("online", "dtype U8 BF16", lambda w: w),
        ("offline", "-1, 0 and 1", lambda w: np.full((30, 24), 0.5, np.float32)),
        ("offline", "-1, 0 and 1", lambda w: np.full((30, 24), -2, np.float16)),
        ("offline", "-1, 0 and 1", lambda w: np.full((30, 24), 3e38, np.float32)),
        ("offline", "NaN", lambda w: np.full((30, 24), np.nan, np.float32)),
    ],
)
def test_bad_trits_are_named(tmp_path, random, kind, words, damage):
    """A fourth code anywhere, another shape or dtype, floats that are not trits."""
    values, _ = quantized(random, SCALE)
    found = damage(values[FIRST])
    if found is not None:
        values[FIRST] = found
    folder = checkpoints.write(tmp_path, quantization(kind), values)
    refused(folder, f"checkpoint: {FIRST} {words}")


@pytest.mark.parametrize(
    "name",
    [
        "self_attn.q_proj.bias",
        "self_attn.q_proj.rms_norm.weight",
        "self_attn.attn_sub_norm.weight",
        "mlp.ffn_layernorm.weight",
        "self_attn.q_norm.weight",
        "mlp.experts.0.up_proj.weight",
    ],
)
def test_what_would_be_left_out(tmp_path, name):
    """A tensor of a layer that LLaMA has no place for changes the logits: refused."""
    values = llama_tensors()
    checkpoints.write(tmp_path, LLAMA, values)
    Model.from_pretrained(tmp_path, threads=1, quantize="absmean")
    values[f"model.layers.1.{name}"] = np.ones(24, np.float32)
    refused(checkpoints.write(tmp_path, LLAMA, values), f"checkpoint: model.layers.1.{name} place")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"quant_method": "awq"}, "quant_method 'awq' 'bitnet'"),
        ({"quant_method": None}, "quant_method None"),
        ({"linear_class": "other"}, "linear_class 'other' 'bitlinear' or 'autobitlinear'"),
        ({"linear_class": ["bitlinear"]}, "linear_class"),
        ({"quantization_mode": "both"}, "quantization_mode 'both' 'offline' or 'online'"),
        ({"quantization_mode": {}}, "quantization_mode {}"),
        ({"use_rms_norm": 1}, "use_rms_norm 1 true"),
        ({"modules_to_not_convert": ["lm_head", "q_proj"]}, "modules_to_not_convert 'q_proj'"),
        ({"modules_to_not_convert": ["model.layers.0"]}, "modules_to_not_convert"),
        ({"modules_to_not_convert": "lm_head"}, "modules_to_not_convert"),
        ({"modules_to_not_convert": [["lm_head"]]}, "modules_to_not_convert"),
        ({"modules_to_not_convert": []}, "modules_to_not_convert head"),
    ],
)
def test_an_unknown_quantization(tmp_path, settings, words):
    """Each setting with its value and what was expected."""
    config = quantization("online")
    config["quantization_config"] |= settings
    refused(checkpoints.write(tmp_path, config), f"config: {words}")


@pytest.mark.parametrize("kept", [None, ["lm_head"], ["lm_head", "model.embed_tokens"]])
def test_what_is_never_ternary(tmp_path, kept):
    """The embedding and the head are not, whether they are listed or not."""
    config = quantization("online")
    config["quantization_config"]["modules_to_not_convert"] = kept
    config["quantization_config"]["use_rms_norm"] = False
    HuggingFace(checkpoints.write(tmp_path, config))


def test_every_token_that_ends_a_text(tmp_path):
    """config.json's first, then generation_config.json's and the tokenizer's, each once."""
    folder = checkpoints.write(tmp_path, {**checkpoints.CONFIG, "eos_token_id": [1, 5, 1]})
    assert read_config(folder).eos == (1, 5)
    generation = folder / "generation_config.json"
    generation.write_text('{"eos_token_id": 9}')
    assert read_config(folder).eos == (1, 5, 9)
    generation.write_text('{"eos_token_id": [5, 9, 8]}')
    assert read_config(folder).eos == (1, 5, 9, 8)
    (folder / "tokenizer_config.json").write_text('{"eos_token": "<|eot_id|>"}')
    assert read_config(folder).eos == (1, 5, 9, 8)
    added = [{"id": 3, "content": "<|x|>"}, None, {"id": 7, "content": "<|eot_id|>"}]
    (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": added}))
    assert read_config(folder).eos == (1, 5, 9, 8, 7)
    checkpoints.write(tmp_path, {**checkpoints.CONFIG, "eos_token_id": None})
    generation.unlink()
    assert read_config(folder).eos == (7,)
    assert list(Model.from_pretrained(folder, threads=1).generate([1], 0)) == []


@pytest.mark.parametrize(
    "added", [3, {}, [[]], [{"content": "<e>"}], [{"content": "<e>", "id": True}],
              [{"content": "<e>", "id": "7"}]],
)  # fmt: skip
def test_a_tokenizer_without_that_token(tmp_path, added):
    """Then the tokenizer ends nothing."""
    folder = checkpoints.write(tmp_path)
    (folder / "tokenizer_config.json").write_text('{"eos_token": "<e>"}')
    (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": added}))
    assert read_config(folder).eos == (1,)


@pytest.mark.parametrize("file", ["generation_config.json", "tokenizer_config.json", "config.json"])
@pytest.mark.parametrize("data", [b"{", b"[" * 100_000, b"[]", b"3", b"\xff\xfe{}", b""])
def test_a_file_that_is_no_object(tmp_path, file, data):
    """One line that names it."""
    (checkpoints.write(tmp_path) / file).write_bytes(data)
    refused(tmp_path, f"model: {file}")


@pytest.mark.parametrize("model", [None, 3, [], {}, {"vocab": "x"}, {"vocab": [3, [], ["<e>"]]},
                                   {"vocab": {"<e>": "1"}}])  # fmt: skip
def test_a_tokenizer_without_a_vocabulary(tmp_path, model):
    """It gives no end."""
    folder = checkpoints.write(tmp_path)
    (folder / "tokenizer_config.json").write_text('{"eos_token": "<f>"}')
    (folder / "tokenizer.json").write_text(json.dumps({"model": model}))
    assert read_config(folder).eos[:1] == (1,)


def test_bad_values_in_the_other_files(tmp_path):
    """Of generation_config.json and tokenizer_config.json."""
    folder = checkpoints.write(tmp_path)
    for value in ("1", True, [1.0], {}):
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": value}))
        refused(folder, "generation_config: eos_token_id")
    (folder / "generation_config.json").unlink()
    for value in (7, ["</s>"], {"content": 7}, {}):
        (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": value}))
        refused(folder, "tokenizer_config.json: eos_token")


def test_special_tokens(tmp_path):
    """Strings, or objects with the string as their content."""
    folder = checkpoints.write(tmp_path)
    assert HuggingFace(folder).special_tokens() == {}
    (folder / "tokenizer_config.json").write_text(
        '{"bos_token": {"content": "<s>", "lstrip": false}, "eos_token": "</s>", "pad_token": "x"}'
    )
    expected = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "x"}
    assert HuggingFace(folder).special_tokens() == expected
    (folder / "tokenizer_config.json").write_text('{"bos_token": null}')
    assert HuggingFace(folder).special_tokens() == {}


def test_chat_templates(tmp_path):
    """A file of its own comes first; of several, the default one."""
    folder = checkpoints.write(tmp_path)
    checkpoint, settings = HuggingFace(folder), folder / "tokenizer_config.json"
    assert checkpoint.chat_template() is None
    for value, expected in (
        ("{{ a }}\n", "{{ a }}\n"),
        (None, None),
        ([], None),
        ([{"name": "tools", "template": "t"}], None),
        ([{"name": "tools", "template": "t"}, {"name": "default", "template": "d"}], "d"),
    ):
        settings.write_text(json.dumps({"chat_template": value}))
        assert checkpoint.chat_template() == expected
    for value in (3, {"default": "x"}, ["x"], [{"name": "default"}], [{"name": [], "template": ""}],
                  [{"name": "default", "template": 3}]):  # fmt: skip
        settings.write_text(json.dumps({"chat_template": value}))
        with pytest.raises(ValueError, match=r"^tokenizer_config\.json: chat_template is neither"):
            checkpoint.chat_template()
    settings.write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        checkpoint.chat_template()
    (folder / "chat_template.jinja").write_text("{{ é }}", "utf-8")
    assert checkpoint.chat_template() == "{{ é }}"
    (folder / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(ValueError, match="is not UTF-8"):
        checkpoint.chat_template()


def settings(**rope):
    return {**checkpoints.CONFIG, "rope_theta": None, **rope}


def test_rope_angles(tmp_path):
    """position * theta**(-2i/head_dim), in radians, for each position and pair."""
    config = read_config(checkpoints.write(tmp_path))
    angles = config.rope_angles()
    assert angles.shape == (40, 5)
    assert angles.dtype == np.float64
    np.testing.assert_allclose(angles[7], [7 * 10000 ** (-i / 10) for i in (0, 2, 4, 6, 8)], 1e-14)
    assert not angles[0].any()


def test_linear_rope_scaling(tmp_path):
    """Every angle is divided by the factor, whichever key it stands under."""
    plain = read_config(checkpoints.write(tmp_path)).rope_angles()
    for rope in (
        {"rope_scaling": {"type": "linear", "factor": 4}, "rope_theta": 1e4},
        {"rope_scaling": {"rope_type": "linear", "factor": 4.0}, "rope_theta": 1e4},
        {"rope_parameters": {"rope_type": "linear", "factor": 4, "rope_theta": 1e4}},
    ):
        config = read_config(checkpoints.write(tmp_path, settings(**rope)))
        assert cases.same_bits(config.rope_angles(), plain / 4)


LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192, "rope_theta": 5e5,
}  # fmt: skip


def test_llama3_rope_scaling(tmp_path):
    """Of the 64 waves of a head of Llama 3.1, the long are stretched by 8 and the short are not."""
    raw = settings(rope_parameters=LLAMA3, head_dim=128)
    config = read_config(checkpoints.write(tmp_path, raw))
    waves = 2 * np.pi * 5e5 ** (np.arange(0, 128, 2) / 128)
    factors = np.array(config.rope_factors)
    assert len(factors) == 64
    assert (factors[waves < 8192 / 4] == 1).all()
    assert (factors[waves > 8192] == 8).all()
    middle = waves[(waves >= 8192 / 4) & (waves <= 8192)]
    assert len(middle) > 2
    smooth = (8192 / middle - 1) / (4 - 1)
    expected = 1 / ((1 - smooth) / 8 + smooth)
    np.testing.assert_allclose(factors[(waves >= 8192 / 4) & (waves <= 8192)], expected, 1e-12)
    # Without a length of its own: max_position_embeddings, 40 here; before both, the config's.
    short = {k: v for k, v in LLAMA3.items() if not k.startswith("original")}
    raw = settings(rope_parameters=short, head_dim=128)
    assert read_config(checkpoints.write(tmp_path, raw)).rope_factors != config.rope_factors
    raw |= {"original_max_position_embeddings": 8192}
    raw["rope_parameters"] |= {"original_max_position_embeddings": 100}
    assert read_config(checkpoints.write(tmp_path, raw)).rope_factors == config.rope_factors


@pytest.mark.parametrize(
    ("rope", "words"),
    [
        ({"rope_type": "dynamic", "factor": 2.0}, "rope type 'dynamic' 'llama3' 'yarn'"),
        ({"rope_type": "default", "mrope_section": [2, 3]}, "rope mrope_section [2, rope_theta"),
        ({"rope_type": "yarn", "finetuned": True}, "rope finetuned True beta_fast 'yarn'"),
        ({"rope_type": "yarn", "factor": 0.0}, "factor 0.0 positive"),
        ({"rope_type": "yarn", "factor": 2.0, "beta_fast": -1}, "beta_fast -1 positive"),
        ({"rope_type": "yarn", "factor": 2.0, "attention_factor": "1"}, "attention_factor '1'"),
        ({"rope_type": "yarn", "factor": 2.0, "rope_theta": 1}, "rope_theta 1 'yarn'"),
        ({"rope_type": "yarn", "mscale": 1.0, "mscale_all_dim": -1.0}, "mscale_all_dim -1.0"),
        ({"rope_type": "longrope", "short_factor": [1.0] * 5}, "long_factor None list of 5"),
        ({"rope_type": "longrope", "short_factor": [1.0] * 4}, "short_factor 4 numbers list of 5"),
        ({"rope_type": "longrope", "short_factor": [1.0, 0, 1, 1, 1]}, "short_factor 0 positive"),
        ({"rope_type": "longrope", "original_max_position_embeddings": 1}, "original 1 integer 2"),
        ({"rope_type": ["linear"]}, "rope type"),
        ({"type": "linear"}, "factor None positive"),
        ({"type": "linear", "factor": 0}, "factor 0 positive"),
        ({"type": "linear", "factor": "2"}, "factor '2' positive"),
        ({"type": "linear", "factor": True}, "factor True positive"),
        ({"type": "linear", "factor": float("nan")}, "factor nan positive"),
        ({"type": "linear", "factor": 2, "rope_theta": -1}, "rope_theta -1"),
        ({**LLAMA3, "low_freq_factor": None}, "low_freq_factor None"),
        ({**LLAMA3, "low_freq_factor": 4.0}, "low_freq_factor 4.0 less"),
        ({**LLAMA3, "original_max_position_embeddings": -1}, "original_max -1"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5 1"),
        ({"rope_type": "linear", "factor": 2, "head_dim": None}, None),
    ],
)
def test_an_unknown_rope(tmp_path, rope, words):
    """Each setting with its value and what was expected; what is not known is not read."""
    folder = checkpoints.write(tmp_path, settings(rope_parameters=rope))
    if words is None:
        read_config(folder)
    else:
        refused(folder, f"config: {words}")


@pytest.mark.parametrize(
    ("key", "value"),
    [("tie_word_embeddings", "false"), ("tie_word_embeddings", 1), ("eos_token_id", True),
     ("attention_bias", "false"), ("rope_theta", True), ("rms_norm_eps", True)],
)  # fmt: skip
def test_a_setting_of_another_type(tmp_path, key, value):
    """Is not taken for what it might mean."""
    key_words = {"attention_bias": "bias", "rms_norm_eps": "epsilon"}.get(key, key)
    refused(checkpoints.write(tmp_path, {**checkpoints.CONFIG, key: value}), f"config: {key_words}")


def test_what_an_architecture_leaves_out(tmp_path):
    """The defaults of transformers: BitNet's theta and epsilon are not LLaMA's."""
    kept = {k: v for k, v in checkpoints.CONFIG.items() if k not in ("rope_theta", "rms_norm_eps")}
    for name, expected in (("BitNetForCausalLM", (5e5, 1e-5)), ("LlamaForCausalLM", (1e4, 1e-6)),
                           ("BitnetForCausalLM", (1e4, 1e-6))):  # fmt: skip
        config = read_config(checkpoints.write(tmp_path, {**kept, "architectures": [name]}))
        assert (config.rope_theta, config.epsilon) == expected


def entry(dtype, shape, first, last):
    return {"dtype": dtype, "shape": shape, "data_offsets": [first, last]}


FILES = {
    "a size of 2**60": ({"a": entry("F32", [2**60], 0, 64)}, 64),
    "a size of 2**64": ({"a": entry("F32", [2**32, 2**32], 0, 64)}, 64),
    "a size below zero": ({"a": entry("F32", [-16], 0, 64)}, 64),
    "a size that is not a number": ({"a": entry("F32", ["16"], 0, 64)}, 64),
    "an offset below zero": ({"a": entry("F32", [16], -64, 0)}, 64),
    "offsets backwards": ({"a": entry("F32", [16], 64, 0)}, 64),
    "an offset beyond the end": ({"a": entry("F32", [16], 0, 2**60)}, 64),
    "two tensors in one place": (
        {"a": entry("F32", [16], 0, 64), "b": entry("F32", [16], 0, 64)}, 64,
    ),
    "two tensors that overlap": (
        {"a": entry("F32", [16], 0, 64), "b": entry("F32", [16], 32, 96)}, 96,
    ),
    "a gap": ({"a": entry("F32", [8], 0, 32), "b": entry("F32", [8], 64, 96)}, 96),
    "another dtype than the bytes": ({"a": entry("BF16", [16], 0, 64)}, 64),
    "an unknown dtype": ({"a": entry("F33", [16], 0, 64)}, 64),
    "no dtype": ({"a": {"shape": [16], "data_offsets": [0, 64]}}, 64),
    "no offsets": ({"a": {"dtype": "F32", "shape": [16]}}, 64),
    "a name of two lines": ({"a\nb": entry("F32", [16], 32, 96)}, 96),
    "a header that is a list": ([], 0),
    "a header that is not JSON": ("{", 0),
    "a header without an end": ('{"a":' * 10_000, 0),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_hostile_file(tmp_path, name):
    """Is refused in one line before anything is allocated."""
    header, size = FILES[name]
    checkpoints.write_raw(checkpoints.write(tmp_path) / "model.safetensors", header, bytes(size))
    refused(tmp_path, "model: model.safetensors intact")


@pytest.mark.parametrize(("first", "last"), [(30 * 24, 8), (8, 30 * 24)])
def test_a_tensor_that_is_named_twice(tmp_path, first, last):
    """The last one counts, its shape and its bytes: never one's shape with the other's bytes."""
    text = "{" + ",".join(
        f'"{FIRST}":{json.dumps(entry("F32", [n], 0, 4 * n))}' for n in (first, last)
    ) + "}"  # fmt: skip
    path = checkpoints.write(tmp_path) / "model.safetensors"
    checkpoints.write_raw(path, text, bytes(4 * last))
    assert Tensors(tmp_path).floats(FIRST, (last,)).shape == (last,)


@pytest.mark.parametrize("spaces", range(4))
def test_tensors_at_odd_addresses(tmp_path, spaces):
    """A header of any length: the values after it are read from where they lie."""
    values = np.arange(7, dtype=np.float32)
    text = json.dumps({"a": entry("F32", [7], 0, 28)}) + " " * spaces
    path = checkpoints.write(tmp_path) / "model.safetensors"
    checkpoints.write_raw(path, text, values.tobytes())
    assert cases.same_bits(Tensors(tmp_path).floats("a", (7,)), values)


def test_a_shard_index_that_lies(tmp_path):
    """A tensor that its shard has not is named; of two shards that have it the index decides."""
    values = checkpoints.tensors()
    folder = checkpoints.write_shards(tmp_path, values, 2)
    expected = Model.from_pretrained(folder, threads=1).logits(TOKENS)
    index = folder / "model.safetensors.index.json"
    raw = json.loads(index.read_text())
    shard = raw["weight_map"][FIRST]
    other = next(name for name in raw["weight_map"].values() if name != shard)
    other_tensors = safetensors.numpy.load_file(folder / other)
    wrong = {**other_tensors, FIRST: np.ones_like(values[FIRST])}
    safetensors.numpy.save_file(wrong, folder / other)
    assert cases.same_bits(Model.from_pretrained(folder, threads=1).logits(TOKENS), expected)
    raw["weight_map"][FIRST] = other
    index.write_text(json.dumps(raw))
    assert not cases.same_bits(Model.from_pretrained(folder, threads=1).logits(TOKENS), expected)
    safetensors.numpy.save_file(other_tensors, folder / other)
    refused(folder, f"checkpoint: {FIRST} missing {other}")


def test_a_tensor_that_the_index_leaves_out(tmp_path):
    """Is there all the same, as in transformers: a bias is refused, a head is the head."""
    values = checkpoints.tensors()
    whole = checkpoints.write(tmp_path / "whole")
    expected = Model.from_pretrained(whole, threads=1).logits(TOKENS)
    folder = checkpoints.write_shards(tmp_path / "x", values, 2)
    index = folder / "model.safetensors.index.json"
    raw = json.loads(index.read_text())
    del raw["weight_map"][FIRST]
    index.write_text(json.dumps(raw))
    assert cases.same_bits(Model.from_pretrained(folder, threads=1).logits(TOKENS), expected)
    shard = folder / "model-1.safetensors"
    kept = safetensors.numpy.load_file(shard)
    name = "model.layers.0.self_attn.q_proj.bias"
    safetensors.numpy.save_file({**kept, name: np.ones(3, np.float32)}, shard)
    refused(folder, f"checkpoint: {name} no place")


@pytest.mark.parametrize("file", ["config", "generation_config"])
def test_an_end_that_is_no_token(tmp_path, file):
    """One line, and it ends nothing; as with GGUF files."""
    folder = checkpoints.write(tmp_path)
    path = folder / f"{file}.json"
    raw = json.loads(path.read_text()) if path.exists() else {}
    for number in (33, -1):
        path.write_text(json.dumps({**raw, "eos_token_id": [5, number]}))
        words = f"^{file}: eos_token_id is {number}, expected 0 to 32: there is no such token$"
        with pytest.warns(UserWarning, match=words):
            assert number not in HuggingFace(folder).config.eos


def test_scales_of_weights_that_are_quantised_online(tmp_path, random):
    """One line says that they are left out."""
    values, _ = checkpoints.quantized(random, 0.5, packed=False)
    config = checkpoints.quantization("online")
    with pytest.warns(UserWarning, match=r"weight_scale is left out, .* \(online\)"):
        HuggingFace(checkpoints.write(tmp_path, config, values))


@pytest.mark.parametrize(
    ("shard", "error"),
    [
        ("../x.safetensors", ValueError),
        ("a/../../x", ValueError),
        ("x" * 300, ValueError),
        ("\u4e00" * 99, ValueError),  # 297 bytes
        ("\ud800", ValueError),
        ("..", FileNotFoundError),
        (".", ValueError),
        ("", FileNotFoundError),
        ("a\0b", FileNotFoundError),
        ("model.safetensors.index.json", ValueError),  # the index itself
        ("config.json", ValueError),
        (None, ValueError),
        ({"a": "b"}, ValueError),
    ],
)
def test_an_invalid_shard(tmp_path, shard, error):
    """Elsewhere, the folder itself, the index itself, no name."""
    folder = checkpoints.write_shards(tmp_path / "x", checkpoints.tensors(), 2)
    index = {"weight_map": {FIRST: shard}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(folder, "model:", error)


def test_shards_of_packed_trits(tmp_path, random):
    """The same trits from any number of files."""
    values, trits = quantized(random, SCALE)
    folder = checkpoints.write_shards(tmp_path, values, 3)
    (folder / "config.json").write_text(json.dumps(quantization("bitlinear")))
    read_all(folder, trits)


def test_layers_beyond_the_config_are_refused(tmp_path):
    """Half of a model is another model."""
    raw = {**checkpoints.CONFIG, "num_hidden_layers": 1}
    folder = checkpoints.write(tmp_path, raw)
    with pytest.raises(ValueError, match=r"model\.layers\.1\..*expected no layers beyond the 1"):
        Model.from_pretrained(folder)
