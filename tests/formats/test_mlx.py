"""Folders of MLX, 2 bits a weight, are read exactly where they are ternary."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ternops.decoder import Model
from ternops.decoder.formats.hugging_face import HuggingFace
from ternops.decoder.formats.scales import products
from tests.helpers import cases, checkpoints, gguf_files

CONFIG = gguf_files.QWEN3
TOKENS = [0, 299, 7, 7, 19, 150, 2]
Q = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def values():
    """One scale a matrix, embedding included, so that everything else can run it."""
    found = gguf_files.random_values(CONFIG)
    embedding = np.random.default_rng(5).integers(-1, 2, (CONFIG.vocabulary, CONFIG.hidden))
    found.embedding = found.head = (embedding * 0.75).astype(np.float32)
    return found


def packed(trits, scale, group, dtype=np.float16):
    """weight, scales and biases of a matrix, worked out code by code."""
    rows, columns = trits.shape
    words = np.zeros((rows, columns // 16), np.uint32)
    for at in range(16):
        words |= (trits[:, at::16] + 1).astype(np.uint32) << 2 * at
    scales = np.broadcast_to(np.asarray(scale, dtype), (rows, columns // group)).copy()
    return words, scales, -scales


def write(folder, values, group=128, dtype=np.float16, settings=None, change=None, floats=False):
    """A folder; `change` is done to its tensors. floats: leave the embedding in floats."""
    gguf_files.write_folder(folder, CONFIG, values)
    raw = json.loads((folder / "config.json").read_text())
    del raw["quantization_config"]
    raw["quantization"] = {"group_size": group, "bits": 2, **(settings or {})}
    raw["quantization_config"] = raw["quantization"]  # mlx_lm writes both
    form = CONFIG.trunk.hugging_face[0]
    tensors = {form.final_norm: values.norm}
    for (layer, name), norm in values.norms.items():
        tensors[form.norm(layer, name)[0]] = norm
    matrices = {form.matrix(*at): each for at, each in values.linear.items()}
    if floats:
        tensors[form.embedding] = values.embedding
    else:
        matrices[form.embedding] = np.sign(values.embedding).astype(np.int8), np.float32(0.75)
    for name, (trits, scale) in matrices.items():
        for part, array in zip(("weight", "scales", "biases"),
                               packed(trits, scale, group, dtype), strict=True):  # fmt: skip
            tensors[name.removesuffix("weight") + part] = array
    if change:
        change(tensors)
    return checkpoints.write(folder, raw, tensors)


@pytest.mark.parametrize("group", [32, 64, 128])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_the_same_logits(tmp_path, values, group, dtype):
    """As of the floats, where the embedding was left in floats."""
    folder = write(tmp_path / "mlx", values, group, dtype, floats=True)
    model = Model.from_pretrained(folder, threads=1)
    plain = gguf_files.write_folder(tmp_path / "plain", CONFIG, values)
    expected = Model.from_pretrained(plain, threads=1).logits(TOKENS)
    assert cases.same_bits(model.logits(TOKENS), expected)


@pytest.mark.parametrize("group", [32, 64, 128])
def test_a_packed_embedding(tmp_path, values, group):
    """Stays packed; every weight comes back, and it is the head of a tied model."""
    folder = write(tmp_path / "mlx", values, group)
    found = HuggingFace(folder).embedding()
    assert found.group == 256
    assert cases.same_bits(found.to_dense(), values.embedding + np.float32(0))
    logits = Model.from_pretrained(folder, threads=1).logits(TOKENS)
    plain = gguf_files.write_folder(tmp_path / "plain", CONFIG, values)
    expected = Model.from_pretrained(plain, threads=1).logits(TOKENS)
    assert np.abs(logits - expected).max() < 0.05 * expected.std()
    assert (logits.argmax(axis=1) == expected.argmax(axis=1)).all()


def test_scales_of_groups(tmp_path, values):
    """The fewest that are exact: here one for 128 inputs, in groups of 64; one of a group whose
    scale is 0, whatever its codes are, is any."""
    scales = np.repeat(np.float32([[0.5, 0.25]]), 2, axis=1)
    trits = values.linear[0, "q"][0]
    words, scales, biases = packed(trits, scales, 64)
    scales[3, :2] = biases[3, :2] = 0
    words[3, 0] = 0

    def change(tensors):
        stem = Q.removesuffix("weight")
        tensors |= {Q: words, f"{stem}scales": scales, f"{stem}biases": biases}

    found, scale = HuggingFace(write(tmp_path, values, 64, change=change)).trits(0, "q")
    expected = trits.copy()
    expected[3, :128] = 0
    assert cases.same_bits(found, expected)
    wanted = np.tile(np.float32([0.5, 0.25]), (len(trits), 1))
    wanted[3, 0] = 1
    assert cases.same_bits(scale, wanted)
    assert products(found, scale)[3, :128].any() == 0


def test_what_is_not_ternary_is_named(tmp_path, values):
    """The tensor, the row and what is there."""
    stem = Q.removesuffix("weight")

    def bias(tensors):
        tensors[f"{stem}biases"][7, 1] *= 2

    def code(tensors):
        tensors[Q][9, 3] |= 3 << 20

    def negative(tensors):
        for part in ("scales", "biases"):
            tensors[f"{stem}{part}"][2, 0] *= -1

    def missing(tensors):
        del tensors[f"{stem}scales"]

    def short(tensors):
        tensors[Q] = tensors[Q][:, 1:]

    def other(tensors):
        tensors["model.norm.scales"] = np.ones(3, np.float16)

    for change, words in (
        (bias, "has the bias row 7, expected a bias of -scale"),
        (code, "holds the code 3 in row 9, expected only 0, 1 and 2"),
        (negative, "holds the scale expected positive"),
        (missing, f"{stem}scales is missing"),
        (short, "has shape (512, 15), expected (512, 16)"),
        (other, "'model.norm.scales' quantisation"),
    ):
        folder = write(tmp_path, values, change=change)
        checkpoints.refused(folder, f"checkpoint: {words}")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"bits": 4}, "bits is 4, expected 2"),
        ({"group_size": 16}, "group_size is 16, expected 32 or 64 or 128 or 256"),
        ({"group_size": None}, "group_size is None"),
        ({"mode": "mxfp4"}, "mode is 'mxfp4', expected 'affine'"),
        ({"model.embed_tokens": {"group_size": 64, "bits": 4}}, "'model.embed_tokens' is {"),
    ],
)
def test_other_settings_are_named(tmp_path, values, settings, words):
    """Of config.json's quantization."""
    folder = write(tmp_path, values, settings=settings)
    checkpoints.refused(folder, f"config: quantization: {words}")


def test_floats_beside_them(tmp_path, values):
    """A matrix that was left in floats is read as any other."""
    stem = Q.removesuffix("weight")
    trits, scale = values.linear[0, "q"]

    def change(tensors):
        tensors[Q] = trits * scale
        del tensors[f"{stem}scales"], tensors[f"{stem}biases"]

    found = HuggingFace(write(tmp_path, values, change=change)).trits(0, "q")
    assert cases.same_bits(found[0], trits)
    assert found[1] == scale
