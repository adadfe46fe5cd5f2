"""Random GGUF files as gguf's own reader finds them, and how layouts are rounded for them."""

from __future__ import annotations

import contextlib
import os
from collections import namedtuple

import gguf
import numpy as np
import pytest

from bench.models import random_gguf as module
from bench.models.random_gguf import HEAD_TYPES, LINEAR_TYPES, for_llama_cpp, random_gguf
from ternops.cost.layouts import SIZES
from ternops.decoder import Config
from ternops.decoder.formats.loading import open_checkpoint

#: Rows of 256 and 512 weights, the numbers of rows no multiples of what repeats.
TINY = Config(
    hidden=256, ffn=512, layers=2, heads=8, kv_heads=2, head_dim=64, vocabulary=321, context=128,
    tied=False, rope_theta=500000.0,
)  # fmt: skip
TIED = Config(**{**TINY.__dict__, "tied": True})
SHAPES = {
    "attn_q": (512, 256), "attn_k": (128, 256), "attn_v": (128, 256), "attn_output": (256, 512),
    "ffn_gate": (512, 256), "ffn_up": (512, 256), "ffn_down": (256, 512),
}  # fmt: skip


def _tensors(path):
    """Name -> (type, shape with rows first, bytes as stored)."""
    return {
        each.name: (each.tensor_type.name.lower(), tuple(map(int, each.shape[::-1])), each.data)
        for each in gguf.GGUFReader(path).tensors
    }


@pytest.mark.parametrize("head", HEAD_TYPES)
@pytest.mark.parametrize("linear", LINEAR_TYPES)
def test_tensors_are_of_their_types_shapes_and_sizes(tmp_path, linear, head):
    with random_gguf(tmp_path, TINY, linear, head) as path:
        found = _tensors(path)
    expected = {"token_embd.weight": (head, (321, 256)), "output.weight": (head, (321, 256))}
    expected["output_norm.weight"] = ("f32", (256,))
    for layer in range(2):
        for name, shape in SHAPES.items():
            expected[f"blk.{layer}.{name}.weight"] = (linear, shape)
        for name in ("attn_norm", "ffn_norm"):
            expected[f"blk.{layer}.{name}.weight"] = ("f32", (256,))
    assert {name: each[:2] for name, each in found.items()} == expected
    for name, (kind, shape, data) in found.items():
        block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind.upper()]]
        assert data.nbytes == np.prod(shape) // block * size, name


@pytest.mark.parametrize("kind", sorted({*LINEAR_TYPES, *HEAD_TYPES}))
def test_weights_keep_activations_in_range(tmp_path, kind):
    """Finite, no two rows near each other alike, deviation 1/sqrt(K) within a factor of two."""
    linear = kind if kind in LINEAR_TYPES else "f16"
    head = kind if kind in HEAD_TYPES else "f16"
    of_kind = gguf.GGMLQuantizationType[kind.upper()]
    with random_gguf(tmp_path, TINY, linear, head) as path:
        found = _tensors(path)
    for name, (found_kind, shape, data) in found.items():
        if found_kind != kind:
            continue
        weights = gguf.dequantize(data, of_kind).reshape(shape)
        assert np.isfinite(weights).all()
        assert 0.5 < weights.std() * np.sqrt(shape[1]) < 2, name
        repeat = np.gcd(shape[0], 64)
        assert len(np.unique(weights, axis=0)) == repeat, name


def test_trits_are_trits(tmp_path):
    for kind in ("tq1_0", "tq2_0"):
        with random_gguf(tmp_path, TINY, kind, "f16") as path:
            data = _tensors(path)["blk.1.ffn_down.weight"][2]
        weights = gguf.dequantize(data, gguf.GGMLQuantizationType[kind.upper()])
        scale = np.float32(np.float16(1 / np.sqrt(512)))
        np.testing.assert_array_equal(np.unique(weights), np.array([-scale, 0, scale]))


def test_q2_0_as_our_own_reader_finds_it(tmp_path):
    """gguf's reader does not know the type."""
    with random_gguf(tmp_path, TINY, "q2_0", "q2_0") as path:
        checkpoint = open_checkpoint(path)
        trits, scale = checkpoint.trits(1, "down")
    assert trits.shape == (256, 512)
    assert set(np.unique(trits).tolist()) == {-1, 0, 1}
    assert scale.shape == (256, 8)
    assert (np.abs(scale * np.sqrt(512) - 1) < 0.51).all()


def test_the_layout_is_in_the_header(tmp_path):
    with random_gguf(tmp_path, TINY, "tq2_0", "q6_k") as path:
        reader = gguf.GGUFReader(path)
        fields = {name: field.contents() for name, field in reader.fields.items()}
    expected = {
        "general.architecture": "llama", "tokenizer.ggml.model": "no_vocab",
        "llama.vocab_size": 321, "llama.context_length": 128, "llama.block_count": 2,
        "llama.embedding_length": 256, "llama.feed_forward_length": 512,
        "llama.attention.head_count": 8, "llama.attention.head_count_kv": 2,
        "llama.attention.key_length": 64, "llama.attention.value_length": 64,
        "llama.rope.dimension_count": 64, "llama.rope.freq_base": 500000.0,
    }  # fmt: skip
    assert {name: fields[name] for name in expected} == expected


def test_a_tied_head_is_not_stored(tmp_path):
    with random_gguf(tmp_path, TIED, "tq1_0", "q8_0") as path:
        assert "output.weight" not in _tensors(path)


def test_the_file_is_removed(tmp_path):
    with contextlib.suppress(KeyError), random_gguf(tmp_path, TIED, "tq1_0", "f16") as path:
        assert os.listdir(tmp_path) == [path.name]
        raise KeyError
    assert os.listdir(tmp_path) == []


def test_bad_arguments(tmp_path, monkeypatch):
    odd = Config(**{**TINY.__dict__, "ffn": 500})
    cases = (
        (TINY, "q8_0", "f16", r"^linear: 'q8_0', expected tq1_0, tq2_0, q4_0, f16, q2_0$"),
        (TINY, "f16", "tq1_0", r"^head: 'tq1_0', expected f16, q8_0, q6_k, q4_0, q2_0$"),
        (odd, "tq1_0", "f16", r"^config: rows of blk\.0\.ffn_down\.weight have 500 weights, "
         r"expected a multiple of 256 for tq1_0$"),
    )  # fmt: skip
    for config, linear, head, message in cases:
        with pytest.raises(ValueError, match=message), random_gguf(tmp_path, config, linear, head):
            pass
    full = namedtuple("Usage", "free")(1000)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: full)
    with (
        pytest.raises(OSError, match=r"has 0\.0 GB free"),
        random_gguf(tmp_path, TINY, "f16", "f16"),
    ):
        pass
    assert os.listdir(tmp_path) == []


def test_only_rows_that_do_not_fit_are_rounded():
    for size, config in SIZES.items():
        if size != "3B":
            for linear in LINEAR_TYPES:
                assert for_llama_cpp(config, linear, "q6_k") == (config, 1.0), (size, linear)
    config = SIZES["3B"]
    assert for_llama_cpp(config, "f16", "f16") == (config, 1.0)
    assert for_llama_cpp(config, "q4_0", "q8_0") == (config, 1.0)
    assert for_llama_cpp(config, "q4_0", "q6_k")[0].hidden == 3328


@pytest.mark.parametrize("linear", ["tq1_0", "tq2_0"])
def test_3b_is_rounded_to_blocks_of_256(linear):
    rounded, ratio = for_llama_cpp(SIZES["3B"], linear, "f16")
    assert (rounded.hidden, rounded.ffn, rounded.heads, rounded.head_dim) == (3328, 8704, 32, 104)
    bits = {"tq1_0": 54 * 8 / 256, "tq2_0": 66 * 8 / 256}[linear]
    before = 26 * (4 * 3200**2 + 3 * 3200 * 8640) * bits + 32000 * 3200 * 16
    after = 26 * (4 * 3328**2 + 3 * 3328 * 8704) * bits + 32000 * 3328 * 16
    assert ratio == pytest.approx(after / before, rel=1e-12)
    assert 1.05 < ratio < 1.06
