"""Parts of a packed model: rows of each process bit for bit, one line for any that do not fit."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal

import numpy as np
import pytest

from ternops.decoder import Model, open_checkpoint
from ternops.decoder.formats.convert import convert
from ternops.decoder.formats.convert_parts import convert_parts
from ternops.decoder.formats.loading import TINY, load_weights
from ternops.decoder.formats.packed_header import header_checksum
from ternops.decoder.formats.part_file import PartFile, part_name
from ternops.files import GrowingFile
from tests.helpers import checkpoints, processes, trained

#: Odd sizes, of which a process has no rows; a tied head; groups of inputs and ternary tables.
SOURCES = {
    "small": (lambda path: checkpoints.write(path), 2),
    "tiny": (lambda path: TINY, 4),
    "groups": (lambda path: trained.FOLDER, 4),
}


def parts_of(folder):
    """The checkpoints of all parts, in the order of ranks."""
    return [open_checkpoint(folder, rank=rank) for rank in range(len(os.listdir(folder)))]


def same_weights(found, expected):
    """Bit for bit, scales included."""
    assert (found.config, len(found.layers)) == (expected.config, len(expected.layers))
    pairs = [(found.embedding, expected.embedding), (found.head, expected.head)]
    for one, other in zip(found.layers, expected.layers, strict=True):
        assert one.linear.keys() == other.linear.keys()
        pairs += [(matrix, other.linear[name]) for name, matrix in one.linear.items()]
        for left, right in zip(one.floats, other.floats, strict=True):
            assert np.array_equal(left, right)
    for left, right in pairs:
        assert (type(left), left.shape) == (type(right), right.shape)
        assert getattr(left, "encoding", "") == getattr(right, "encoding", "")
        assert np.array_equal(left.to_dense(), right.to_dense())
    assert np.array_equal(found.norm, expected.norm)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The model of this package in four parts."""
    folder = tmp_path_factory.mktemp("tiny") / "parts"
    convert_parts(TINY, folder, 4, "base3", "tp=2,pp=2")
    return folder


@pytest.fixture
def own(tiny, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(tiny, tmp_path / "own")


@pytest.mark.parametrize(
    ("name", "layout", "encoding"),
    [
        *itertools.product(["small"], [None, "pp=2"], ["base3", "tl2"]),
        *itertools.product(["tiny"], [None, "tp=2,pp=2"], ["base3", "two_bit", "tl2"]),
        *itertools.product(["groups"], [None, "tp=2,pp=2"], ["base3", "two_bit"]),
    ],
)
def test_each_part_is_what_its_process_reads_of_the_whole(tmp_path, name, layout, encoding):
    """Rows of every matrix and layers of its stage, from files that hold no others."""
    write, count = SOURCES[name]
    source = write(tmp_path / "source")
    convert(source, tmp_path / "whole", encoding)
    chosen = convert_parts(source, tmp_path / "parts", count, encoding, layout)
    assert str(chosen) == (layout or f"tp={count}")
    whole = open_checkpoint(tmp_path / "whole")
    for checkpoint in parts_of(tmp_path / "parts"):
        assert isinstance(checkpoint, PartFile)
        list(checkpoint.verify())
        assert checkpoint.config == whole.config
        for kind in ("auto", encoding, "fp16"):
            expected = load_weights(whole, kind, None, *checkpoint.part)
            same_weights(load_weights(checkpoint, kind, None, *checkpoint.part), expected)


def test_a_part_holds_nothing_else(tiny):
    """Than what its process keeps in memory, each tensor filled up; the first one the tokenizer."""
    whole = load_weights(open_checkpoint(TINY), "base3")
    for part in parts_of(tiny):
        path = tiny / part_name(*part.part[:2])
        weights = load_weights(part, "auto", None, *part.part)
        kept = weights.linear_bytes + weights.embedding.nbytes + weights.norm.nbytes
        kept += sum(each.nbytes for layer in weights.layers for each in layer.floats)
        text = len(part.tokenizer().to_str().encode()) if part.split.leads else 0
        raw = path.read_bytes()
        header = int.from_bytes(raw[:8], "little")
        tensors = len(json.loads(raw[8 : 8 + header]))
        assert len(raw) - 8 - header - text <= kept + 256 * tensors
        assert weights.linear_bytes <= 0.5 * whole.linear_bytes
        assert weights.embedding.shape[0] == (0 if part.split.stage else whole.embedding.shape[0])


def test_what_goes_with_a_model_is_in_the_first_part(tiny):
    """The tokenizer; templates and settings are in the header of each."""
    first, *others = parts_of(tiny)
    source = open_checkpoint(TINY)
    assert first.tokenizer().to_str() == source.tokenizer().to_str()
    for each in others:
        with pytest.raises(FileNotFoundError, match="no tokenizer"):
            each.tokenizer()
        assert each.chat_template() == source.chat_template()
        assert each.special_tokens() == source.special_tokens()


def test_a_part_is_not_taken_for_the_whole(tiny, tmp_path):
    """By whoever reads weights: one process, another writer; nor for another part."""
    words = r"is part 1 of 4 \(tp=2,pp=2\): expected 4 processes, started by mpirun -n 4"
    with pytest.raises(ValueError, match=words):
        Model.from_pretrained(tiny)
    for write in (lambda: convert(tiny, tmp_path / "x"),
                  lambda: convert_parts(tiny, tmp_path / "y", 2, "base3")):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            write()
    assert os.listdir(tmp_path) == []
    part = open_checkpoint(tiny, rank=1)
    for other in ((0, *part.part[1:]), (1, 4, (0, part.config.layers)), (1, 2, part.part.bounds)):
        with pytest.raises(ValueError, match=r"is part 2 of 4 \(tp=2,pp=2\), found rank \d of "):
            load_weights(part, "auto", None, *other)


def test_a_folder_without_the_part(own):
    """Names what is there, and what was looked for."""
    os.unlink(own / part_name(2, 4))
    words = r"holds part-00001-of-00004.*, \.\.\., and not part-00003-of-00004|and not part-00003"
    with pytest.raises(FileNotFoundError, match=words):
        open_checkpoint(own, rank=2)
    with pytest.raises(ValueError, match=r"expected 4 processes, .*, found a rank 4"):
        open_checkpoint(own, rank=4)
    (own / part_name(0, 2)).touch()
    with pytest.raises(ValueError, match="holds parts of 2 and of 4, expected those of one"):
        open_checkpoint(own)


def test_layouts_and_numbers_of_processes_that_are_others(tiny):
    """What the processes say before they load."""
    part = open_checkpoint(tiny)
    assert part.bounds_for(4, None) == part.bounds_for(4, "pp=2,tp=2") == list(part.part.bounds)
    with pytest.raises(ValueError, match=r"started by mpirun -n 4, not 3$"):
        part.bounds_for(3, None)
    with pytest.raises(ValueError, match=r"^layout 'tp=4': expected 'tp=2,pp=2', as the parts "):
        part.bounds_for(4, "tp=4")


def test_parts_have_the_digest_of_their_run(tiny, tmp_path):
    """The same of the same model, another one of other weights, layouts and encodings."""
    source = checkpoints.write(tmp_path / "a")
    values = checkpoints.tensors()
    values[checkpoints.FIRST] = np.roll(values[checkpoints.FIRST], 1, 0)
    other = checkpoints.write(tmp_path / "b", None, values)
    found = []
    for number, (model, encoding, layout) in enumerate(
        [(source, "base3", None), (other, "base3", None), (source, "tl1", None),
         (source, "base3", "pp=2"), (source, "base3", "tp=2")]
    ):  # fmt: skip
        folder = tmp_path / f"parts{number}"
        convert_parts(model, folder, 2, encoding, layout)
        digests = {each.digest for each in parts_of(folder)}
        assert len(digests) == 1
        found += digests
    assert len(set(found[:4])) == 4
    assert found[4] == found[0]
    assert re.fullmatch("[0-9a-f]{16}", found[0])


@pytest.mark.parametrize(
    "part",
    [
        "", "3", "{}", '{"rank": 0, "ranks": 4}', '{"rank": 4, "ranks": 4, "bounds": [0, 4]}',
        '{"rank": -1, "ranks": 4, "bounds": [0, 4]}', '{"rank": 0, "ranks": 4, "bounds": [0, 3]}',
        '{"rank": 0, "ranks": 4, "bounds": [0, 2, 2, 4]}', '{"rank": 0, "ranks": 4, "bounds": []}',
        '{"rank": 0, "ranks": 3, "bounds": [0, 2, 4]}', '{"rank": 0, "ranks": true, "bounds": 3}',
        '{"rank": 0, "ranks": 1e9, "bounds": [0, 4]}', '{"rank": 0, "ranks": 4, "bounds": [4]}',
    ],
)  # fmt: skip
def test_a_header_that_lies(own, part):
    """About which part it is."""
    path = own / part_name(0, 4)
    raw = path.read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:start])
    header["__metadata__"]["part"] = part
    header["__metadata__"]["header_crc32"] = header_checksum(header)
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % 64)
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[start:])
    with pytest.raises(ValueError, match=r"part-00001-of-00004.*: part is .*, expected a rank"):
        open_checkpoint(own)


def test_a_part_of_another_rank_by_its_name(own):
    """A file that was renamed is of another shape, or is refused when it is read."""
    os.replace(own / part_name(1, 4), own / part_name(0, 4))
    with pytest.raises(ValueError, match=r"is part 2 of 4 .*, found rank 0 of 4"):
        load_weights(open_checkpoint(own), "auto", None, 0, 4, (0, 2, 4))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((1, "base3"), r"^shards: 1, expected 2 to "),
        ((3, "base3"), r"^ranks: 3 of them, expected at most 2, the 64s of rows"),
        ((2, "base4"), r"^encoding"),
        ((2, "base3", "tp=4"), r"^layout 'tp=4': expected tp=N,pp=N with 2 ranks in all"),
        ((4, "base3", "pp=4"), r"^layout: pp=4, expected 1 to the model's 2 layers"),
    ],
)
def test_wrong_arguments(tmp_path, arguments, words):
    """Leave nothing behind."""
    source = checkpoints.write(tmp_path / "source")
    with pytest.raises(ValueError, match=words):
        convert_parts(source, tmp_path / "parts", *arguments)
    assert os.listdir(tmp_path) == ["source"]


def test_folders_that_are_not_written_to(tmp_path):
    """Of the source, with other files, none, below nothing."""
    source = checkpoints.write(tmp_path / "source")
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / part_name(0, 3)).touch()
    for name, words in (
        ("source", "is what is to be read"), ("file", "is no folder"), ("full", "of-00003"),
        ("a/b", "there is no folder"),
    ):  # fmt: skip
        with pytest.raises((ValueError, FileNotFoundError), match=words):
            convert_parts(source, tmp_path / name, 2, "base3")


def test_bad_weights_leave_nothing(tmp_path):
    """No folder either, and of older parts each as it was."""
    values = checkpoints.tensors()
    values["model.layers.1.mlp.down_proj.weight"][3, 4] = np.nan
    source = checkpoints.write(tmp_path / "source", None, values)
    with pytest.raises(ValueError, match=r"layers\.1\.mlp\.down_proj"):
        convert_parts(source, tmp_path / "parts", 2, "base3")
    assert os.listdir(tmp_path) == ["source"]
    convert_parts(checkpoints.write(tmp_path / "good"), tmp_path / "parts", 2, "base3")
    before = contents(tmp_path / "parts")
    with pytest.raises(ValueError, match=r"layers\.1\.mlp\.down_proj"):
        convert_parts(source, tmp_path / "parts", 2, "base3")
    assert contents(tmp_path / "parts") == before


def contents(folder):
    """The bytes of each file."""
    return {each.name: each.read_bytes() for each in folder.iterdir()}


@pytest.mark.parametrize("count", range(1, 13))
def test_an_interrupted_run_goes_on(tmp_path, monkeypatch, count):
    """Behind any step of any file, so that some have one more than others: the same bytes."""
    source = checkpoints.write(tmp_path / "source")
    convert_parts(source, tmp_path / "whole", 2, "base3")
    original, calls = GrowingFile.finish_step, []

    def finish_step(self, record):
        original(self, record)
        calls.append(record)
        if len(calls) == count:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(GrowingFile, "finish_step", finish_step)
        with pytest.raises(KeyboardInterrupt):
            convert_parts(source, tmp_path / "parts", 2, "base3")
    said = []
    convert_parts(source, tmp_path / "parts", 2, "base3", say=said.append)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    steps = count // 2  # that both files have
    assert [f": {steps} of 6 steps are done" in line for line in said[1:]] == [True] * (steps > 0)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "count"), [("append", 1), ("append", 20), ("finish_step", 5),
                                               ("commit", 1)])  # fmt: skip
def test_a_killed_run_is_continued(tmp_path, method, count):
    """SIGKILL, also between two files that are whole: those that are there are parts of one model,
    and the next run ends with the same bytes."""
    source, whole, parts = checkpoints.write(tmp_path / "source"), tmp_path / "w", tmp_path / "p"
    convert_parts(source, whole, 2, "base3")
    done = processes.program(
        "killed_quantize", str(source), str(parts), method, str(count), "SIGKILL", "--shards", "2"
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    expected = contents(whole)
    for name, data in contents(parts).items():
        assert name.endswith((".partial", ".journal")) or data == expected[name]
    convert_parts(source, parts, 2, "base3")
    assert contents(parts) == expected
