"""Blocks of llama.cpp's own quantisers are read as its own library reads them, and ours by it."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")

from ternops.decoder.formats import gguf_levels
from ternops.decoder.formats.gguf import Gguf
from ternops.decoder.formats.gguf_blocks import decode
from ternops.decoder.formats.gguf_types import Q2_0_LAYOUTS, kind_of
from ternops.decoder.formats.scales import products
from tests.helpers import cases, ggml, gguf_files

pytestmark = pytest.mark.peers

BLOCKS = {"Q2_0": 64, "Q1_0": 128, "TQ1_0": 256, "TQ2_0": 256}


def kind_named(name):
    """The type as it is read here."""
    return Q2_0_LAYOUTS[0] if name == "Q2_0" else kind_of(ggml.TYPES[name])


def ternary(kind, rows=12, columns=768):
    """Trits times a float16 scale for each block; only signs where the type has no zero."""
    random = np.random.default_rng(0)
    trits = random.choice([-1, 1] if kind == "Q1_0" else [-1, 0, 1], (rows, columns))
    scales = random.uniform(0.01, 1, (rows, columns // BLOCKS[kind])).astype(np.float16)
    return products(trits.astype(np.int8), scales.astype(np.float32))


@pytest.mark.parametrize("kind", BLOCKS)
def test_what_ggml_quantised(kind):
    """Ternary weights come back to the last bit, and any others as ggml itself reads them."""
    weight = ternary(kind)
    trits, scale = decode(kind_named(kind), ggml.quantize(weight, kind), weight.shape)
    assert cases.same_bits(products(trits, scale), weight + np.float32(0))
    assert scale.shape == (12, 768 // BLOCKS[kind])
    gaussian = np.random.default_rng(1).standard_normal((12, 768)).astype(np.float32)
    data = ggml.quantize(gaussian, kind)
    found = products(*decode(kind_named(kind), data, gaussian.shape))
    assert cases.same_bits(found, ggml.dequantize(data, kind) + np.float32(0))


@pytest.mark.parametrize("kind", ["Q2_0", "Q1_0"])
def test_what_our_tests_write(kind):
    """Is what ggml reads and writes: the helper of other tests says nothing of its own."""
    weight = ternary(kind)
    data = gguf_files.ternary_bytes(weight, kind)
    assert cases.same_bits(data, ggml.quantize(weight, kind))
    assert cases.same_bits(ggml.dequantize(data, kind) + np.float32(0), weight + np.float32(0))


@pytest.mark.parametrize("kind", ggml.TYPES)
def test_embeddings(tmp_path, kind):
    """Of every type, out of ggml's quantisers: what it reads, rounded to float16."""
    values = gguf_files.random_values(gguf_files.LLAMA)
    data = ggml.quantize(values.embedding, kind)
    expected = ggml.dequantize(data, kind)
    path = gguf_files.write_gguf(
        tmp_path / "a.gguf", values, tensors={"token_embd.weight": (data, kind)}
    )
    found = Gguf(path).embedding().to_dense() + np.float32(0)  # zeros have either sign
    assert cases.same_bits(found, expected.astype(np.float16).astype(np.float32) + np.float32(0))


@pytest.mark.parametrize("kind", gguf_levels.LAYOUTS)
def test_levels_are_read_as_its_library_reads_them(kind):
    """Of its own quantiser's blocks, some of zeros: the same floats."""
    w = cases.floats(8, 512, seed=7)
    w[3], w[5, 64:128] = 0, 0
    data = ggml.quantize(w, kind)
    values, scales, levels = gguf_levels.decode(kind_named(kind), data.reshape(-1), w.shape)
    dense = (values.reshape(*scales.shape, -1) * scales[..., None]).reshape(w.shape)
    assert np.array_equal(dense, ggml.dequantize(data, kind))
    assert set(np.unique(values)) <= set(levels)
    error = ((dense - w) ** 2).sum(axis=1) / np.maximum((w.astype(float) ** 2).sum(axis=1), 1e-9)
    assert error.max() < 0.02
