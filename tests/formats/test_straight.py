"""Blocks that become packed bytes without trits in between: the same matrix."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ternops import pack, set_num_threads
from ternops.decoder import Model
from ternops.decoder.formats import straight
from ternops.decoder.formats.codes import Code3
from ternops.decoder.formats.convert import convert
from ternops.decoder.formats.convert_gguf import convert_to_gguf
from ternops.decoder.formats.gguf import Gguf
from ternops.decoder.formats.loading import load_weights
from ternops.decoder.formats.packed import PackedFile
from ternops.decoder.formats.safetensors_file import map_file
from ternops.decoder.formats.scales import products
from ternops.encodings import PANELS
from tests.helpers import cases, gguf_files, internals

CONFIG = replace(gguf_files.QWEN3, hidden=512, ffn=768)


def scales(rows, groups):
    """Random ones that float16 has."""
    found = np.random.default_rng(1).uniform(0.01, 1, (rows, groups))
    return found.astype(np.float16).astype(np.float32)


def blocks_of(trits, width):
    """Of that many weights, behind two bytes of a scale: these, and their codes."""
    codes = (trits + 1).astype(np.uint8).reshape(len(trits), -1, width // 4, 4)
    data = (codes << np.arange(0, 8, 2, dtype=np.uint8)).sum(axis=3, dtype=np.uint8)
    scale = scales(*data.shape[:2]).astype(np.float16)
    blocks = np.concatenate([scale[..., None].view(np.uint8), data], axis=2)
    return scale, blocks[:, :, 2:]


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("width", [64, 128])
@pytest.mark.parametrize("shape", [(16, 256), (48, 768), (16, 2560), (4096, 1280)])
def test_the_bytes(eager_threads, shape, width, threads):
    """Those that packing the trits gives, and the scales."""
    trits = np.random.default_rng(0).integers(-1, 2, shape, np.int8)
    expected = PANELS["two_bit"].pack(trits)[: trits.size // 4]
    packed = np.zeros(trits.size // 4, np.uint8)
    scale, codes = blocks_of(trits, width)
    found = np.zeros(scale.shape, np.float16)
    with set_num_threads(threads):
        straight.pack_panels(codes, packed, found)
    assert cases.same_bits(packed, expected)
    assert cases.same_bits(found, scale)


def test_the_code_3():
    """In which row it is; of several, the last; in each place of a byte."""
    scale, codes = blocks_of(np.zeros((64, 512), np.int8), 128)
    codes[50, 3, 7] = codes[37, 1, 2] = 0b01_11_01_01
    with pytest.raises(Code3) as caught:
        straight.pack_panels(codes, np.zeros(64 * 128, np.uint8), scale)
    assert caught.value.row == 50
    for shift in range(0, 8, 2):
        scale, codes = blocks_of(np.zeros((64, 512), np.int8), 64)
        codes[shift, shift, 15 - shift] |= 3 << shift
        with pytest.raises(Code3) as caught:
            straight.pack_panels(codes, np.zeros(64 * 128, np.uint8), scale)
        assert caught.value.row == shift


def test_what_fits():
    """Whole panels and whole blocks."""
    assert straight.fits(32, 512)
    assert not straight.fits(24, 512)
    assert not straight.fits(32, 640)


@pytest.mark.parametrize("kind", ["Q2_0", "Q2_0 of 128", "PQ2_0", "TQ2_0"])
@pytest.mark.parametrize("group", [64, 128, 256])
def test_matrices_of_files(tmp_path, monkeypatch, kind, group):
    """Trits, scales and their dtype are those of `pack`; groups of zeros have any scale."""
    values = gguf_files.random_values(CONFIG)
    trits = np.random.default_rng(0).integers(-1, 2, (512, 768), np.int8)
    trits[5] = 0
    trits[17, :256] = 0
    block = {"Q2_0": 64, "TQ2_0": 256}.get(kind, 128)
    weight = products(trits, scales(512, 768 // max(group, block)))
    path = gguf_files.write_gguf(
        tmp_path / "a.gguf", values, "qwen3", "F16", config=CONFIG,
        tensors={"blk.1.ffn_down.weight": (weight, kind)},
    )  # fmt: skip
    found = Gguf(path).matrix(1, "down", "two_bit")
    expected = pack(*Gguf(path).trits(1, "down"), "two_bit")
    assert found.group == expected.group == max(group, block)
    assert found.scale.dtype == expected.scale.dtype == np.float16
    assert cases.same_bits(found.scale, expected.scale)
    assert cases.same_bits(found.to_trits(), trits)
    assert cases.same_bits(internals.packed(found).bytes, internals.packed(expected).bytes)
    # It is the straight way that was taken, where there is one.
    calls = []
    monkeypatch.setattr(Gguf, "trits", lambda *_: calls.append(_) or (trits, np.float32([1] * 512)))
    Gguf(path).matrix(1, "down", "two_bit")
    assert bool(calls) == (kind == "TQ2_0")


def test_damage_is_named(tmp_path):
    """As if there were no straight way."""
    values = gguf_files.random_values(CONFIG)
    trits = np.random.default_rng(0).integers(-1, 2, (512, 768), np.int8)
    data = gguf_files.ternary_bytes(products(trits, scales(512, 12)), "Q2_0")
    for at, value, words in ((7, 0xFF, "the code 3 in row 9"), (1, 0x80, "the scale -")):
        changed = data.copy()
        changed[9, at] |= value
        path = gguf_files.write_gguf(
            tmp_path / "a.gguf", values, "qwen3", "F16", config=CONFIG,
            tensors={"blk.1.ffn_down.weight": (changed, "Q2_0")},
        )  # fmt: skip
        with pytest.raises(ValueError, match=rf"blk\.1\.ffn_down\.weight holds {words}"):
            Gguf(path).matrix(1, "down", "two_bit")


def grouped_file(path, kind="Q2_0", group=128, names=None, embedding="F16"):
    """A model whose matrices (or those of some names) have a scale a group; its embedding, too,
    unless that has a kind for floats."""
    values = gguf_files.random_values(CONFIG)
    form = CONFIG.trunk.gguf[0]
    tensors = {}
    for at, (name, (trits, _)) in enumerate(values.linear.items()):
        if names is None or name[1] in names:
            rows, columns = trits.shape
            each = np.random.default_rng(at).uniform(0.01, 0.1, (rows, columns // group))
            each = each.astype(np.float32 if kind == "F32" else np.float16).astype(np.float32)
            tensors[form.matrix(*name)] = products(trits, each), kind
    if embedding != "F16":
        trits = np.sign(values.embedding).astype(np.int8)
        values.embedding = products(trits, scales(len(trits), CONFIG.hidden // group))
    return gguf_files.write_gguf(
        path, values, "qwen3", "TQ2_0", config=CONFIG, tensors=tensors, embedding=embedding
    )


@pytest.mark.parametrize("embedding", ["F16", "Q2_0 of 128"])
@pytest.mark.parametrize("kind", ["Q2_0 of 128", "F32"])
@pytest.mark.parametrize("encoding", ["two_bit", "base3"])
def test_packed_files(tmp_path, kind, encoding, embedding):
    """Keep groups and the dtype of their scales, and give the same matrices and logits; so does a
    GGUF file that is written of them."""
    source = grouped_file(tmp_path / "a.gguf", kind, embedding=embedding)
    target = tmp_path / "packed"
    convert(source, target, encoding)
    first, again = Gguf(source), PackedFile(target)
    for layer, name in ((0, "q"), (1, "down")):
        one, other = first.matrix(layer, name, encoding), again.matrix(layer, name, encoding)
        assert one.group == other.group == 128
        assert one.scale.dtype == (np.float32 if kind == "F32" else np.float16)
        assert cases.same_bits(one.scale, other.scale)
        assert cases.same_bits(internals.packed(one).bytes, internals.packed(other).bytes)
    assert list(again.verify())
    assert cases.same_bits(first.embedding().to_dense(), again.embedding().to_dense())
    models = [Model.from_pretrained(path, threads=1, weights=encoding) for path in (source, target)]
    logits = models[0].logits([1, 2, 3])
    assert cases.same_bits(models[1].logits([1, 2, 3]), logits)
    if kind != "F32":
        convert_to_gguf(target, tmp_path / "b.gguf")
        third = Model.from_pretrained(tmp_path / "b.gguf", threads=1, weights=encoding)
        assert type(third.weights.embedding) is type(models[0].weights.embedding)
        assert cases.same_bits(third.logits([1, 2, 3]), logits)


def test_matrices_of_several_groups(tmp_path):
    """All get that of the finest one: a model of shards has groups in some matrices alone."""
    path = grouped_file(tmp_path / "a.gguf", names=("o", "down"))
    weights = load_weights(Gguf(path), "two_bit")
    for layer in range(2):
        for name, matrix in weights.layers[layer].linear.items():
            assert matrix.group == 128
            trits, scale = Gguf(path).trits(layer, name)
            assert cases.same_bits(matrix.to_trits(), trits)
            dense = (matrix.to_trits().reshape(*matrix.scale.shape, 128) * np.float32(1)) * (
                matrix.scale[..., None].astype(np.float32)
            )
            assert cases.same_bits(dense.reshape(trits.shape), products(trits, scale))
    assert np.isfinite(Model.from_pretrained(path, threads=1).logits([1, 2, 3])).all()


def test_groups_that_a_file_cannot_have(tmp_path):
    """An encoding without panels; a packed file whose scales are not positive."""
    source, target = grouped_file(tmp_path / "a.gguf"), tmp_path / "packed"
    with pytest.raises(ValueError, match=r"^group=128: not with encoding 'tl1'"):
        convert(source, target, "tl1")
    assert not target.exists()
    convert(source, target, "two_bit")
    header, tensors = map_file(target)
    start = tensors["layers.1.down.scales128"].start
    data = bytearray(target.read_bytes())
    data[start : start + 2] = np.float16(-1).tobytes()
    target.write_bytes(data)
    with pytest.raises(ValueError, match="a scale of down in layer 1 is not positive"):
        load_weights(PackedFile(target), "two_bit")
    assert header


def test_signs(tmp_path):
    """A file of Q1_0 alone becomes one_bit, with the logits of two_bit; with a zero in it, or a
    matrix of another type, it does not."""
    values = gguf_files.random_values(CONFIG)
    random = np.random.default_rng(0)
    for at, (trits, _) in values.linear.items():
        signs = random.choice(np.array([-1, 1], np.int8), trits.shape)
        values.linear[at] = signs, scales(len(trits), trits.shape[1] // 128)
    path = gguf_files.write_gguf(tmp_path / "a.gguf", values, "qwen3", "Q1_0", config=CONFIG)
    models = [Model.from_pretrained(path, threads=1, weights=each)
              for each in ("ternary", "two_bit")]  # fmt: skip
    assert [model.encoding for model in models] == ["one_bit", "two_bit"]
    assert cases.same_bits(*(model.logits([1, 2, 3]) for model in models))
    values.linear[1, "o"][1][7, 2] = 0
    path = gguf_files.write_gguf(tmp_path / "b.gguf", values, "qwen3", "Q1_0", config=CONFIG)
    assert Model.from_pretrained(path, threads=1).encoding != "one_bit"
    path = grouped_file(tmp_path / "c.gguf")
    assert Gguf(path).preferred_encoding() != "one_bit"
