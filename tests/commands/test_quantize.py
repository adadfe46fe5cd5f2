"""`python -m ternops quantize`: a file appears whole or not at all, interruptions cost a step."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import signal
import sys

import numpy as np
import pytest

from ternops.__main__ import main
from ternops.decoder.formats import convert
from ternops.decoder.formats.loading import TINY, open_checkpoint
from ternops.encodings import TERNARY
from ternops.files import GrowingFile
from tests.helpers import checkpoints, internals, processes
from tests.helpers.marks import slow_but

#: Of the small model: tokenizer, embedding, head, two layers, norm.
STEPS = 6


@pytest.fixture
def source(tmp_path):
    """A small model with a tokenizer, which is not its own."""
    folder = checkpoints.write(tmp_path / "source")
    shutil.copy(TINY / "tokenizer.json", folder)
    return folder


@pytest.fixture
def whole(source, tmp_path):
    """What an uninterrupted run writes for it."""
    convert.convert(source, tmp_path / "whole")
    return (tmp_path / "whole").read_bytes()


@pytest.fixture
def target(tmp_path):
    """A file in a folder of its own."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "model.safetensors"


def quantize(*arguments):
    """The exit code of the command."""
    return main(["quantize", *map(str, arguments)])


def lines_of(capfd, code):
    """What is said on stderr, but for progress; nothing on stdout unless the code is 0."""
    out, err = capfd.readouterr()
    assert (out == "") == (code != 0)
    return [line for line in err.splitlines() if not line.startswith("quantizing")]


@pytest.mark.parametrize("encoding", slow_but([None, *TERNARY], None))
def test_the_command(source, target, encoding):
    """A process of its own: one file, one line, and the model generates."""
    options = ["--encoding", encoding] if encoding else []
    done = processes.python("-m", "ternops", "quantize", str(source), str(target), *options)
    assert done.returncode == 0, done.stderr
    size = target.stat().st_size
    assert done.stdout == f"{target}: {encoding or 'base3'}, {size:,} bytes\n"
    assert os.listdir(target.parent) == [target.name]
    assert open_checkpoint(target).encoding == (encoding or "base3")


def test_verify(source, target, capfd):
    """Intact, damaged, not there, something else."""
    assert quantize(source, target) == 0
    capfd.readouterr()
    assert main(["verify", str(target)]) == 0
    assert capfd.readouterr().out == f"{target}: intact, 40 tensors\n"
    data = bytearray(target.read_bytes())
    data[-1000] ^= 1
    target.write_bytes(data)
    assert main(["verify", str(target)]) == 2
    assert "damaged" in lines_of(capfd, 2)[0]
    for path in (target.parent, target.parent / "none", source / "config.json"):
        assert main(["verify", str(path)]) == 2
        (line,) = lines_of(capfd, 2)
        assert str(path) in line


@pytest.mark.parametrize(
    ("words", "place"),
    [
        ("there is no folder", lambda source, target: target.parent / "none" / "x"),
        ("is a folder", lambda source, target: target.parent),
        ("is a folder", lambda source, target: source),
        ("is what is to be read", lambda source, target: source / "model.safetensors"),
        ("is what is to be read", lambda source, target: source / "config.json"),
    ],
)
def test_a_bad_target(source, target, capfd, words, place):
    """One line, and nothing is changed."""
    before = {path.name: path.read_bytes() for path in source.iterdir()}
    assert quantize(source, place(source, target)) == 2
    (line,) = lines_of(capfd, 2)
    assert words in line
    assert {path.name: path.read_bytes() for path in source.iterdir()} == before
    assert os.listdir(target.parent) == []


def test_a_target_that_is_the_source(source, target, capfd):
    """A packed file by its own name and by a link."""
    assert quantize(source, target) == 0
    before = target.read_bytes()
    link = target.with_name("link")
    link.symlink_to(target)
    capfd.readouterr()
    for other in (target, link, target.parent / ".." / "out" / target.name):
        assert quantize(target, other) == 2
        assert "is what is to be read" in lines_of(capfd, 2)[0]
    assert target.read_bytes() == before


def test_a_target_in_the_folder_of_the_source(source, whole):
    """Written, and written again: a packed file is not a part of the source."""
    target = source / "packed.safetensors"
    for _ in range(2):
        assert quantize(source, target) == 0
        assert target.read_bytes() == whole


def test_a_bad_source(tmp_path, target, capfd):
    """None, a folder of something else, another file."""
    (tmp_path / "text").write_text("hello")
    (tmp_path / "empty").mkdir()
    for name in ("none", "empty", "text"):
        assert quantize(tmp_path / name, target) == 2
        (line,) = lines_of(capfd, 2)
        assert name in line
    assert os.listdir(target.parent) == []


def test_bad_input_leaves_nothing(source, target, capfd, tmp_path):
    """A NaN that is found half-way, and what stood there before is kept."""
    values = checkpoints.tensors()
    values["model.layers.1.mlp.down_proj.weight"][3, 4] = np.nan
    broken = checkpoints.write(tmp_path / "broken", None, values)
    shutil.copy(TINY / "tokenizer.json", broken)
    for old in (None, b"old"):
        if old:
            target.write_bytes(old)
        assert quantize(broken, target) == 2
        (line,) = lines_of(capfd, 2)
        assert "layers.1.mlp.down_proj.weight" in line
        assert os.listdir(target.parent) == ([target.name] if old else [])
    assert target.read_bytes() == b"old"
    assert quantize(source, target) == 0
    assert open_checkpoint(target).config.layers == 2


def test_a_model_without_a_tokenizer(source, target, capfd):
    """Is written, and it is said."""
    (source / "tokenizer.json").unlink()
    assert quantize(source, target) == 0
    (line,) = lines_of(capfd, 0)
    assert "without a tokenizer" in line
    with pytest.raises(FileNotFoundError, match="no tokenizer"):
        open_checkpoint(target).tokenizer()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "count"),
    [("append", 1), ("append", 3), ("append", 10), ("append", 35), ("finish_step", 1),
     ("finish_step", 4), ("finish_step", STEPS), ("_lock", 1), ("__enter__", 1)],
)  # fmt: skip
def test_a_killed_run_is_continued(source, whole, target, capfd, method, count):
    """SIGKILL after any write: nothing under the name, and then the same bytes."""
    done = processes.program(
        "killed_quantize", str(source), str(target), method, str(count), "SIGKILL"
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not target.exists()
    steps = {"append": {1: 0, 3: 2, 10: 3, 35: 4}.get(count), "finish_step": count}.get(method, 0)
    assert quantize(source, target) == 0
    said = lines_of(capfd, 0)
    assert bool(said) == bool(steps)
    if steps:
        assert f"going on with {target}.partial: {steps} of {STEPS} steps" in said[0]
    assert target.read_bytes() == whole
    assert os.listdir(target.parent) == [target.name]


def interrupted_run(source, target, monkeypatch, steps, error=KeyboardInterrupt, *options):
    """A run that ends with an error after `steps` steps; its exit code."""
    original = GrowingFile.finish_step

    def finish_step(self, record):
        original(self, record)
        if len(self.records) == steps:
            raise error

    with monkeypatch.context() as patch:
        patch.setattr(GrowingFile, "finish_step", finish_step)
        return quantize(source, target, *options)


def test_ctrl_c_says_how_to_go_on(source, whole, target, capfd, monkeypatch):
    """130, one line, the partial file; any number of times."""
    for steps in range(1, STEPS):
        assert interrupted_run(source, target, monkeypatch, steps) == 130
        assert "the same command goes on with it" in lines_of(capfd, 130)[-1]
        assert sorted(os.listdir(target.parent)) == [
            f"{target.name}.journal", f"{target.name}.partial",
        ]  # fmt: skip
    assert quantize(source, target) == 0
    assert target.read_bytes() == whole


def test_ctrl_c_of_a_process(source, target):
    """A real signal."""
    done = processes.program(
        "killed_quantize", str(source), str(target), "finish_step", "3", "SIGINT"
    )
    assert done.returncode == 130
    assert done.stderr.splitlines()[-1] == (
        f"ternops: interrupted; {target}.partial is kept: the same command goes on with it"
    )
    assert "Traceback" not in done.stderr


def test_a_full_disk(source, whole, target, capfd, monkeypatch):
    """Found before anything is written; or half-way, and then it can be continued."""
    usage = shutil.disk_usage(target.parent)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
        assert quantize(source, target) == 2
    (line,) = lines_of(capfd, 2)
    assert "1,000 are free" in line
    assert os.listdir(target.parent) == []
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert interrupted_run(source, target, monkeypatch, 3, error) == 2
    (line,) = lines_of(capfd, 2)
    assert "No space left on device" in line
    assert "the same command goes on" in line
    assert quantize(source, target) == 0
    assert target.read_bytes() == whole


def test_a_really_full_disk(source, target):
    """RLIMIT_FSIZE stands for it: one line, exit code 2."""
    done = processes.program("with_full_disk", "30000", "quantize", str(source), str(target))
    assert done.returncode == 2
    assert "File too large" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not target.exists()


CHANGES = {
    "another encoding": (lambda source: None, ("--encoding", "tl2")),
    "a newer file": (lambda source: os.utime(source / "model.safetensors", ns=(1, 1)), ()),
    "another file": (lambda source: (source / "more").write_bytes(b""), ()),
    "a file less": (lambda source: (source / "config.json.bak").unlink(), ()),
    "other values": (
        lambda source: checkpoints.write(
            source, None, {k: v * 2 for k, v in checkpoints.tensors().items()}
        ),
        (),
    ),
    "a template": (lambda source: (source / "chat_template.jinja").write_text("x"), ()),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_has_changed_is_begun_anew(source, target, tmp_path, capfd, monkeypatch, name):
    """Between two tries: it starts over, says so, and writes what is there now."""
    (source / "config.json.bak").write_bytes(b"")
    assert interrupted_run(source, target, monkeypatch, 4) == 130
    change, options = CHANGES[name]
    change(source)
    capfd.readouterr()
    assert quantize(source, target, *options) == 0
    (line,) = lines_of(capfd, 0)
    assert "starting over" in line
    fresh = tmp_path / "fresh"
    assert quantize(source, fresh, *options) == 0
    assert target.read_bytes() == fresh.read_bytes()


def test_a_source_that_changes_while_it_is_read(source, target):
    """Is an error, and nothing is left."""

    def progress(done, total):
        if done == 4:
            os.utime(source / "model.safetensors", ns=(1, 1))

    with pytest.raises(ValueError, match="was changed while it was read"):
        convert.convert(source, target, progress=progress)
    assert os.listdir(target.parent) == []


def cut(path, count):
    os.truncate(path, path.stat().st_size - count)


DAMAGES = {
    "no partial file": lambda partial, journal: partial.unlink(),
    "an empty partial file": lambda partial, journal: os.truncate(partial, 0),
    "a shorter partial file": lambda partial, journal: cut(partial, 100),
    "a longer partial file": lambda partial, journal: os.truncate(partial, 10**6),
    "no journal": lambda partial, journal: journal.unlink(),
    "an empty journal": lambda partial, journal: os.truncate(journal, 0),
    "half a line": lambda partial, journal: cut(journal, 30),
    "a line without its end": lambda partial, journal: cut(journal, 1),
    "zeros": lambda partial, journal: journal.write_bytes(journal.read_bytes() + bytes(500)),
    "other lines": lambda partial, journal: journal.write_bytes(journal.read_bytes() + b"3\n[]\n"),
    "a line of nothing": lambda partial, journal: journal.write_bytes(b"\n" + journal.read_bytes()),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_what_a_crash_may_leave(source, whole, target, monkeypatch, name):
    """Files that do not fit one another give the right bytes all the same, also when interrupted
    once more."""
    assert interrupted_run(source, target, monkeypatch, 4) == 130
    partial, journal = (target.with_name(target.name + end) for end in (".partial", ".journal"))
    DAMAGES[name](partial, journal)
    assert interrupted_run(source, target, monkeypatch, 5) == 130
    assert quantize(source, target) == 0
    assert target.read_bytes() == whole
    assert os.listdir(target.parent) == [target.name]


def test_two_at_a_time(source, whole, target, capfd, monkeypatch):
    """The second one is refused, and disturbs nothing."""
    assert interrupted_run(source, target, monkeypatch, 4) == 130
    capfd.readouterr()
    partial = target.with_name(f"{target.name}.partial")
    before = partial.read_bytes()
    with open(partial, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert quantize(source, target) == 2
        (line,) = lines_of(capfd, 2)
        assert "being written by another process" in line
        assert partial.read_bytes() == before
    assert quantize(source, target) == 0
    assert target.read_bytes() == whole


def test_each_finished_step_is_on_the_disk(source, target, monkeypatch):
    """Data before the journal that lists it, all before the file gets its name."""
    order = []
    internals.watch_syncs(
        monkeypatch,
        lambda file: order.append(
            os.path.basename(file.name) if isinstance(file.name, str) else "data"
        ),
    )
    original = os.replace
    monkeypatch.setattr(os, "replace", lambda *a: (order.append("replace"), original(*a)))
    convert.convert(source, target)
    journal = f"{target.name}.journal"
    assert order == [journal, *(["data", journal] * STEPS), "data", "replace"]


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")
def test_permissions_are_those_of_open(source, target):
    """As the umask says."""
    convert.convert(source, target)
    other = target.with_name("other")
    other.write_bytes(b"")
    assert target.stat().st_mode == other.stat().st_mode


def test_one_tensor_at_a_time(source, target, monkeypatch):
    """The writer asks for a tensor when the one before is written."""
    events = []
    matrix, append = convert.open_checkpoint(source).__class__.matrix, GrowingFile.append
    monkeypatch.setattr(
        convert.open_checkpoint(source).__class__, "matrix",
        lambda *a: (events.append("read"), matrix(*a))[1],
    )  # fmt: skip
    monkeypatch.setattr(
        GrowingFile, "append", lambda *a: (events.append("write"), append(*a))[1]
    )  # fmt: skip
    convert.convert(source, target)
    reads = [i for i, event in enumerate(events) if event == "read"]
    assert len(reads) == 14
    assert all(events[i + 1 : i + 3] == ["write", "write"] for i in reads)


def test_the_header_has_room_enough(source, target, tmp_path):
    """Of a model whose metadata are long, and a tokenizer whose size is no whole line."""
    (source / "chat_template.jinja").write_text('"\\\n漢' * 5000, "utf-8")
    convert.convert(source, target)
    assert open_checkpoint(target).chat_template() == '"\\\n漢' * 5000
    raw = target.read_bytes()
    header = raw[8 : 8 + int.from_bytes(raw[:8], "little")]
    assert json.loads(header)["tokenizer"]["shape"][0] % 64 == 0
    (source / "chat_template.jinja").write_bytes(b"\xed\xa0\x80")
    with pytest.raises(ValueError, match="chat_template"):
        convert.convert(source, target)


def test_a_name_of_another_format_is_refused(tmp_path):
    """A file of that name could not be opened again."""
    with pytest.raises(ValueError, match=r"expected \.safetensors"):
        convert.convert(TINY, tmp_path / "x.gguf")
    assert list(tmp_path.iterdir()) == []


def test_shards(source, tmp_path, capfd, monkeypatch):
    """A folder, one line; interrupted, the same command goes on; options that are not for it."""
    parts, encoding = tmp_path / "parts", ("--encoding", "two_bit")
    assert interrupted_run(source, parts, monkeypatch, 3, KeyboardInterrupt, "--shards", "2") == 130
    name = parts / "part-00001-of-00002.safetensors.partial"
    assert lines_of(capfd, 130)[-1] == (
        f"ternops: interrupted; {name} is kept: the same command goes on with it"
    )
    assert quantize(source, parts, "--shards", "2", "--layout", "pp=2", *encoding) == 0
    out, err = capfd.readouterr()
    sizes = [each.stat().st_size for each in parts.iterdir()]
    assert out == (
        f"{parts}: two_bit, 2 parts (pp=2), {sum(sizes):,} bytes, {max(sizes):,} the largest\n"
    )
    assert "is of other files or other settings: starting over" in err
    for path in parts.iterdir():
        assert main(["verify", str(path)]) == 0
        assert ": intact, " in capfd.readouterr().out
    for options, words in (
        (("--layout", "pp=2"), "--layout pp=2: expected it with --shards N"),
        (("--shards", "2", "--to", "gguf"), "--shards 2: expected --to packed"),
        (("--shards", "2", "--layout", "pp=3"), "layout 'pp=3': expected tp=N,pp=N with 2 ranks"),
        (("--shards", "1"), "shards: 1, expected 2 to "),
        (("--shards", "9"), "ranks: 9 of them, expected at most 2, the 64s of rows"),
    ):
        assert quantize(source, parts, *options) == 2
        (line,) = lines_of(capfd, 2)
        assert words in line
