"""Ternary types of GGUF: every weight comes back, with as few scales as that takes."""

from __future__ import annotations

import functools
import shutil
import struct
from dataclasses import replace

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from gguf import quants

from ternops.decoder.formats.gguf import Gguf
from ternops.decoder.formats.gguf_blocks import decode, has_no_zeros
from ternops.decoder.formats.gguf_file import GgufFile
from ternops.decoder.formats.gguf_types import Q2_0_LAYOUTS, kind_of
from ternops.decoder.formats.loading import open_checkpoint
from ternops.decoder.formats.scales import fewest_scales, products
from ternops.decoder.formats.tables import packed_table
from ternops.decoder.weights import HalfMatrix
from ternops.memory import Arena
from tests.helpers import cases, gguf_files

#: Types with a scale a block, and the weights of a block.
BLOCKS = {"Q2_0": 64, "Q2_0 of 128": 128, "PQ2_0": 128, "PTQ1_0": 128, "Q1_0": 128, "TQ1_0": 256,
          "TQ2_0": 256}  # fmt: skip
#: Types with a scale a row.
ROWS = ("IQ1_BN", "IQ2_BN")
DOWN = "blk.1.ffn_down.weight"
#: A file of little more than one matrix of 512 inputs.
SMALL = replace(gguf_files.LLAMA, heads=1, kv_heads=1, head_dim=64, hidden=64, ffn=512, layers=2,
                vocabulary=3)  # fmt: skip


@pytest.fixture(scope="module")
def values():
    """The other tensors of every file here."""
    return gguf_files.random_values(SMALL)


def trits_of(kind, shape=(64, 512), seed=0):
    """Random ones that a type can hold; no block of 32 is all zero."""
    found = np.random.default_rng(seed).integers(-1, 2, shape, np.int8)
    found[:, ::32] = 1
    return np.where(found == 0, np.int8(-1), found) if kind == "Q1_0" else found


def scales_of(rows, groups, seed=0):
    """Random ones that float16 has."""
    found = np.random.default_rng(seed).uniform(0.01, 1, (rows, groups))
    return found.astype(np.float16).astype(np.float32)


def write(path, values, weight, kind, **settings):
    """A file whose matrix DOWN is a weight, in a type."""
    return gguf_files.write_gguf(
        path, values, kind="F16", config=SMALL, tensors={DOWN: (weight, kind)}, **settings
    )


def refused(path, *words):
    """Opening and reading it raises in one line that holds all the words."""
    with pytest.raises(ValueError, match=r"\A[^\n]*\Z") as caught:
        Gguf(path).trits(1, "down")
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "group"),
    [(kind, group) for kind, block in BLOCKS.items() for group in (64, 128, 256, 512, 64 * 512)
     if group >= block],
)  # fmt: skip
def test_scales_of_groups(tmp_path, values, kind, group):
    """One a group of inputs, a row or the matrix: the fewest that are exact, whatever the blocks
    of the file are."""
    trits = trits_of(kind)
    groups = 512 // min(group, 512)
    scales = scales_of(1 if group > 512 else 64, groups)
    weight = products(trits, np.repeat(scales, 64 // len(scales), axis=0))
    found, scale = Gguf(write(tmp_path / "a.gguf", values, weight, kind)).trits(1, "down")
    assert cases.same_bits(found, trits)
    expected = scales if group < 512 else scales[:, 0] if group == 512 else scales[0, 0]
    assert cases.same_bits(scale, np.asarray(expected))


@pytest.mark.parametrize("kind", ROWS)
def test_scales_of_rows(tmp_path, values, kind):
    """They stand before the blocks of each row; a row of zeros may have any."""
    trits, scales = trits_of(kind), scales_of(64, 1)
    trits[5] = 0
    weight = products(trits, scales)
    found, scale = Gguf(write(tmp_path / "a.gguf", values, weight, kind)).trits(1, "down")
    assert cases.same_bits(found, trits)
    scales[5] = 1
    assert cases.same_bits(scale, scales[:, 0])


def test_bytes_of_two_bits():
    """Weight j lies in byte j/4 at bits 2 (j%4); a float16 scale comes first."""
    data = np.full(18, 0b01_01_01_01, np.uint8)
    data[:2] = np.frombuffer(np.float16(0.75).tobytes(), np.uint8)
    data[2], data[17] = 0b00_01_01_10, 0b10_01_01_01
    trits, scale = decode(kind_named("Q2_0"), data, (1, 64))
    assert {int(at): int(trits[0, at]) for at in np.flatnonzero(trits)} == {0: 1, 3: -1, 63: 1}
    assert scale == np.float32(0.75)


def test_bytes_of_signs():
    """Weight j is bit j%8 of byte j/8: 1 is +d, 0 is -d."""
    data = np.zeros(18, np.uint8)
    data[:2] = np.frombuffer(np.float16(2).tobytes(), np.uint8)
    data[2], data[17] = 0b0000_0001, 0b1000_0000
    trits, scale = decode(kind_named("Q1_0"), data, (1, 128))
    assert np.flatnonzero(trits == 1).tolist() == [0, 127]
    assert (trits == -1).sum() == 126
    assert scale == 2


def test_zeros_among_signs():
    """A block whose scale is 0."""
    data = np.zeros((2, 2, 18), np.uint8)
    data[:, :, :2] = np.frombuffer(np.float16(2).tobytes(), np.uint8)
    data[1, 0, :2] = 0
    trits, scale = decode(kind_named("Q1_0"), data.reshape(-1), (2, 256))
    assert scale == 2
    assert (trits[1, :128] == 0).all()
    assert (np.delete(trits.reshape(4, 128), 2, axis=0) == -1).all()
    assert not has_no_zeros(kind_named("Q1_0"), data.reshape(-1))
    assert has_no_zeros(kind_named("Q1_0"), data[0].reshape(-1))


def test_bytes_of_iq1_bn():
    """Five weights a byte in base 3, the first the least significant, and the 16th of each 16 in
    the last byte: worked out by hand."""
    data = np.full(2 + 13, 0, np.uint8)
    data[:2] = np.frombuffer(np.float16(0.5).tobytes(), np.uint8)
    data[2] = -(-(2 * 1 + 0 * 3 + 1 * 9 + 2 * 27 + 0 * 81) * 256 // 243)
    data[14] = -(-(1 * 1 + 2 * 3 + 0 * 9 + 2 * 27) * 256 // 243)
    trits, scale = decode(kind_named("IQ1_BN"), data, (1, 64))
    assert trits[0, :5].tolist() == [1, -1, 0, 1, -1]
    assert trits[0, 15::16].tolist() == [0, 1, -1, 1]
    assert scale == 0.5


def test_bytes_of_iq2_bn():
    """Byte j holds the weights j, j + 16, j + 32 and j + 48."""
    data = np.full(4 + 16, 0b01_01_01_01, np.uint8)
    data[:4] = np.frombuffer(np.float32(0.3).tobytes(), np.uint8)
    data[4], data[19] = 0b00_01_10_01, 0b10_01_01_01
    trits, scale = decode(kind_named("IQ2_BN"), data, (1, 64))
    assert {int(at): int(trits[0, at]) for at in np.flatnonzero(trits)} == {16: 1, 48: -1, 63: 1}
    assert scale == np.float32(0.3)


def test_bytes_of_i2_s():
    """Weight 32 g + m of a block lies in byte m, group 0 in its highest bits; a scale follows."""
    data = np.full(2 * 64 + 32, 0b01_01_01_01, np.uint8)
    data[3] = 0b10_01_00_01
    data[64 + 32 + 31] = 0b01_01_01_10
    data[128:132] = np.frombuffer(np.float32(1.5).tobytes(), np.uint8)
    trits, scale = decode(kind_named("I2_S"), data, (2, 256))
    where = {(0, 3): 1, (0, 3 + 64): -1, (1, 128 + 96 + 31): 1}
    assert {tuple(map(int, at)): int(trits[tuple(at)]) for at in np.argwhere(trits)} == where
    assert cases.same_bits(scale, np.asarray(np.float32(1.5)))


def kind_named(name):
    """A type by its name, of llama.cpp's layout where there are two."""
    if name == "Q2_0":
        return Q2_0_LAYOUTS[0]
    return kind_of(gguf_files.NUMBERS[name])


@pytest.mark.parametrize("kind", ["TQ1_0", "TQ2_0"])
def test_blocks_equal_the_gguf_package(kind):
    """Of random bytes, whatever a quantiser would have made of them, each with its scale."""
    size = {"TQ1_0": 54, "TQ2_0": 66}[kind]
    random = np.random.default_rng(0)
    blocks = random.integers(0, 256, (40, 3, size), np.uint8)
    if kind == "TQ2_0":
        blocks[:, :, :-2] &= ~(blocks[:, :, :-2] >> 1 & 0x55)  # no code 3
    blocks[:, :, -2:] = scales_of(40, 3).astype(np.float16)[:, :, None].view(np.uint8)
    trits, scale = decode(kind_of(Type[kind].value), blocks.reshape(-1), (40, 768))
    assert scale.shape == (40, 3)
    expected = quants.dequantize(blocks.reshape(40, -1), Type[kind])
    assert cases.same_bits(products(trits, scale), expected + np.float32(0))


@pytest.mark.parametrize(
    ("scales", "expected"),
    [
        ([(2, 2), (2, 2)], 2),
        ([(2, None), (None, 2)], 2),
        ([(None, None), (3, None)], 3),
        ([(None, None), (None, None)], 1),
        ([(2, 2), (3, 3)], [2, 3]),
        ([(2, None), (None, 3)], [2, 3]),
        ([(2, None), (None, None), (3, 3)], [2, 1, 3]),
        ([(2, 3), (2, 2)], [(2, 3), (2, 2)]),
        ([(2, 3), (None, 4)], [(2, 3), (1, 4)]),
    ],
)
def test_scales_of_blocks(scales, expected):
    """One where they agree, one a row where rows differ, else one a block; what is all zero has no
    say, even with a scale that is no number."""
    blocks = np.full((len(scales), 2, 66), 0b10_10_10_10, np.uint8)
    for at in np.ndindex(blocks.shape[:2]):
        scale = scales[at[0]][at[1]]
        if scale is None:
            blocks[at][:64] = 0b01_01_01_01
        blocks[at][64:] = np.frombuffer(np.float16(scale or np.nan).tobytes(), np.uint8)
    trits, found = decode(kind_of(Type.TQ2_0), blocks.reshape(-1), (len(scales), 512))
    assert cases.same_bits(found, np.asarray(expected, np.float32))
    zero = [[scale is None for scale in row for _ in range(256)] for row in scales]
    assert cases.same_bits(trits, np.where(zero, 0, 1).astype(np.int8))


def test_the_fewest_scales():
    """The largest of 256, 128, 64 and 32 inputs that divides the row and loses nothing."""
    used = np.ones((1, 8), bool)
    for scales, columns, expected in (
        ([1, 1, 2, 2, 3, 3, 4, 4], 512, [1, 2, 3, 4]),
        ([1, 1, 1, 1, 3, 3, 3, 3], 512, [1, 3]),
        ([1, 1, 1, 1, 3, 3, 3, 4], 512, [1, 1, 1, 1, 3, 3, 3, 4]),
        ([1, 1, 2, 2, 3, 3, 4, 4], 256, [1, 2, 3, 4]),
        ([1, 2, 2, 3, 3, 4, 4, 1], 256, [1, 2, 2, 3, 3, 4, 4, 1]),
    ):
        found = fewest_scales(np.array([scales], np.float32), used, columns)
        assert found.tolist() == [expected]
    # 192 inputs: blocks of 32 go in pairs, not in fours.
    scales = np.array([[1, 1, 2, 2, 2, 2]], np.float32)
    assert fewest_scales(scales, used[:, :6], 192).tolist() == [[1, 2, 2]]


@pytest.mark.parametrize("kind", ["Q2_0", "Q2_0 of 128", "PQ2_0", "TQ2_0", "IQ2_BN"])
def test_the_code_3(tmp_path, values, kind):
    """It would be +2: refused, naming the tensor and the row."""
    weight = products(trits_of(kind), scales_of(64, 2 if kind not in ROWS else 1))
    path = write(tmp_path / "a.gguf", values, weight, kind)
    start, size = place(path)
    data = bytearray(path.read_bytes())
    data[start + 37 * size // 64 + 9] |= 0b11_00
    path.write_bytes(data)
    refused(path, f"checkpoint: {DOWN} holds the code 3 in row 37")


def place(path):
    """Where the bytes of DOWN begin in a file, and how many they are."""
    data = GgufFile(path).tensors[DOWN].data
    return data.ctypes.data - np.frombuffer(data.base, np.uint8).ctypes.data, len(data)


@pytest.mark.parametrize(
    ("kind", "bad"),
    [(kind, bad) for kind in [*BLOCKS, *ROWS] for bad in (0, -1, np.inf, np.nan)
     if bad != 0 or kind != "Q1_0"],
)  # fmt: skip
def test_a_bad_scale(tmp_path, values, kind, bad):
    """Of a block that holds anything."""
    weight = products(trits_of(kind), scales_of(64, 1))
    path = write(tmp_path / "a.gguf", values, weight, kind)
    start, size = place(path)
    data = bytearray(path.read_bytes())
    number = struct.pack("<f" if kind == "IQ2_BN" else "<e", bad)
    last = kind in ("TQ1_0", "TQ2_0", "PTQ1_0")
    at = start + (size - 2 if last else 0)
    data[at : at + len(number)] = number
    path.write_bytes(data)
    refused(path, f"checkpoint: {DOWN} holds the scale {np.float32(bad)}, expected positive")


@pytest.mark.parametrize("kind", ["Q2_0", "Q2_0 of 128"])
def test_both_layouts_of_type_42(tmp_path, values, kind):
    """Told apart by the sizes of all tensors of the type together, the last one's too."""
    weight = products(trits_of(kind), scales_of(64, 4))
    last = products(trits_of(kind, (16, 128)), scales_of(16, 1))
    tensors = {DOWN: (weight, kind), "blk.0.ffn_down.weight": (weight, kind)}
    path = gguf_files.write_gguf(
        tmp_path / "a.gguf", values, kind="F16", config=SMALL, tensors=tensors
    )
    assert cases.same_bits(products(*Gguf(path).trits(1, "down")), weight)
    only = write_one(tmp_path / "b.gguf", last, kind)
    assert cases.same_bits(products(*GgufFile(only).trits("x")), last)


def write_one(path, weight, kind, **settings):
    """A file of one tensor, x."""
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in settings.items():
        writer.add_uint32(key, value)
    gguf_files.add_tensor(writer, "x", weight, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_type_42_that_cannot_be_told(tmp_path):
    """A tensor so small that both layouts leave the same room, and one with room for neither."""
    weight = products(trits_of("Q2_0", (1, 128)), np.float32([[0.5]]))
    path = write_one(tmp_path / "a.gguf", weight, "Q2_0")
    with pytest.raises(ValueError, match=r"a\.gguf': type 42, Q2_0, is .*: both fit the sizes"):
        GgufFile(path)
    wide = products(trits_of("Q2_0", (3, 128)), np.float32([[0.5]] * 3))
    path = write_one(tmp_path / "b.gguf", wide, "Q2_0")
    path.write_bytes(path.read_bytes() + bytes(100))
    with pytest.raises(ValueError, match=r"b\.gguf': type 42, Q2_0, is .*: neither fits"):
        GgufFile(path)
    odd = products(trits_of("Q2_0", (1, 64)), np.float32([[0.5]]))
    assert GgufFile(write_one(tmp_path / "c.gguf", odd, "Q2_0")).tensors["x"].kind.weights == 64


@pytest.mark.parametrize("kind", [*BLOCKS, *ROWS])
def test_embeddings_and_heads(tmp_path, values, kind):
    """Packed, with a scale a group, whatever the file has; every weight comes back."""
    config = replace(SMALL, hidden=256, vocabulary=70)
    source = gguf_files.random_values(config)
    groups = 1 if kind in ROWS else 256 // BLOCKS[kind]
    embedding = products(trits_of(kind, (70, 256), 1), scales_of(70, groups))
    head = products(trits_of(kind, (70, 256), 2), scales_of(70, groups, 2))
    path = gguf_files.write_gguf(
        tmp_path / "a.gguf", replace(source, embedding=embedding, head=head), kind="F16",
        config=config, embedding=kind,
    )  # fmt: skip
    for found, expected in ((Gguf(path).embedding(), embedding), (Gguf(path).head(), head)):
        assert found.encoding == "two_bit"
        assert found.group == (256 if kind in ROWS else BLOCKS[kind])
        assert cases.same_bits(found.to_dense(), expected + np.float32(0))


def test_tables_that_have_no_groups(tmp_path):
    """Of other widths, or of a type for embeddings: two bytes a weight."""
    assert packed_table(trits_of("Q2_0", (8, 40)), np.float32(0.5), Arena()) is None
    config = replace(SMALL, hidden=256, vocabulary=70)
    path = gguf_files.write_gguf(
        tmp_path / "a.gguf", gguf_files.random_values(config), kind="F16", config=config,
        embedding="Q8_0",
    )  # fmt: skip
    assert isinstance(Gguf(path).embedding(), HalfMatrix)


@pytest.fixture
def split(tmp_path, values, monkeypatch):
    """The first of three parts that the gguf package's writer makes, and the whole file."""
    weight = trits_of("Q2_0") * np.float32(0.5)
    whole = write(tmp_path / "whole.gguf", values, weight, "Q2_0")
    folder = tmp_path / "parts"
    folder.mkdir()
    writer = functools.partial(gguf.GGUFWriter, split_max_tensors=8)
    monkeypatch.setattr(gguf_files, "GGUFWriter", writer)
    write(folder / "a.gguf", values, weight, "Q2_0")
    return sorted(folder.iterdir())[0], whole


def test_split_files(split):
    """The parts that the gguf package's writer makes are one model, by the path of the first or of
    their folder."""
    first, whole = split
    assert first.name == "a-00001-of-00003.gguf"
    ours, theirs = GgufFile(first), GgufFile(whole)
    assert set(ours.tensors) == set(theirs.tensors)
    for name, tensor in theirs.tensors.items():
        assert ours.tensors[name].data.tobytes() == tensor.data.tobytes()
    for path in (first, first.parent):
        checkpoint = open_checkpoint(path)
        assert checkpoint.config == Gguf(whole).config
        assert cases.same_bits(checkpoint.trits(1, "down")[0], trits_of("Q2_0"))


def test_split_files_that_are_not_whole(split):
    """The file that is missing, or not the part that its name says, is named."""
    first, _ = split
    second, third = (first.with_name(f"a-0000{at}-of-00003.gguf") for at in (2, 3))
    refused(second, "a-00002-of-00003.gguf' is a part, expected the path of 'a-00001-of-00003.gguf")
    shutil.copy(first, first.with_name("b.gguf"))
    refused(first.with_name("b.gguf"), "b.gguf': split.count is 3, expected a name that ends with")
    first.with_name("b.gguf").unlink()
    kept = third.read_bytes()
    shutil.copy(second, third)
    refused(first, "a-00003-of-00003.gguf': split.no and split.count are 1 and 3, expected 2 and 3")
    third.unlink()
    with pytest.raises(FileNotFoundError, match=r"its part 'a-00003-of-00003\.gguf' is missing$"):
        Gguf(first)
    third.write_bytes(kept)
    assert Gguf(first).config.layers == 2
