"""Models in GGUF files of Q4_0, Q8_0, IQ4_NL, MXFP4, NVFP4 and others that are not ternary."""

from __future__ import annotations

from dataclasses import replace

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type

from ternops import pack
from ternops.decoder import Model, reference
from ternops.decoder.formats.convert import convert
from ternops.decoder.formats.convert_gguf import convert_to_gguf
from ternops.decoder.formats.gguf import Gguf
from ternops.decoder.formats.gguf_levels import LAYOUTS, decode
from ternops.decoder.formats.gguf_types import kind_of
from ternops.decoder.formats.loading import load_weights
from ternops.decoder.weights import HalfMatrix
from tests.helpers import cases, gguf_files

KIND = pytest.mark.parametrize("name", LAYOUTS)
CONFIG = replace(gguf_files.LLAMA, vocabulary=64)
#: Types whose matrices become floats.
ROUNDED = ("Q4_1", "Q5_0", "Q5_1", "Q6_K", "Q4_K")
TOKENS = [0, 63, 7, 7, 19, 50, 2]
Q, K, DOWN = "blk.0.attn_q.weight", "blk.1.attn_k.weight", "blk.1.ffn_down.weight"


def blocks(name, rows, columns):
    """Of a type, with scales of about a weight's size."""
    data = gguf_files.random_blocks(name, rows, columns)
    if LAYOUTS[name].scales == 2:
        scales = data[:, :, :2].copy().view(np.float16) * np.float16(0.2 / LAYOUTS[name].levels[-1])
        data[:, :, :2] = scales.view(np.uint8)
    elif name == "MXFP4":
        data[:, :, 0] = 121 + (data[:, :, 0] & 1)
    else:
        data[:, :, :4] = 0x10 + (data[:, :, :4] & 7)
    return data.reshape(rows, -1)


def model_file(path, name, tensors=None, config=CONFIG):
    """A LLaMA whose linear layers are random blocks of a type; gives the path and the blocks."""
    values, form = gguf_files.random_values(config), config.trunk.gguf[0]
    found = {
        form.matrix(*at): (blocks(name, *trits.shape), name)
        for at, (trits, _) in values.linear.items()
    }
    found |= tensors or {}
    return gguf_files.write_gguf(path, values, "llama", config=config, tensors=found), found


def dense_of(data, name, shape):
    """What gguf's own reader makes of blocks."""
    return gguf.dequantize(data.reshape(shape[0], -1), Type[name])


def halves(rows, head_dim=64):
    """Rows of heads rotated by neighbours, in the order of heads rotated by halves."""
    parts = rows.reshape(-1, head_dim // 2, 2, rows.shape[1])
    return parts.swapaxes(1, 2).reshape(rows.shape)


@KIND
def test_every_weight_is_the_file_s(tmp_path, name):
    """With the file's groups and levels, whatever encoding ternary matrices get; rows of queries
    and keys in the order of the decoder."""
    path, data = model_file(tmp_path / "a.gguf", name)
    checkpoint = Gguf(path)
    for layer, part, tensor in ((0, "q", Q), (1, "k", K), (1, "down", DOWN)):
        matrix = checkpoint.matrix(layer, part, "two_bit")
        expected = dense_of(data[tensor][0], name, matrix.shape)
        expected = halves(expected) if part in "qk" else expected
        assert matrix.encoding == LAYOUTS[name].encoding
        assert (matrix.levels, matrix.group) == (LAYOUTS[name].levels, LAYOUTS[name].group)
        assert np.array_equal(matrix.to_dense(), expected)
        assert np.array_equal(checkpoint.floats(layer, part), expected)
        packed = pack(*checkpoint.trits(layer, part), matrix.encoding, matrix.levels)
        assert cases.same_bits(matrix.scale, packed.scale)


@KIND
def test_logits_are_the_reference_s(tmp_path, name):
    """Bit for bit, of one token after another and of several at once; with fp16 weights nearly."""
    path, _ = model_file(tmp_path / "a.gguf", name)
    model = Model.from_pretrained(path, threads=2)
    expected = reference.logits(model, TOKENS)
    assert np.abs(expected).max() > 1
    assert cases.same_bits(model.logits(TOKENS), expected)
    tokens = list(model.generate(TOKENS, 8))
    assert tokens == [int(np.argmax(row)) for row in steps(model, TOKENS, tokens)]
    floats = Model.from_pretrained(path, threads=2, weights="fp16")
    assert isinstance(floats.weights.layers[0].linear["q"], HalfMatrix)
    off = np.abs(floats.logits(TOKENS) - expected).max()
    assert 0 < off < 0.2 * np.abs(expected).max()


def steps(model, prompt, tokens):
    """The reference's logits before each of the tokens."""
    return reference.logits(model, prompt + tokens)[len(prompt) - 1 : -1]


def test_matrices_of_several_types(tmp_path):
    """Levels, groups, trits and floats in one model; ternary ones alone take an encoding."""
    random = np.random.default_rng(3)
    floats = (random.standard_normal((256, 512)) / 30).astype(np.float32)
    trits = np.float32(0.03) * random.integers(-1, 2, (256, 512)).astype(np.float32)
    path, _ = model_file(
        tmp_path / "a.gguf", "Q4_0",
        {
            "blk.0.ffn_down.weight": (floats, "F16"),
            "blk.1.ffn_down.weight": (trits, "TQ2_0"),
            "blk.0.ffn_up.weight": (blocks("NVFP4", 512, 256), "NVFP4"),
            "blk.1.ffn_up.weight": (blocks("Q8_0", 512, 256), "Q8_0"),
            "blk.0.attn_v.weight": (floats[:128, :256].copy(), "Q4_1"),
            "blk.1.attn_v.weight": (floats[:128, :256].copy(), "BF16"),
        },
    )  # fmt: skip
    weights = load_weights(Gguf(path), "base3")
    first, second = (layer.linear for layer in weights.layers)
    assert {first[name].is_bf16 for name in ("down", "v")} == {False}
    assert second["v"].is_bf16
    assert np.array_equal(first["down"].to_dense(), floats.astype(np.float16))
    assert (second["down"].encoding, second["down"].group) == ("base3", 32)
    assert np.array_equal(second["down"].to_dense() != 0, trits != 0)
    assert (first["up"].encoding, first["up"].group) == ("nibble", 16)
    assert (second["up"].encoding, second["up"].group) == ("eight_bit", 32)
    assert (second["q"].encoding, second["q"].group) == ("nibble", 32)
    model = Model.from_pretrained(path, threads=2)
    assert cases.same_bits(model.logits(TOKENS), reference.logits(model, TOKENS))


@pytest.mark.parametrize("name", ROUNDED)
def test_what_is_rounded(tmp_path, name):
    """To float16, from what the package reads, rows of queries in the decoder's order."""
    rows, columns = 256, 512
    kind = kind_of(Type[name])
    random = np.random.default_rng(0)
    data = random.integers(0, 256, (rows, columns // kind.weights, kind.size), np.uint8)
    places = {"Q6_K": (208,), "Q4_1": (0, 2), "Q5_1": (0, 2), "Q4_K": (0, 2)}.get(name, (0,))
    for at in places:
        scales = random.uniform(0.001, 0.01, data.shape[:2]).astype(np.float16)
        data[:, :, at : at + 2] = scales[..., None].view(np.uint8)
    data = data.reshape(rows, -1)
    half = data[:, : data.shape[1] // 2].copy()
    path, _ = model_file(tmp_path / "a.gguf", "Q4_0", {DOWN: (data, name), Q: (half, name)})
    for layer, part, each, width in ((1, "down", data, columns), (0, "q", half, columns // 2)):
        matrix = Gguf(path).matrix(layer, part, "two_bit")
        assert isinstance(matrix, HalfMatrix)
        expected = dense_of(each, name, (rows, width))
        expected = halves(expected) if part == "q" else expected
        assert cases.same_bits(matrix.to_dense(), expected.astype(np.float16).astype(np.float32))
        assert cases.same_bits(Gguf(path).floats(layer, part), matrix.to_dense())


@pytest.mark.parametrize("name", ["Q8_0", "NVFP4"])
def test_a_factor_beside_the_blocks(tmp_path, name):
    """Multiplies the scales, as files of NVFP4 have it, and floats."""
    factor = np.float32([0.3])
    path, data = model_file(
        tmp_path / "a.gguf", name,
        {"blk.1.ffn_down.scale": factor, "blk.0.attn_q.scale": factor,
         "blk.0.ffn_up.weight": (np.ones((512, 256), np.float32), "BF16"),
         "blk.0.ffn_up.scale": factor},
    )  # fmt: skip
    for layer, part, tensor in ((1, "down", DOWN), (0, "q", Q)):
        matrix = Gguf(path).matrix(layer, part, "two_bit")
        values, scales, _ = decode(kind_of(Type[name]), data[tensor][0].reshape(-1), matrix.shape)
        scales = scales * factor[0]
        if part == "q":
            values, scales = halves(values), halves(scales)
        assert cases.same_bits(matrix.to_trits(), values)
        assert np.array_equal(np.asarray(matrix.scale, np.float32), scales)
        assert np.array_equal(Gguf(path).trits(layer, part)[1], scales)
    up = Gguf(path).matrix(0, "up", "two_bit")
    assert (up.to_dense() == np.float16(0.3)).all()
    path, _ = model_file(tmp_path / "b.gguf", name, {"blk.1.ffn_down.scale": np.float32([-1])})
    with pytest.raises(ValueError, match=r"blk\.1\.ffn_down\.scale holds the scale -1\.0"):
        Gguf(path).matrix(1, "down", "two_bit")


def test_damage_is_named(tmp_path):
    """The tensor, the row and what was expected."""
    data = blocks("Q8_0", 256, 512)
    data[9, 40] = 0x80
    path, _ = model_file(tmp_path / "a.gguf", "Q8_0", {DOWN: (data, "Q8_0")})
    words = r"^checkpoint: blk\.1\.ffn_down\.weight holds -128 in row 9, expected -127 to 127 in"
    with pytest.raises(ValueError, match=words):
        Model.from_pretrained(path, threads=1)
    data = blocks("Q4_0", 256, 512)
    data[3, 18:20] = np.frombuffer(np.float16(np.nan).tobytes(), np.uint8)
    path, _ = model_file(tmp_path / "b.gguf", "Q4_0", {DOWN: (data, "Q4_0")})
    with pytest.raises(ValueError, match=r"ffn_down\.weight holds the scale nan in row 3, expect"):
        Model.from_pretrained(path, threads=1)


def test_a_packed_file_has_all_of_it(tmp_path):
    """Levels, scales of both signs, and floats beside them."""
    down = cases.floats(256, 512).astype(np.float16).view(np.uint8)
    path, _ = model_file(tmp_path / "a.gguf", "Q4_0", {DOWN: (down, "F16")})
    convert(path, tmp_path / "packed.safetensors")
    ours, theirs = (Model.from_pretrained(each) for each in (tmp_path / "packed.safetensors", path))
    assert ours.types == theirs.types
    assert "nibble" in ours.encoding
    assert "fp16" in ours.encoding
    assert cases.same_bits(ours.logits(TOKENS), theirs.logits(TOKENS))


def test_gguf_of_more_levels_is_not_written(tmp_path):
    path, _ = model_file(tmp_path / "a.gguf", "Q4_0")
    words = r"^checkpoint: q in layer 0 has more levels than -1, 0 and 1, expected a ternary model"
    with pytest.raises(ValueError, match=words):
        convert_to_gguf(path, tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_floats_alone_are_no_such_model(tmp_path):
    """They are to be rounded, as before: there is nothing of levels in the file."""
    path, _ = model_file(tmp_path / "a.gguf", "Q4_0")
    values = gguf_files.random_values(CONFIG)
    for at, (trits, scale) in values.linear.items():
        values.linear[at] = trits + np.float32(0.25), scale
    path = gguf_files.write_gguf(tmp_path / "b.gguf", values, "llama", "F16", config=CONFIG)
    with pytest.raises(ValueError, match="is not ternary: --quantize absmean"):
        Gguf(path).matrix(0, "q", "two_bit")
