"""Packed files hold a model bit for bit, are used where they lie, and are refused if they lie."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil

import numpy as np
import pytest
import safetensors.numpy

import ternops
from ternops.decoder import Config, Model
from ternops.decoder.formats import convert, packed
from ternops.decoder.formats.hugging_face import HuggingFace
from ternops.decoder.formats.loading import TINY, load_weights, open_checkpoint
from ternops.decoder.formats.packed import PackedFile
from ternops.decoder.formats.packed_header import header_checksum, whole_lines
from ternops.encodings import ENCODINGS, TERNARY
from ternops.isa import detect
from ternops.kernels import tuning
from tests.helpers import cases, checkpoints, gguf_files, internals, processes

TOKENS = [0, 32, 7, 7, 19, 2]
#: A model with untied head, odd sizes and float16 embedding, one with a tokenizer, one in GGUF.
SOURCES = {
    "small": lambda path: checkpoints.write(path),
    "tiny": lambda path: shutil.copytree(TINY, path),
    "gguf": lambda path: gguf_files.write_gguf(
        path, gguf_files.random_values(gguf_files.LLAMA), kind="I2_S"
    ),
}


def model_files(path):
    """(header, data) of a safetensors file."""
    raw = path.read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    return json.loads(raw[8:start]), raw[start:]


def write_file(path, header, data, shift=0):
    """A safetensors file whose tensors start `shift` bytes after a multiple of 64, the checksum of
    its header put right."""
    if isinstance(header, dict) and "header_crc32" in header["__metadata__"]:
        header["__metadata__"]["header_crc32"] = header_checksum(header)
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += b" " * ((shift - 8 - len(text)) % 64)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


@pytest.fixture
def small(tmp_path):
    """The packed file of a small model in base3."""
    path = tmp_path / "small.safetensors"
    convert.convert(checkpoints.write(tmp_path / "source"), path)
    return path


@pytest.mark.parametrize("encoding", TERNARY)
@pytest.mark.parametrize("name", SOURCES)
def test_a_packed_model_is_the_same_model(tmp_path, name, encoding):
    """Config, weights and logits, bit for bit; packed again from the packed file, too."""
    source = SOURCES[name](tmp_path / "source")
    path, again = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    convert.convert(source, path, encoding)
    convert.convert(path, again, encoding)
    assert path.read_bytes() == again.read_bytes()
    opened, original = open_checkpoint(path), open_checkpoint(source)
    assert isinstance(opened, PackedFile)
    assert opened.config == original.config
    theirs = load_weights(original, encoding)
    for weights in (load_weights(opened, encoding), load_weights(opened, "fp16")):
        assert weights.embedding.is_bf16 == theirs.embedding.is_bf16
        assert cases.same_bits(weights.embedding.bits, theirs.embedding.bits)
        assert cases.same_bits(weights.head.bits, theirs.head.bits)
        assert (weights.head is weights.embedding) == opened.config.tied
        assert cases.same_bits(weights.norm, theirs.norm)
    model = Model.from_pretrained(path, weights=encoding, threads=1)
    assert model.encoding == encoding
    expected = Model.from_pretrained(source, weights="two_bit", threads=1)
    assert cases.same_bits(model.logits(TOKENS), expected.logits(TOKENS))
    half = [Model.from_pretrained(each, weights="fp16", threads=1) for each in (path, source)]
    assert cases.same_bits(half[0].logits(TOKENS), half[1].logits(TOKENS))


def test_text_comes_along(tmp_path):
    """Tokenizer, special tokens and chat template, with blanks and line ends as they were."""
    source = shutil.copytree(TINY, tmp_path / "source")
    (source / "chat_template.jinja").unlink()
    path = tmp_path / "x.safetensors"
    template = "{{ bos_token }}\n{# é 漢 #}  \n\n"
    for content in (None, template):
        if content:
            (source / "chat_template.jinja").write_text(content, "utf-8")
        convert.convert(source, path)
        opened, original = open_checkpoint(path), open_checkpoint(source)
        assert opened.chat_template() == content
        assert opened.special_tokens() == original.special_tokens() != {}
        assert opened.tokenizer().to_str() == original.tokenizer().to_str()


def test_the_safetensors_package_reads_it(small):
    """As any other file of that format: names, dtypes, and values where they are known."""
    checkpoint, source = open_checkpoint(small), HuggingFace(small.parent / "source")
    tensors = safetensors.numpy.load_file(small)
    kinds = {name.rsplit(".")[-1]: array.dtype for name, array in tensors.items()}
    assert kinds == {
        "embedding": np.float16, "head": np.float16, "norm": np.float32, "packed": np.uint8,
        "scale": np.float32,
    }  # fmt: skip
    assert cases.same_bits(tensors["embedding"][:, :24], source.embedding().to_dense()
                           .astype(np.float16))  # fmt: skip
    assert not tensors["embedding"][:, 24:].any()
    for layer in range(2):
        for name, (rows, columns) in checkpoint.config.linear_shapes().items():
            trits, scale = source.trits(layer, name)
            data = tensors[f"layers.{layer}.{name}.packed"]
            assert cases.same_bits(ENCODINGS["base3"].unpack(data, rows, columns), trits)
            assert tensors[f"layers.{layer}.{name}.scale"].tolist() == [scale] + 15 * [0]


@pytest.mark.parametrize("name", SOURCES)
def test_every_tensor_starts_at_a_cache_line(tmp_path, name):
    """In the file, whatever its length; none overlaps another, nothing is left over."""
    path = tmp_path / "x.safetensors"
    convert.convert(SOURCES[name](tmp_path / "source"), path)
    header, data = model_files(path)
    start, at = path.stat().st_size - len(data), 0
    for key, tensor in header.items():
        if key != "__metadata__":
            first, last = tensor["data_offsets"]
            assert first == at
            assert (start + first) % 64 == 0
            at = last
    assert at == len(data)


def mapping_of(array):
    """What an array is finally a view of."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def test_weights_are_views_of_the_file(small):
    """Nothing of it is copied, and nothing can be written to."""
    weights = load_weights(open_checkpoint(small), "base3")
    arrays = [weights.embedding.bits, weights.head.bits, weights.norm]
    for layer in weights.layers:
        arrays += [internals.packed(each).bytes for each in layer.linear.values()]
        arrays += [internals.packed(each).scale for each in layer.linear.values()]
        arrays += layer.norms.values()
    for array in arrays:
        assert isinstance(mapping_of(array), np.memmap)
        assert not array.flags.writeable
        assert array.ctypes.data % 64 == 0


def test_a_model_outlives_its_file(small):
    """Written anew in another encoding, and removed: nothing changes for who has opened it."""
    model = Model.from_pretrained(small, weights="base3", threads=1)
    before = model.logits(TOKENS)
    convert.convert(small.parent / "source", small, "two_bit")
    assert open_checkpoint(small).encoding == "two_bit"
    assert cases.same_bits(model.logits(TOKENS), before)
    small.unlink()
    assert cases.same_bits(model.logits(TOKENS), before)


@pytest.mark.slow
def test_a_hundred_billion_weights_open_at_once(tmp_path):
    """A file of 20 GB, all of it a hole, is opened in the memory of its header and norms."""
    config = Config(
        hidden=10240, ffn=36864, layers=74, heads=80, kv_heads=8, head_dim=128, vocabulary=128256,
        context=4096, activation="relu2", architecture="bitnet",
    )  # fmt: skip
    small = checkpoints.write(tmp_path / "source")
    convert.convert(small, tmp_path / "small")
    header, _ = model_files(tmp_path / "small")
    metadata = header["__metadata__"]
    raw = dataclasses.asdict(config)
    header, at = {"__metadata__": {**metadata, "config": json.dumps(raw)}}, 0

    def add(name, dtype, shape, size):
        nonlocal at
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size

    add("embedding", "F16", [128256, 10240], 2 * 128256 * 10240)
    for layer in range(config.layers):
        for name, shape in config.linear_shapes().items():
            size = whole_lines(ENCODINGS["base3"].nbytes(*shape) + 64)
            add(f"layers.{layer}.{name}.packed", "U8", [size], size)
            add(f"layers.{layer}.{name}.scale", "F32", [16], 64)
        for name, size in config.norm_sizes().items():
            add(f"layers.{layer}.{name}.norm", "F32", [size], 4 * size)
    add("norm", "F32", [10240], 40960)
    path = tmp_path / "big"
    write_file(path, header, b"")
    os.truncate(path, path.stat().st_size + at)
    done = processes.program("memory_of_opening", str(path), timeout=120)
    assert done.returncode == 0, done.stderr
    weights, size, memory = map(int, done.stdout.split())
    assert weights > 100e9
    assert size > 20e9
    assert memory < 100e6


class ManyScales(HuggingFace):
    """A source with a scale a row for some matrices."""

    def trits(self, layer, name):
        trits, scale = super().trits(layer, name)
        if name in ("q", "down"):
            scale = np.linspace(0.01, 1, len(trits), dtype=np.float32)
        return trits, scale


def test_scales_of_rows(tmp_path, monkeypatch):
    """They are kept as they are, along with those of whole matrices."""
    folder = checkpoints.write(tmp_path / "source")
    monkeypatch.setattr(convert, "open_checkpoint", ManyScales)
    convert.convert(folder, tmp_path / "x")
    opened, source = open_checkpoint(tmp_path / "x"), ManyScales(folder)
    for name in source.config.linear_shapes():
        (trits, scale), (theirs, expected) = opened.trits(1, name), source.trits(1, name)
        assert cases.same_bits(trits, theirs)
        assert cases.same_bits(scale, expected)
    assert opened.trits(0, "q")[1].shape == (30,)
    again = tmp_path / "again"
    monkeypatch.undo()
    convert.convert(tmp_path / "x", again)
    assert again.read_bytes() == (tmp_path / "x").read_bytes()


@pytest.mark.parametrize("encoding", TERNARY)
def test_which_encoding_a_file_is_loaded_in(tmp_path, monkeypatch, encoding):
    """Its own; base3 is converted, and says so once, where a tier is slow with it."""
    path = tmp_path / "x"
    convert.convert(checkpoints.write(tmp_path / "source"), path, encoding)
    tier = detect.TIER.name

    def prefer(streamed):
        changed = dataclasses.replace(detect.TIER, auto=("two_bit", streamed))
        for module in (packed, tuning):
            monkeypatch.setattr(module, "TIER", changed)

    prefer("base3")
    expected = Model.from_pretrained(path, threads=1)
    assert expected.encoding == encoding
    prefer("two_bit")
    if encoding == "base3":
        with pytest.warns(UserWarning, match=f"base3, which is slow on {tier}") as warnings:
            model = Model.from_pretrained(path, threads=1)
        assert len(warnings) == 1
        assert model.encoding == "two_bit"
        assert cases.same_bits(model.logits(TOKENS), expected.logits(TOKENS))
    else:
        assert Model.from_pretrained(path, threads=1).encoding == encoding
    assert Model.from_pretrained(path, weights=encoding, threads=1).encoding == encoding


# What is refused.


def refused(path, words):
    """Opening raises in one line that names the file and holds all the words."""
    with pytest.raises(ValueError, match=path.name) as caught:
        open_checkpoint(path)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 1000
    for word in words.split():
        assert word in message, message


def test_damaged_files(small):
    """Cut off anywhere, with bytes too many, and a file of another kind."""
    raw = small.read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    for length in (0, 1, 7, 8, 9, start - 1, start, start + 1, len(raw) - 64, len(raw) - 1):
        small.write_bytes(raw[:length])
        refused(small, "intact")
    for other in (raw + b"\0", b"x" * 1000, (2**62).to_bytes(8, "little") + raw[8:]):
        small.write_bytes(other)
        refused(small, "intact")
    for text in (b"[" * 100_000, b"{}}", b"null", b'{"a":', b"\xff" * 64):
        write_file(small, text, b"")
        refused(small, "intact")


def test_other_safetensors_files(small):
    """A matrix of this package, a checkpoint of others."""
    ternops.pack(cases.trits(3, 9)).save(small)
    refused(small, "format 'ternops' expected model quantize")
    safetensors.numpy.save_file({"x": np.zeros(3)}, small, {"format": "pt"})
    refused(small, "format 'pt'")
    safetensors.numpy.save_file({"x": np.zeros(3)}, small)
    refused(small, "format None")


def config_with(**changes):
    """A change of some fields of the config."""

    def change(header):
        metadata = header["__metadata__"]
        metadata["config"] = json.dumps({**json.loads(metadata["config"]), **changes})

    return change


def metadata_with(**changes):
    """A change of some entries of the metadata; None removes one."""

    def change(header):
        metadata = {**header["__metadata__"], **changes}
        kept = {key: value for key, value in metadata.items() if value is not None}
        header["__metadata__"] = kept

    return change


def tensor_with(name, **changes):
    """A change of what the header says of a tensor."""
    return lambda header: header[name].update(changes)


def renamed(old, new):
    """A change of a tensor's name."""
    return lambda header: header.update({new: header.pop(old)})


def swapped(one, other):
    """Two tensors' entries exchanged."""
    return lambda header: header.update({one: header[other], other: header[one]})


Q = "layers.1.q.packed"
LIES = {
    "another version": (metadata_with(version="3"), "version '3' expected '2'"),
    "no version": (metadata_with(version=None), "version None"),
    "another format": (metadata_with(format="ternops"), "format 'ternops'"),
    "another encoding": (metadata_with(encoding="tl2"), "expected U8"),
    "no such encoding": (metadata_with(encoding="int4"), "encoding 'int4' two_bit"),
    "no encoding": (metadata_with(encoding=None), "encoding missing"),
    "no config": (metadata_with(config=None), "config missing"),
    "config no JSON": (metadata_with(config="{"), "config JSON"),
    "config a list": (metadata_with(config="[]"), "config fields"),
    "config nested": (metadata_with(config="[" * 100_000), "config JSON"),
    "config lacks": (metadata_with(config='{"hidden": 24}'), "config fields"),
    "config has more": (config_with(experts=8), "config fields"),
    "negative layers": (config_with(layers=-1), "layers -1"),
    "no layers": (config_with(layers=0), "layers 0"),
    "more layers": (config_with(layers=3), "layers.2.q.packed missing"),
    "many layers": (config_with(layers=2**12), "layers.2.q.packed missing"),
    "endless layers": (config_with(layers=2**24 - 1), "layers 16777215 4096"),
    "huge layers": (config_with(layers=10**400), "layers"),
    "endless number": (
        metadata_with(config='{"hidden": ' + "9" * 10_000 + "}"), "config JSON"
    ),
    "layers no int": (config_with(layers=2.0), "layers 2.0 int"),
    "layers a bool": (config_with(layers=True), "layers True int"),
    "hidden": (config_with(hidden=26), "expected"),
    "huge hidden": (config_with(hidden=2**24 - 1), "expected"),
    "wide heads": (config_with(head_dim=2**24 - 2), "expected"),
    "vocabulary": (config_with(vocabulary=34), "embedding F16 (33, 32) (34, 32)"),
    "theta": (config_with(rope_theta="x"), "rope_theta 'x' float"),
    "epsilon": (config_with(epsilon=float("nan")), "epsilon nan"),
    "activation": (config_with(activation="gelu"), "gelu"),
    "activation no text": (config_with(activation=3), "activation 3 str"),
    "tied no bool": (config_with(tied=1), "tied 1 bool"),
    "ends no list": (config_with(eos=1), "eos 1 tuple"),
    "ends no integers": (config_with(eos=["a"]), "eos ['a'] tuple"),
    "architecture no text": (config_with(architecture=None), "architecture None str"),
    "no such architecture": (config_with(architecture="x"), "architecture 'x' bitnet llama"),
    "version 1": (metadata_with(version="1"), "config fields sub_norms"),
    "heads of no delta net": (
        config_with(delta_heads=2**63 - 1), "delta_heads 9223372036854775807 expected 0"
    ),
    "no matrix": (renamed(Q, "other"), f"{Q} missing"),
    "no scale": (renamed("layers.0.o.scale", "other"), "layers.0.o.scale missing"),
    "scales of rows": (
        renamed("layers.0.o.scale", "layers.0.o.scales"), "layers.0.o.scales (16,) (32,)"
    ),
    "no norm": (renamed("layers.1.ffn.norm", "other"), "layers.1.ffn.norm missing"),
    "no final norm": (renamed("norm", "other"), "norm missing"),
    "no embedding": (renamed("embedding", "other"), "embedding missing"),
    "no head": (renamed("head", "other"), "head missing"),
    "signed matrix": (tensor_with(Q, dtype="I8"), f"{Q} I8 U8"),
    "boolean matrix": (tensor_with(Q, dtype="BOOL"), f"{Q} BOOL U8"),
    "matrix of two dimensions": (
        lambda header: header[Q].update(shape=[1, *header[Q]["shape"]]), f"{Q} U8 (1,"
    ),
    "exchanged matrices": (swapped(Q, "layers.1.down.packed"), f"{Q} U8 expected"),
    "exchanged kinds": (swapped(Q, "norm"), f"{Q} F32 U8"),
    "integer norm": (tensor_with("norm", dtype="I32"), "norm I32 F32"),
    "integer embedding": (tensor_with("embedding", dtype="I16"), "embedding I16 F16"),
    "transposed embedding": (tensor_with("embedding", shape=[32, 33]), "embedding (32, 33)"),
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
def test_a_lie_in_the_header_is_refused(small, name):
    """Well-formed files whose metadata and tensors do not fit one another."""
    change, words = LIES[name]
    header, data = model_files(small)
    change(header)
    write_file(small, header, data)
    refused(small, words)


@pytest.mark.parametrize("architecture", ["bitnet", "llama"])
def test_a_file_of_version_1(tmp_path, architecture):
    """It had "sub_norms" in place of an architecture, and is the same model."""
    config = {"bitnet": gguf_files.BITNET, "llama": gguf_files.LLAMA}[architecture]
    source, new, path = (tmp_path / name for name in ("source", "new", "old"))
    gguf_files.write_folder(source, config, gguf_files.random_values(config))
    convert.convert(source, new)
    expected = Model.from_pretrained(new, threads=1)
    header, data = model_files(new)
    raw = json.loads(header["__metadata__"]["config"])
    assert raw.pop("architecture") == architecture
    for value in (architecture == "bitnet", None):
        text = json.dumps({**raw, "sub_norms": value})
        header["__metadata__"].update(version="1", config=text)
        write_file(path, header, data)
        if value is None:
            refused(path, "sub_norms None bool")
            continue
        model = Model.from_pretrained(path, threads=1)
        assert model.config == expected.config
        assert cases.same_bits(model.logits(TOKENS), expected.logits(TOKENS))


def test_the_unchanged_header_is_accepted(small):
    """So that what the tests above refuse is refused for what they changed."""
    header, data = model_files(small)
    write_file(small, header, data)
    assert open_checkpoint(small).config.layers == 2


def test_a_damaged_header_is_refused(small):
    """Every digit of it that is changed, though what it says would be accepted."""
    raw = small.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    places = [i for i in range(8, 8 + length) if raw[i : i + 1].isdigit()]
    assert len(places) > 500
    for place in places:
        damaged = bytearray(raw)
        damaged[place] = ord("7") if raw[place] != ord("7") else ord("8")
        small.write_bytes(damaged)
        refused(small, "")


@pytest.mark.parametrize("shift", [1, 2, 4, 8, 32])
def test_a_misaligned_file_is_refused(small, shift):
    """Whose header ends anywhere else than at a cache line: kernels and views rely on that."""
    header, data = model_files(small)
    write_file(small, header, data, shift)
    refused(small, "starts multiple 64")


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["layers.1.q.scale", "layers.0.ffn.norm", "norm"])
def test_what_is_not_finite_is_refused_when_loading(small, name, value):
    """A scale and norms, which are small enough to be read."""
    header, data = model_files(small)
    first, _ = header[name]["data_offsets"]
    damaged = bytearray(data)
    damaged[first : first + 4] = np.float32(value).tobytes()
    write_file(small, header, bytes(damaged))
    with pytest.raises(ValueError, match="finite"):
        Model.from_pretrained(small, threads=1)


def test_text_that_is_damaged(tmp_path):
    """An invalid tokenizer, invalid special tokens, no tokenizer."""
    path = tmp_path / "x.safetensors"
    convert.convert(shutil.copytree(TINY, tmp_path / "source"), path)
    header, data = model_files(path)
    first, last = header["tokenizer"]["data_offsets"]
    write_file(path, header, data[:first] + b"{" * (last - first) + data[last:])
    with pytest.raises(ValueError, match="is no tokenizer"):
        open_checkpoint(path).tokenizer()
    renamed("tokenizer", "other")(header)
    for value in ("[]", "{", "[" * 100_000, '{"a": 3}'):
        header["__metadata__"]["special_tokens"] = value
        write_file(path, header, data)
        with pytest.raises(ValueError, match="special_tokens"):
            open_checkpoint(path).special_tokens()
    with pytest.raises(FileNotFoundError, match="no tokenizer"):
        open_checkpoint(path).tokenizer()


@pytest.mark.slow
@pytest.mark.parametrize("encoding", TERNARY)
def test_damaged_codes_do_no_harm(tmp_path, encoding):
    """Bytes that stand for no trits give arbitrary weights, in whatever encoding they are
    held, and no crash."""
    path = tmp_path / "x.safetensors"
    convert.convert(checkpoints.write(tmp_path / "source"), path, encoding)
    header, data = model_files(path)
    damaged = bytearray(data)
    for name, tensor in header.items():
        if name.endswith(".packed"):
            first, last = tensor["data_offsets"]
            damaged[first:last] = bytes(range(255, -1, -1))[: last - first].ljust(
                last - first, b"\xff"
            )
    write_file(path, header, bytes(damaged))
    done = processes.python("-W", "ignore", "-m", "tests.programs.every_encoding", str(path))
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr


def test_verify_finds_every_damage(small):
    """A flipped bit in each tensor."""
    names = list(PackedFile(small).verify())
    header, data = model_files(small)
    assert sorted(names) == sorted(header.keys() - {"__metadata__"})
    for name in names:
        first, last = header[name]["data_offsets"]
        damaged = bytearray(data)
        damaged[(first + last) // 2] ^= 4
        write_file(small, header, bytes(damaged))
        with pytest.raises(ValueError, match=f"tensor {name} was damaged"):
            list(PackedFile(small).verify())
    for value in ("", "xyz", "00"):
        header["__metadata__"]["crc32"] = value
        write_file(small, header, data)
        with pytest.raises(ValueError, match=r"crc32|checksums"):
            list(PackedFile(small).verify())
