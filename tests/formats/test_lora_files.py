"""Reading LoRA adapters that peft has written, and one line for what is none of this model's."""

from __future__ import annotations

import json
import math

import ml_dtypes
import numpy as np
import pytest

from ternops.__main__ import main
from ternops.decoder import Model
from ternops.decoder.formats.lora_file import read_lora
from tests.helpers import cases
from tests.helpers.adapters import CONFIG, random_adapter, tensors_of, write
from tests.helpers.small_models import LAYOUTS, small_config

LLAMA = small_config("hidden 24", "llama")
Q = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_was_written(tmp_path, layout):
    """By the folder, or the file in it."""
    config = small_config("hidden 24", layout)
    adapter = random_adapter(config)
    folder = write(tmp_path / "a", tensors_of(config, adapter))
    for path in (folder, folder / "adapter_model.safetensors"):
        found = read_lora(path, config)
        for layer, wanted in zip(found.layers, adapter.layers, strict=True):
            assert layer.keys() == wanted.keys()
            for name, each in layer.items():
                assert cases.same_bits(each.a, wanted[name].a)
                assert cases.same_bits(each.b, wanted[name].b)
                assert each.scale == 2.0


def test_an_adapter_of_a_program_without_a_head(tmp_path):
    """Its names lack "model.": peft's of AutoModel, as of an encoder; under one name alone."""
    with_head = tensors_of(LLAMA, random_adapter(LLAMA))
    bare = {name.replace(".model.model.", ".model."): each for name, each in with_head.items()}
    assert f"{Q.replace('.model.model.', '.model.')}.lora_A.weight" in bare
    pattern = {"alpha_pattern": {r"layers\.0\.self_attn\.q_proj": 12}}
    folder = write(tmp_path / "a", bare, {**CONFIG, **pattern})
    found = read_lora(folder, LLAMA)
    assert found.layers[0]["q"].scale == 4
    wanted = read_lora(write(tmp_path / "b", with_head), LLAMA)
    for ours, theirs in zip(found.layers, wanted.layers, strict=True):
        assert ours.keys() == theirs.keys()
        assert all(cases.same_bits(ours[name].a, theirs[name].a) for name in ours)
    refused(
        write(tmp_path / "c", bare | with_head), "down_proj.* is there under another name as well"
    )


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_narrow_floats(tmp_path, dtype):
    adapter = random_adapter(LLAMA)
    tensors = {name: each.astype(dtype) for name, each in tensors_of(LLAMA, adapter).items()}
    found = read_lora(write(tmp_path / "a", tensors), LLAMA)
    wanted = tensors[f"{Q}.lora_A.weight"].astype(np.float32)
    assert cases.same_bits(found.layers[0]["q"].a, wanted)


@pytest.mark.parametrize(
    ("settings", "scales"),
    [
        ({"lora_alpha": 5}, (5 / 3, 5 / 3)),
        ({"use_rslora": True}, (6 / math.sqrt(3), 6 / math.sqrt(3))),
        ({"alpha_pattern": {"down_proj": 12}}, (2, 4)),
        ({"alpha_pattern": {"proj": 12, r"layers\.0\.mlp\..*": 9}}, (2, 3)),
        ({"r": 8, "rank_pattern": {".*_proj": 3}}, (2, 2)),
    ],
)
def test_scales(tmp_path, settings, scales):
    folder = write(tmp_path / "a", tensors_of(LLAMA, random_adapter(LLAMA)), {**CONFIG, **settings})
    found = read_lora(folder, LLAMA).layers[0]
    assert (found["q"].scale, found["down"].scale) == pytest.approx(scales)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3', expected 'LORA'"),
        ({"use_dora": True}, "use_dora is True, expected False"),
        ({"bias": "all"}, "bias is 'all', expected 'none'"),
        ({"lora_bias": True}, "lora_bias is True, expected False"),
        ({"modules_to_save": ["lm_head"]}, r"modules_to_save is \['lm_head'\], expected \[\]"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out is True"),
        ({"trainable_token_indices": [1]}, r"trainable_token_indices is \[1\]"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa', which changes the base"),
        ({"init_lora_weights": ["gaussian"]}, r"init_lora_weights is \['gaussian'\]"),
        ({"r": 4}, "_proj has lora_A of 3 rows, expected r=4 of adapter_config.json"),
        ({"lora_alpha": None}, "lora_alpha is None, expected a number"),
        ({"lora_alpha": math.nan}, "lora_alpha is nan, expected a number"),
        ({"alpha_pattern": [1]}, r"alpha_pattern is \[1\], expected an object"),
        ({"alpha_pattern": {"(": 1}}, r"alpha_pattern has '\('"),
        ({"alpha_pattern": {"q_proj": "a"}}, "alpha_pattern of q_proj is 'a', expected a number"),
    ],
)
def test_settings_of_other_adapters(tmp_path, settings, message):
    folder = write(tmp_path / "a", tensors_of(LLAMA, random_adapter(LLAMA)), {**CONFIG, **settings})
    refused(folder, message)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (
            {f"{Q}.lora_A.weight": (3, 23), f"{Q}.lora_B.weight": (30, 3)},
            r"q_proj has lora_A \(3, 23\) and lora_B \(30, 3\), expected \(r, 24\) and \(30, r\)",
        ),
        ({f"{Q}.lora_A.weight": (3, 24)}, "q_proj.lora_B.weight is missing"),
        ({f"{Q}.lora_A.weight": (3,)}, r"q_proj.lora_A.weight' is F32 \(3,\), expected a float ma"),
        ({Q.replace("0", "2") + ".lora_A.weight": (3, 24)}, "layers.2.* is of no linear layer"),
        ({"base_model.model.lm_head.lora_A.weight": (3, 24)}, "lm_head.* is of no linear layer"),
        ({f"{Q}.lora_magnitude_vector": (30,)}, "lora_magnitude_vector' is of no linear layer"),
        ({f"{Q}.lora_embedding_A": (3, 24)}, "lora_embedding_A' is of no linear layer"),
        ({f"{Q}.base_layer.bias": (30,)}, "base_layer.bias' is of no linear layer"),
        ({}, "holds no tensors"),
    ],
)
def test_tensors_of_other_models(tmp_path, tensors, message):
    arrays = {name: np.ones(shape, np.float32) for name, shape in tensors.items()}
    refused(write(tmp_path / "a", arrays), message)


def test_damaged_files(tmp_path):
    folder = write(tmp_path / "a", tensors_of(LLAMA, random_adapter(LLAMA)))
    weights, config = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-5])
    refused(folder, "no intact safetensors file")
    weights.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    refused(folder, "git-lfs|pointer|placeholder")
    bad = tensors_of(LLAMA, random_adapter(LLAMA))
    bad[f"{Q}.lora_B.weight"][1, 1] = np.inf
    write(folder, bad)
    refused(folder, "q_proj.lora_B.weight' holds NaN or infinity, expected finite numbers")
    config.write_text("[]", "utf-8")
    refused(folder, "holds no object")
    config.unlink()
    refused(folder, "no adapter_config.json beside it, which has the scale")
    weights.unlink()
    with pytest.raises(FileNotFoundError, match=r"lora: .* is neither adapter_model\.safetensors"):
        read_lora(folder, LLAMA)


def refused(folder, message):
    with pytest.raises(ValueError, match=message) as told:
        read_lora(folder, LLAMA)
    assert str(told.value).startswith("lora: ")
    assert "\n" not in str(told.value)


def test_commands(tmp_path, capsys):
    """generate and perplexity with --lora, and what they refuse."""
    base = Model.from_pretrained(threads=1)
    adapter = random_adapter(base.config)
    folder = str(write(tmp_path / "a", tensors_of(base.config, adapter)))
    model = Model.from_pretrained(threads=1, lora=folder)
    prompt = [0, 260, 30]
    assert list(model.generate(prompt, 20)) != list(base.generate(prompt, 20))
    told = {}
    text = tmp_path / "text"
    text.write_text("def main(argv):\n    return len(argv)\n", "utf-8")
    for more in ([], ["--lora", folder]):
        assert main(["perplexity", "--text", str(text), "--threads", "1", *more]) == 0
        told[bool(more)] = capsys.readouterr().out.split("\n")[0]
        assert main(["generate", "--prompt", "def", "--max-new-tokens", "4", *more]) == 0
        capsys.readouterr()
    assert told[True] != told[False]
    settings = json.loads((tmp_path / "a" / "adapter_config.json").read_text("utf-8"))
    write(tmp_path / "a", tensors_of(base.config, adapter), {**settings, "use_dora": True})
    assert main(["generate", "--prompt", "def", "--lora", folder]) == 2
    assert "lora: " in capsys.readouterr().err
