"""Float matrices that nothing declares: used as they are, or refused, or rounded where asked."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

from ternops.__main__ import main
from ternops.absmean import absmean, absmean_groups
from ternops.commands import perplexity
from ternops.decoder import Model, open_checkpoint
from ternops.decoder.formats.gguf import Gguf
from ternops.decoder.formats.hugging_face import HuggingFace
from ternops.decoder.formats.loading import TINY
from ternops.decoder.formats.scales import products
from ternops.decoder.formats.ternary_floats import exact_product, trits_of_floats
from ternops.files import GrowingFile
from tests.helpers import cases, checkpoints, gguf_files

REFUSED = "q_proj.weight is not ternary: --quantize absmean (quantize='absmean') rounds it"
TOKENS = [0, 32, 7, 7, 19, 2]
LLAMA = {
    **{k: v for k, v in checkpoints.CONFIG.items() if k != "quantization_config"},
    "architectures": ["LlamaForCausalLM"],
    "hidden_act": "silu",
}


def trits(*shape, seed=0):
    """Random ones, none of whose rows, or blocks of 32 of a row, is all zero."""
    found = np.random.default_rng(seed).integers(-1, 2, shape, np.int8)
    found[:, ::32] = 1
    return found


def write(folder, change, dtype=np.float32):
    """A LLaMA without a quantization_config; each linear weight is what `change` makes of it."""
    values = {
        name: change(each) if "_proj" in name else each
        for name, each in checkpoints.tensors(dtype).items()
        if "sub_norm" not in name
    }
    return checkpoints.write(folder, LLAMA, values)


def refusal(weight):
    """The reason in the error of a matrix."""
    with pytest.raises(
        ValueError, match=r"^checkpoint: w [^\n]*rounds it to one scale a matrix$"
    ) as caught:
        trits_of_floats(weight, "w", None)
    return re.match("checkpoint: w (.*): --quantize", str(caught.value))[1]


@pytest.mark.parametrize("dtype", ["float16", "float32", "bfloat16"])
@pytest.mark.parametrize(
    "scales",
    [
        np.float32(0.3),
        np.linspace(0.1, 3, 24, dtype=np.float32)[:, None],
        np.repeat(np.array([0.2, 0.7, 1.1], np.float32), 8)[:, None],  # shards of rows
        np.full((24, 1), 0.3, np.float32),
    ],
)
def test_products_are_used_exactly(scales, dtype):
    """One magnitude in the matrix, in each row or in shards of rows: every float comes back, as
    rounded to the dtype of the file."""
    weight = trits(24, 70) * scales
    if dtype == "bfloat16":
        weight = (weight.view(np.uint32) & 0xFFFF0000).view(np.float32)
    else:
        weight = weight.astype(dtype).astype(np.float32)
    found, scale = trits_of_floats(weight, "w", None)
    assert scale.shape == (() if len(np.unique(scales)) == 1 else (24,))
    assert scale.dtype == np.float32
    assert cases.same_bits(found, trits(24, 70))
    assert cases.same_bits(found * scale.reshape(-1, 1), weight)


@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        (np.zeros((2, 3)), 1),
        ([[0, 0, 0], [0, -2, 2]], 2),
        ([[0, 0, 0], [0, -2, 2], [3, 0, 0]], [1, 2, 3]),
        ([[0.5], [-0.25], [0]], [0.5, 0.25, 1]),  # one column: each row has one magnitude
        ([[7]], 7),
        ([[-0.0, 1e-40]], 1e-40),  # a subnormal
        ([[3e38, -3e38]], 3e38),
    ],
)
def test_small_and_empty_matrices(weight, expected):
    """Whatever has one magnitude a row by accident is kept exactly, too; rows of zeros have none,
    and their scale is finite."""
    weight = np.array(weight, np.float32)
    found, scale = exact_product(weight)
    assert cases.same_bits(scale, np.asarray(expected, np.float32))
    assert (found * scale.reshape(-1, 1) == weight).all()


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize(
    ("inputs", "columns", "group"),
    [
        (32, 1024, 32), (64, 1024, 64), (128, 1024, 128), (256, 1024, 256),
        (512, 1024, 256), (341 * 3, 341 * 3, 341 * 3),
        (768, 3072, 256), (896, 1792, 128), (416, 1664, 32),  # shards of columns
        (32, 32, 32), (96, 96, 96), (96, 192, 32),
    ],
)  # fmt: skip
def test_scales_of_groups_of_inputs(inputs, columns, group, dtype):
    """Every float comes back, with one scale for the largest group that its shards are made of."""
    scales = np.random.default_rng(1).uniform(0.1, 1, (8, columns // inputs)).astype(dtype)
    weight = products(trits(8, columns), scales.astype(np.float32))
    weight[2, :inputs] = 0
    found, scale = trits_of_floats(weight, "w", None)
    assert scale.shape == ((8,) if inputs == columns else (8, columns // group))
    assert cases.same_bits(found, np.sign(weight).astype(np.int8))
    assert cases.same_bits(products(found, scale), weight)


@pytest.mark.parametrize(("inputs", "columns"), [(341, 1023), (300, 600), (40, 80)])
def test_shards_that_are_no_groups(inputs, columns):
    """Refused, saying what they are, or rounded where that is asked for."""
    weight = trits(8, columns).astype(np.float32)
    for at in range(0, columns, inputs):
        weight[:, at : at + inputs] *= np.float32(1 + at / 1000)
    assert refusal(weight) == (
        f"is ternary with one scale for {inputs} inputs, expected a row or 256, 128, 64, 32"
    )
    found, scale = trits_of_floats(weight, "w", "absmean")
    assert cases.same_bits(found, absmean(weight)[0])
    assert cases.same_bits(scale, np.asarray(absmean(weight)[1]))


def test_what_is_not_ternary():
    """Gaussian weights, four levels, a last bit that differs, one weight that differs."""
    random = np.random.default_rng(0)
    assert refusal(random.standard_normal((8, 256)).astype(np.float32)) == "is not ternary"
    assert refusal(random.choice([-2, -1, 1, 2], (8, 256)).astype(np.float32)) == "is not ternary"
    assert refusal(random.standard_normal((1, 2)).astype(np.float32)) == "is not ternary"
    ternary = trits(8, 256) * np.float32(0.3)
    ternary[3, 5:9] = [0.3, np.nextafter(np.float32(0.3), np.float32(1)), 0.3, 0.3]
    assert refusal(ternary) == "is not ternary"


@pytest.mark.parametrize("group", [256, 128, 64, 32])
def test_rounding_to_groups(tmp_path, group):
    """One scale for so many inputs, in each matrix; ternary ones stay, others are an error."""
    random = np.random.default_rng(0)
    weight = random.standard_normal((8, 512)).astype(np.float32)
    method = f"absmean-{group}"
    found, scale = trits_of_floats(weight, "w", method)
    expected = absmean_groups(weight, group)
    assert scale.shape == (8, 512 // group)
    assert cases.same_bits(found, expected[0])
    assert cases.same_bits(scale, expected[1])
    exact = trits(8, 512) * np.float32(0.3)
    assert cases.same_bits(products(*trits_of_floats(exact, "w", method)), exact)
    with pytest.raises(ValueError, match=rf"^checkpoint: w has 500 inputs, .* the {group} of quan"):
        trits_of_floats(weight[:, :500], "w", method)
    values = gguf_files.random_values(gguf_files.LLAMA)
    tensors = {"blk.0.ffn_up.weight": random.standard_normal((512, 256)).astype(np.float32)}
    path = gguf_files.write_gguf(tmp_path / "a.gguf", values, tensors=tensors)
    model = Model.from_pretrained(path, threads=1, quantize=method)
    assert {each.group for each in model.weights.layers[1].linear.values()} == {group}
    assert np.isfinite(model.logits(TOKENS)).all()


@pytest.mark.parametrize("quantize", ["absmax", "", True, 1, b"absmean"])
def test_another_method(quantize):
    """Is named before anything is read."""
    for opened in (open_checkpoint, Model.from_pretrained):
        with pytest.raises(
            ValueError, match=rf"^quantize={quantize!r}: expected 'absmean' or 'absmean-256' or "
        ):
            opened("no/such/folder", quantize=quantize)


def test_masters_of_no_bitnet(tmp_path):
    """An ordinary LLaMA, or a BitNet whose config.json does not say so, with and without the
    option; declared masters and 1bitLLM's need none, and it changes nothing about them."""
    folder = write(tmp_path, lambda weight: weight)
    tensor = checkpoints.FIRST
    checkpoints.refused(folder, f"checkpoint: {tensor} ternary: --quantize absmean")
    model = Model.from_pretrained(folder, threads=1, quantize="absmean")
    expected = absmean(checkpoints.tensors()[tensor])
    assert cases.same_bits(model.weights.layers[0].linear["q"].to_trits(), expected[0])
    plain = {k: v for k, v in checkpoints.CONFIG.items() if k != "quantization_config"}
    folder = checkpoints.write(tmp_path, plain)
    checkpoints.refused(folder, f"checkpoint: {tensor} ternary: --quantize absmean")
    logits = Model.from_pretrained(folder, threads=1, quantize="absmean").logits(TOKENS)
    for config in (checkpoints.CONFIG, {**plain, "architectures": ["BitnetForCausalLM"]}):
        config = {**config, "hidden_act": "relu2"}
        for quantize in (None, "absmean"):
            model = Model.from_pretrained(
                checkpoints.write(tmp_path, config), threads=1, quantize=quantize
            )
            assert model.config.epsilon == 1e-5
            assert cases.same_bits(model.logits(TOKENS), logits)


def test_what_is_said_to_be_a_bitnet(tmp_path):
    """is_bitnet_config alone, as of Falcon-E: products are kept, masters quantised, no option."""
    values = {k: v for k, v in checkpoints.tensors().items() if "sub_norm" not in k}
    values[checkpoints.FIRST] = trits(30, 24) * np.float32(0.3)
    master = values["model.layers.0.self_attn.v_proj.weight"]
    config = {**LLAMA, "is_bitnet_config": True}
    checkpoint = HuggingFace(checkpoints.write(tmp_path, config, values))
    assert checkpoint.trits(0, "q")[1] == np.float32(0.3)
    assert cases.same_bits(checkpoint.trits(0, "v")[0], absmean(master)[0])
    assert checkpoint.trits(0, "v")[1] == absmean(master)[1]
    for value in (False, 1, "true"):
        config = {**LLAMA, "is_bitnet_config": value}
        with pytest.raises(ValueError, match=r"v_proj.*is not ternary"):
            HuggingFace(checkpoints.write(tmp_path, config, values)).trits(0, "v")


def test_declared_masters_that_are_products(tmp_path):
    """Absmean, as transformers does: the mean of the magnitudes is not the magnitude."""
    values = checkpoints.tensors()
    values[checkpoints.FIRST] = (trits(30, 24) * np.float32(0.5)).astype(np.float32)
    found = HuggingFace(checkpoints.write(tmp_path, None, values)).trits(0, "q")
    assert found[1].shape == ()
    assert found[1] == absmean(values[checkpoints.FIRST])[1] < 0.5


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "TQ2_0"])
def test_a_scale_a_row_of_every_format(tmp_path, kind):
    """The same logits from a folder and from GGUF, where queries and keys are permuted."""
    values = gguf_files.random_values(gguf_files.LLAMA)
    random = np.random.default_rng(3)
    for at, (codes, _) in values.linear.items():
        scales = random.integers(1, 9, len(codes)).astype(np.float32) / 16
        values.linear[at] = codes, scales
    rows = replace(values, linear={at: (codes, scale[:, None] / 2)
                                   for at, (codes, scale) in values.linear.items()})  # fmt: skip
    folder = gguf_files.write_folder(tmp_path / "folder", gguf_files.LLAMA, rows)
    config = (folder / "config.json").read_text().replace("quantization_config", "x")
    (folder / "config.json").write_text(config)
    expected = Model.from_pretrained(folder, threads=1)
    path = gguf_files.write_gguf(tmp_path / "a.gguf", values, "llama", kind)
    found = Model.from_pretrained(path, threads=1)
    for layer, name in values.linear:
        ours, scales = Gguf(path).trits(layer, name)
        assert cases.same_bits(ours, values.linear[layer, name][0])
        assert cases.same_bits(scales, values.linear[layer, name][1])
        assert cases.same_bits(HuggingFace(folder).trits(layer, name)[1], scales)
    assert cases.same_bits(found.logits(TOKENS), expected.logits(TOKENS))


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
def test_groups_in_gguf(tmp_path, kind):
    """The same, whatever the option says."""
    values = gguf_files.random_values(gguf_files.LLAMA)
    weight = trits(256, 512) * np.repeat(np.float32([1, 2, 3, 4]), 128)
    tensors = {"blk.1.ffn_down.weight": (weight, kind)}
    path = gguf_files.write_gguf(tmp_path / "a.gguf", values, tensors=tensors)
    for quantize in (None, "absmean"):
        found, scale = open_checkpoint(path, quantize=quantize).trits(1, "down")
        assert cases.same_bits(found, trits(256, 512))
        assert cases.same_bits(scale, np.tile(np.float32([1, 2, 3, 4]), (256, 1)))


def test_the_commands(tmp_path, capfd):
    """Are refused in one line that names the option, and take it; the packed file needs none."""
    folder = write(tmp_path / "source", lambda weight: weight)
    shutil.copy(TINY / "tokenizer.json", folder)
    target = tmp_path / "out" / "packed.safetensors"
    target.parent.mkdir()
    assert main(["quantize", str(folder), str(target)]) == 2
    assert REFUSED in capfd.readouterr().err.splitlines()[-1]
    assert os.listdir(target.parent) == []
    options = ["--quantize", "absmean"]
    generate = ["generate", "--model", str(folder), "--max-new-tokens", "1", "--prompt"]
    assert main([*generate, "!"]) == 2
    assert REFUSED in capfd.readouterr().err.splitlines()[-1]
    assert main([*generate, "a", *options]) == 2  # the tokenizer is another model's
    assert "to the model no token" in capfd.readouterr().err.splitlines()[-1]
    assert main([*generate, "!", *options]) == 0
    assert main(["quantize", str(folder), str(target), *options]) == 0
    logits = Model.from_pretrained(target, threads=1).logits(TOKENS)
    direct = Model.from_pretrained(folder, threads=1, quantize="absmean")
    assert cases.same_bits(logits, direct.logits(TOKENS))


def test_the_option_reaches_every_process_of_a_table(monkeypatch):
    """perplexity --table starts one a tier and an encoding."""
    commands = []

    def output_on(tier, command, encoding):
        commands.append(command)
        return "perplexity 1\ntokens/s 1"

    monkeypatch.setattr(perplexity, "output_on", output_on)
    assert main(["perplexity", "--table", "--text", "x", "--quantize", "absmean"]) == 0
    assert commands
    assert all("--quantize=absmean" in command for command in commands)


def test_a_run_that_is_continued_without_the_option(tmp_path, capfd, monkeypatch):
    """Layers that were rounded are not kept."""
    folder = write(tmp_path / "source", lambda weight: weight)
    target = tmp_path / "packed.safetensors"
    original = GrowingFile.finish_step

    def finish_step(self, record):
        original(self, record)
        if len(self.records) == 4:  # two layers of two
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(GrowingFile, "finish_step", finish_step)
        assert main(["quantize", str(folder), str(target), "--quantize", "absmean"]) == 130
    capfd.readouterr()
    assert main(["quantize", str(folder), str(target)]) == 2
    lines = capfd.readouterr().err.splitlines()
    assert any("starting over" in line for line in lines)
    assert "is not ternary" in lines[-1]
    assert not target.exists()


def test_row_scales_are_packed(tmp_path):
    """A model with a scale a row is the same packed, without any option."""
    scales = np.random.default_rng(1).uniform(0.1, 1, 100).astype(np.float32)[:, None]
    folder = write(tmp_path / "source", lambda w: np.sign(w) * scales[: len(w)])
    target = tmp_path / "packed.safetensors"
    assert main(["quantize", str(folder), str(target)]) == 0
    packed, direct = Model.from_pretrained(target, threads=1), Model.from_pretrained(folder)
    assert packed.weights.layers[0].linear["o"].scale.shape == (24,)
    assert cases.same_bits(packed.logits(TOKENS), direct.logits(TOKENS))
