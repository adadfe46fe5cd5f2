"""Embeddings and heads that are floats in their files, and trits times scales already."""

from __future__ import annotations

import numpy as np
import pytest

from ternops.decoder import Model, open_checkpoint, reference
from ternops.decoder.formats import convert
from ternops.decoder.formats.convert_gguf import convert_to_gguf
from ternops.decoder.formats.scales import products
from ternops.decoder.weights import HalfMatrix
from ternops.matrix import TernaryMatrix
from tests.helpers import cases, checkpoints, gguf_files

TOKENS = [0, 32, 7, 7, 19, 2]
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
LLAMA = {
    **{k: v for k, v in checkpoints.CONFIG.items() if k != "quantization_config"},
    "architectures": ["LlamaForCausalLM"],
    "hidden_act": "silu",
    "hidden_size": 128,
    "intermediate_size": 384,
}


def ternary(shape, seed, group=32, dtype=np.float16):
    """Floats with a scale for so many inputs, each of them exact in bfloat16."""
    random = np.random.default_rng(seed)
    scale = random.integers(128, 256, (shape[0], shape[1] // group)).astype(np.float32) / 256
    trits = random.integers(-1, 2, shape, np.int8)
    trits[:, ::32] = 1
    return products(trits, scale).astype(dtype)


def folder_values(group=32):
    """The tensors of a LLaMA whose weights, all but the norms, are ternary."""
    widths = {"q_proj": (30, 128), "k_proj": (10, 128), "v_proj": (10, 128), "o_proj": (128, 30),
              "gate_proj": (384, 128), "up_proj": (384, 128), "down_proj": (128, 384)}  # fmt: skip
    values = {}
    for seed, name in enumerate(checkpoints.tensors()):
        kind = name.split(".")[-2]
        if "sub_norm" in name:
            continue
        if kind in widths:
            values[name] = ternary(widths[kind], seed, widths[kind][1])
        elif kind in ("embed_tokens", "lm_head"):
            values[name] = ternary((33, 128), seed, group)
        else:
            values[name] = np.random.default_rng(seed).uniform(0.5, 2, 128).astype(np.float16)
    return values


@pytest.mark.parametrize("dtype", ["F16", "F32", "BF16"])
@pytest.mark.parametrize("group", [32, 64, 128])
def test_a_table_of_a_folder(tmp_path, group, dtype):
    """Is packed, every float comes back, and logits are the oracle's, here and out of both files
    that can be made of it."""
    values = folder_values(group)
    if dtype != "F16":
        values = {name: each.astype(np.float32) for name, each in values.items()}
    folder = checkpoints.write(tmp_path / "x", LLAMA, values)
    if dtype == "BF16":
        checkpoints.write_bf16(folder / "model.safetensors", values)
    model = Model.from_pretrained(folder, threads=2)
    for matrix, name in ((model.weights.embedding, EMBEDDING), (model.weights.head, HEAD)):
        assert isinstance(matrix, TernaryMatrix)
        assert matrix.group == group
        found = products(matrix.to_trits(), np.asarray(matrix.scale, np.float32))
        assert (found == values[name].astype(np.float32)).all()
    logits = model.logits(TOKENS)
    assert cases.same_bits(logits, reference.logits(model, TOKENS))
    convert.convert(folder, tmp_path / "packed")
    convert_to_gguf(folder, tmp_path / "a.gguf")
    for name in ("packed", "a.gguf"):
        other = Model.from_pretrained(tmp_path / name, threads=1)
        assert isinstance(other.weights.head, TernaryMatrix)
        assert cases.same_bits(other.logits(TOKENS), logits)


def test_fp16_weights(tmp_path):
    """The baseline has tables of two bytes a weight, too, of the same values."""
    values = folder_values()
    folder = checkpoints.write(tmp_path, LLAMA, values)
    model = Model.from_pretrained(folder, weights="fp16", threads=2)
    for matrix, name in ((model.weights.embedding, EMBEDDING), (model.weights.head, HEAD)):
        assert isinstance(matrix, HalfMatrix)
        assert (matrix.to_dense() == values[name].astype(np.float32)).all()
    assert cases.same_bits(model.logits(TOKENS), reference.logits(model, TOKENS))


@pytest.mark.parametrize(("row", "column"), [(0, 0), (32, 127)])
def test_one_float_that_is_another(tmp_path, row, column):
    """The table stays as it is, of two bytes a weight."""
    values = folder_values()
    values[HEAD][row, column] = 3  # all others are below 1
    folder = checkpoints.write(tmp_path, LLAMA, values)
    model = Model.from_pretrained(folder, threads=1)
    assert isinstance(model.weights.head, HalfMatrix)
    assert isinstance(model.weights.embedding, TernaryMatrix)
    assert cases.same_bits(model.weights.head.to_dense(), values[HEAD].astype(np.float32))


def test_tables_of_a_declared_bitnet(tmp_path):
    """Stay as they are: what reads them was not trained to be rounded."""
    config = {**LLAMA, "quantization_config": checkpoints.CONFIG["quantization_config"]}
    folder = checkpoints.write(tmp_path, config, folder_values())
    assert isinstance(open_checkpoint(folder).embedding(), HalfMatrix)


def test_columns_without_groups(tmp_path):
    """30 inputs are no whole groups: nothing is packed."""
    config = {**LLAMA, "hidden_size": 30, "intermediate_size": 70}
    values = checkpoints.tensors(np.float16)
    sizes = {"q_proj": (30, 30), "k_proj": (10, 30), "v_proj": (10, 30), "o_proj": (30, 30),
             "gate_proj": (70, 30), "up_proj": (70, 30), "down_proj": (30, 70)}  # fmt: skip
    for seed, name in enumerate(list(values)):
        kind = name.split(".")[-2]
        if "sub_norm" in name:
            del values[name]
        elif kind in sizes:
            values[name] = ternary(sizes[kind], seed, sizes[kind][1])
        else:
            shape = (33, 30) if values[name].ndim == 2 else (30,)
            values[name] = np.ones(shape, np.float16)
    folder = checkpoints.write(tmp_path, config, values)
    assert isinstance(Model.from_pretrained(folder, threads=1).weights.head, HalfMatrix)


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
def test_a_table_of_a_gguf(tmp_path, kind):
    """The same."""
    config = gguf_files.QWEN3
    values = gguf_files.random_values(config)
    values.embedding = ternary(values.embedding.shape, 3, 64, np.float32)
    path = gguf_files.write_gguf(
        tmp_path / "a.gguf", values, "qwen3", config=config, embedding=kind,
        metadata={"tokenizer.ggml.model": "no_vocab"},
    )  # fmt: skip
    matrix = open_checkpoint(path).embedding()
    assert isinstance(matrix, TernaryMatrix)
    found = products(matrix.to_trits(), np.asarray(matrix.scale, np.float32))
    assert cases.same_bits(found, values.embedding)
