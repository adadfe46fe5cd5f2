"""The same tokens and, nearly, the same logits as llama.cpp, of files in its types of levels.

Both round activations to int8 in blocks of 32, so that sums of a block are the same integers;
llama.cpp keeps the steps of blocks in float16, and sums in another order.
"""

from __future__ import annotations

import ctypes

import gguf
import numpy as np
import pytest

from ternops.decoder import Model
from ternops.decoder.formats.gguf import Gguf
from ternops.decoder.formats.gguf_file import GgufFile
from ternops.decoder.formats.gguf_levels import LAYOUTS
from ternops.decoder.weights import HalfMatrix
from tests.helpers import cases, gguf_files
from tests.peers import llama_models

llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
pytestmark = pytest.mark.peers

#: Those that llama.cpp's program makes of all of a model, and those that files are written in here.
QUANTISED = ("Q4_0", "Q8_0", "IQ4_NL")
WRITTEN = ("MXFP4", "NVFP4", "Q4_1", "Q5_0")
ARCHITECTURES = ("llama", "qwen3", "gemma3", "qwen2", "qwen35")


def of_floats(values):
    """The same model with Gaussian weights of the same size in its linear layers."""
    random = np.random.default_rng(11)
    for at, (trits, scale) in values.linear.items():
        spread = np.float32(np.sqrt(0.5))
        values.linear[at] = random.standard_normal(trits.shape, np.float32) * spread, scale
    return values


def quantised(folder, architecture, kind, values):
    """A file that llama.cpp quantised to a type."""
    plain = llama_models.write(folder / "plain.gguf", architecture, "F32", values)
    path = folder / "quantised.gguf"
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}")
    paths = str(plain).encode(), str(path).encode()
    assert llama_cpp.llama_model_quantize(*paths, ctypes.byref(settings)) == 0
    kinds = {name: tensor.kind.name for name, tensor in GgufFile(path).tensors.items()}
    assert kinds["blk.0.ffn_up.weight"] == kind
    return path


def nvfp4(floats):
    """Blocks of a matrix: scales in E4M3 that make the largest of 16 weights a 6, nearest codes."""
    rows = len(floats)
    groups = floats.reshape(-1, 16)
    table = np.array(LAYOUTS["NVFP4"].codes, np.float32)
    known = np.arange(0x08, 0x7E, dtype=np.uint8)
    data = np.zeros((1, 36), np.uint8)
    scales = []
    for each in known:
        data[0, :4] = each
        data[0, 4:] = 1
        scales.append(gguf.dequantize(data, gguf.GGMLQuantizationType.NVFP4)[0, 0])
    scales = np.array(scales)  # a code of 1 is one of them
    wanted = np.abs(groups).max(axis=1) / 12
    chosen = np.abs(scales - wanted[:, None]).argmin(axis=1)
    codes = np.abs(groups[:, :, None] / scales[chosen][:, None, None] - table).argmin(axis=2)
    nibbles = (codes[:, :8] | codes[:, 8:] << 4).astype(np.uint8).reshape(-1, 32)
    blocks = np.hstack([known[chosen].reshape(-1, 4), nibbles])
    return blocks.reshape(rows, -1)


def written(folder, architecture, kind, values):
    """A file whose linear layers are of a type."""
    if kind == "NVFP4":
        config, tensors = llama_models.CONFIGS[architecture], {}
        form = config.trunk.gguf[0]
        for (layer, name), (weights, scale) in values.linear.items():
            floats = weights * scale
            if form.interleaved and name in ("q", "k"):
                floats = gguf_files.neighbours(floats, config.head_dim)
            tensors[form.matrix(layer, name)] = nvfp4(floats), kind
        return gguf_files.write_gguf(
            folder / "a.gguf", values, architecture, "F32", embedding="F32", tensors=tensors,
            config=config, metadata={"tokenizer.ggml.model": "no_vocab"},
        )  # fmt: skip
    return llama_models.write(folder / "a.gguf", architecture, kind, values)


def made(folder, architecture, kind, values):
    """A file of a type, however it comes about."""
    make = quantised if kind in QUANTISED else written
    return make(folder, architecture, kind, of_floats(values))


@pytest.mark.parametrize("kind", QUANTISED + WRITTEN)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_same_greedy_tokens(tmp_path, architecture, kind):
    """48 steps after each prompt, on models whose margins are wider than all differences."""
    path = made(tmp_path, architecture, kind, llama_models.decided_values(architecture))
    model = Model.from_pretrained(path, threads=2)
    matrix = model.weights.layers[0].linear["down"]
    assert isinstance(matrix, HalfMatrix) == (kind not in LAYOUTS)
    for prompt in llama_models.PROMPTS:
        tokens = list(model.generate(prompt, max_new_tokens=48))
        assert len(tokens) == 48
        assert tokens == llama_models.their_tokens(path, prompt, 48)
        best = np.sort(llama_models.check_logits(path, prompt + tokens), axis=1)
        assert (best[:, -1] - best[:, -2]).min() > 2 * llama_models.LARGEST_DIFFERENCE


@pytest.mark.parametrize("kind", QUANTISED + WRITTEN)
@pytest.mark.parametrize("architecture", ARCHITECTURES[:3])
def test_nearly_the_same_logits(tmp_path, architecture, kind):
    """Of models that are all random, whose blocks outweigh the embedding."""
    path = made(tmp_path, architecture, kind, llama_models.random_values(architecture, 4))
    llama_models.check_logits(path, np.random.default_rng(1).integers(0, 256, 60).tolist())


@pytest.mark.parametrize("kind", QUANTISED)
def test_files_of_the_package_s_own_quantiser(tmp_path, kind):
    """gguf writes the same blocks as llama.cpp, or none; ours are read from both alike."""
    values = of_floats(llama_models.random_values("llama", 1))
    path = quantised(tmp_path, "llama", kind, values)
    try:
        again = llama_models.write(tmp_path / "again.gguf", "llama", kind, values)
    except NotImplementedError:
        assert kind == "IQ4_NL"
        return
    for layer, name in values.linear:
        first, second = (Gguf(each).matrix(layer, name, "two_bit") for each in (path, again))
        assert cases.same_bits(first.to_trits(), second.to_trits())
        assert cases.same_bits(first.scale, second.scale)
