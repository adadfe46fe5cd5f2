"""Saved matrices come back bit for bit; damaged and foreign files are refused in one line."""

from __future__ import annotations

import copy
import os
import pickle
import stat
import sys

import numpy as np
import pytest
import safetensors.numpy

import ternops
from ternops.encodings import ENCODINGS
from ternops.matrix import TernaryMatrix
from tests.helpers import cases, internals


def content(matrix):
    """All that makes a matrix, for comparisons."""
    scale = None if matrix.scale is None else np.asarray(matrix.scale).tobytes()
    ndim = None if matrix.scale is None else np.ndim(matrix.scale)
    trits = matrix.to_trits()
    return (
        matrix.shape,
        trits.tobytes("C"),
        scale,
        ndim,
        matrix.encoding,
        internals.is_transposed(matrix),
    )


def refused(path, error=ValueError):
    """Loading raises in one line that names the file."""
    with pytest.raises(error) as caught:
        ternops.load(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("path: ")
    assert os.path.basename(path) in message


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("kind", ["none", "scalar", "rows"])
@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0), (1, 1), (7, 127), (37, 1021), (66, 50)])
def test_a_round_trip(tmp_path, shape, kind, transposed, encoding):
    """Shape, trits, scale, orientation and encoding, also when saved again; equal products."""
    matrix = ternops.pack(
        cases.trits(*shape, encoding=encoding), cases.scales(shape[0])[kind], encoding
    )
    if transposed:
        matrix = matrix.T
    first, second = tmp_path / "a.ternops", str(tmp_path / "b")
    matrix.save(first)
    loaded = ternops.load(first)
    assert content(loaded) == content(matrix)
    loaded.save(second)
    assert content(ternops.load(second)) == content(matrix)
    x = cases.activations(3, shape[1] if not transposed else shape[0])
    assert cases.same_bits(x @ loaded.T, x @ matrix.T)
    assert sorted(os.listdir(tmp_path)) == ["a.ternops", "b"]


@pytest.fixture
def small(tmp_path):
    """A small matrix with a scale a row, and its file."""
    matrix = ternops.pack(cases.trits(3, 9), cases.scales(3)["rows"], "two_bit")
    path = tmp_path / "small"
    matrix.save(path)
    return matrix, path


def test_a_flipped_bit_never_gives_another_matrix(small, tmp_path):
    """Each bit of the file in turn: refused, or the same matrix."""
    matrix, path = small
    data, same = path.read_bytes(), 0
    target = tmp_path / "flipped"
    for place in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[place] ^= 1 << bit
            target.write_bytes(damaged)
            try:
                loaded = ternops.load(target)
            except ValueError:
                continue
            assert content(loaded) == content(matrix), (place, bit)
            same += 1
    assert same < len(data)  # all but a few flips are noticed


def test_every_truncation_is_refused(small, tmp_path):
    """A file cut off anywhere, also to nothing; and one with bytes too many."""
    _, path = small
    data = path.read_bytes()
    target = tmp_path / "cut"
    for length in range(len(data)):
        target.write_bytes(data[:length])
        refused(target)
    for extra in (b"\0", b"x" * 100):
        target.write_bytes(data + extra)
        refused(target)


def test_exchanged_bytes_are_refused(small, tmp_path):
    """Two different neighbours of the packed bytes and of the scale exchanged."""
    matrix, path = small
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    target = tmp_path / "exchanged"
    for place in range(start, len(data) - 1):
        if data[place] != data[place + 1]:
            damaged = bytearray(data)
            damaged[place : place + 2] = data[place + 1], data[place]
            target.write_bytes(damaged)
            refused(target)
    assert content(ternops.load(path)) == content(matrix)


def rewritten(path, target, change, checksum=True):
    """Write `path` again with its tensors and metadata changed, the checksum put right."""
    with safetensors.safe_open(path, framework="numpy") as file:
        metadata = dict(file.metadata())
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(metadata, tensors)
    if checksum and "crc32" in metadata:
        metadata["crc32"] = internals.file_checksum(metadata, tensors)
    target.write_bytes(safetensors.numpy.save(tensors, metadata))


CHANGES = {
    "format": lambda m, t: m.update(format="other"),
    "version": lambda m, t: m.update(version="2"),
    "encoding": lambda m, t: m.update(encoding="three_bit"),
    "another encoding": lambda m, t: m.update(encoding="tl2"),
    "no encoding": lambda m, t: m.pop("encoding"),
    "rows": lambda m, t: m.update(rows="4"),
    "columns": lambda m, t: m.update(columns="13"),
    "fewer rows": lambda m, t: m.update(rows="2"),
    "negative": lambda m, t: m.update(rows="-3"),
    "two negatives": lambda m, t: m.update(rows="-3", columns="-9"),
    "huge rows": lambda m, t: m.update(rows=str(2**63)),
    "huge columns": lambda m, t: m.update(columns=str(2**24)),
    "no number": lambda m, t: m.update(rows="three"),
    "long number": lambda m, t: m.update(rows="9" * 5000),
    "no rows": lambda m, t: m.pop("rows"),
    "transposed": lambda m, t: m.update(transposed="2"),
    "no transposed": lambda m, t: m.pop("transposed"),
    "no checksum": lambda m, t: m.pop("crc32"),
    "no packed": lambda m, t: t.pop("packed"),
    "wide packed": lambda m, t: t.update(packed=t["packed"].astype(np.uint16)),
    "signed packed": lambda m, t: t.update(packed=t["packed"].view(np.int8)),
    "short packed": lambda m, t: t.update(packed=t["packed"][:-1].copy()),
    "long packed": lambda m, t: t.update(packed=np.resize(t["packed"], 1000)),
    "2-D packed": lambda m, t: t.update(packed=t["packed"][None].copy()),
    "code 3": lambda m, t: t.update(packed=t["packed"] | np.uint8(3)),
    "float64 scale": lambda m, t: t.update(scale=t["scale"].astype(np.float64)),
    "short scale": lambda m, t: t.update(scale=t["scale"][:-1].copy()),
    "nan scale": lambda m, t: t.update(scale=t["scale"] * np.float32(np.nan)),
    "infinite scale": lambda m, t: t.update(scale=t["scale"] * np.float32(np.inf)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_contradictory_file_is_refused(small, tmp_path, name):
    """Well-formed files with a right checksum whose fields do not fit one another."""
    rewritten(small[1], tmp_path / "changed", CHANGES[name])
    refused(tmp_path / "changed")


@pytest.mark.parametrize(
    ("name", "byte"), [("two_bit", 0b11), ("base3", 243), ("tl1", 0x90), ("tl2", 0x0E)]
)
def test_bytes_that_stand_for_no_trits_are_refused(tmp_path, name, byte):
    """Of each encoding, though the checksum is right."""
    ternops.pack(cases.trits(3, 9), encoding=name).save(tmp_path / "good")
    for place in (0, 2):

        def change(metadata, tensors, place=place):
            tensors["packed"] = tensors["packed"].copy()
            tensors["packed"][place] = byte

        rewritten(tmp_path / "good", tmp_path / "bad", change)
        refused(tmp_path / "bad")


@pytest.mark.parametrize("key", ["rows", "columns", "transposed", "encoding", "crc32"])
def test_metadata_is_covered_by_the_checksum(small, tmp_path, key):
    """A changed field without a new checksum is refused."""
    value = {"transposed": "1", "columns": "10", "crc32": "00000000"}.get(key, "7")
    rewritten(small[1], tmp_path / "x", lambda m, t: m.update({key: value}), checksum=False)
    refused(tmp_path / "x")


def test_foreign_files_are_refused(tmp_path):
    """Text, a pickle, other safetensors, a huge header length, a folder, nothing."""
    files = {
        "empty": b"",
        "text": b"hello, world\n" * 50,
        "pickle": pickle.dumps({"a": 1}),
        "zeros": bytes(1000),
        "length": (2**63).to_bytes(8, "little") + b"{}",
        "nested": (100_000).to_bytes(8, "little") + b"[" * 100_000,
        "tensors": safetensors.numpy.save({"packed": np.zeros(64, np.uint8)}),
        "named": safetensors.numpy.save({"x": np.zeros(3)}, {"format": "pt"}),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        refused(tmp_path / name)
    refused(tmp_path, FileNotFoundError)
    refused(tmp_path / "none", FileNotFoundError)


@pytest.mark.parametrize("broken", ["replace", "fsync", "chmod"])
def test_a_failed_save_leaves_the_old_file(small, monkeypatch, broken):
    """A full disk or an interrupt at any step: the old content, and no other file."""
    matrix, path = small
    before = path.read_bytes()
    for error in (OSError("no space"), KeyboardInterrupt()):

        def fail(*arguments, error=error):
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(os, broken, fail)
            with pytest.raises(type(error)):
                ternops.pack(cases.trits(50, 50)).save(path)
        assert path.read_bytes() == before
        assert os.listdir(path.parent) == [path.name]
    assert content(ternops.load(path)) == content(matrix)


def test_saving_replaces_a_file_at_once(small):
    """A matrix that was loaded keeps its values when its file is replaced."""
    matrix, path = small
    loaded = ternops.load(path)
    ternops.pack(cases.trits(3, 9, seed=5)).save(path)
    assert content(loaded) == content(matrix)
    assert content(ternops.load(path)) != content(matrix)


def test_saving_into_a_missing_folder(tmp_path):
    """An OSError, and nothing is made."""
    with pytest.raises(OSError, match="none"):
        ternops.pack(cases.trits(2, 2)).save(tmp_path / "none" / "x")
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")
def test_the_permissions_are_those_of_open(tmp_path):
    """As the umask says, not the private ones of a temporary file."""
    ternops.pack(cases.trits(2, 2)).save(tmp_path / "ours")
    (tmp_path / "theirs").write_bytes(b"")
    ours, theirs = (stat.S_IMODE((tmp_path / n).stat().st_mode) for n in ("ours", "theirs"))
    assert ours == theirs


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("kind", ["none", "scalar", "rows"])
@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, copy.copy, *(
        lambda m, p=p: pickle.loads(pickle.dumps(m, p)) for p in range(2, 6)
    )],
    ids=["deepcopy", "copy", *(f"pickle {p}" for p in range(2, 6))],
)  # fmt: skip
def test_copies_stand_alone(duplicate, kind, encoding):
    """A copy, also of W.T, has the same value and works when the original is gone."""
    for transposed in (False, True):
        matrix = ternops.pack(
            cases.trits(13, 509, encoding=encoding), cases.scales(13)[kind], encoding
        )
        matrix = matrix.T if transposed else matrix
        x = cases.activations(3, matrix.shape[1])
        expected, value = x @ matrix.T, content(matrix)
        twin = duplicate(matrix)
        assert isinstance(twin, TernaryMatrix)
        del matrix
        assert content(twin) == value
        assert internals.packed(twin).operand.address % 64 == 0
        assert cases.same_bits(x @ twin.T, expected)
        if twin.scale is not None and np.ndim(twin.scale):
            assert not twin.scale.flags.writeable
