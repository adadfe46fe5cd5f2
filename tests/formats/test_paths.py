"""What people pass as a model that is not quite it: opened, or one line that says what to pass."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from ternops.__main__ import main
from ternops.decoder import open_checkpoint
from ternops.decoder.formats.gguf import Gguf
from ternops.decoder.formats.hugging_face import HuggingFace
from ternops.decoder.formats.loading import TINY
from ternops.decoder.formats.paths import locate
from tests.helpers import checkpoints, gguf_files

POINTER = (
    "version https://git-lfs.github.com/spec/v1\n"
    f"oid sha256:{'0' * 64}\nsize 1182033312\n"
)  # fmt: skip
ELSE = "; expected one, or OWNER/NAME to download"


def error(path, kind=ValueError):
    """The one line of opening a path, without the path."""
    with pytest.raises(kind) as caught:
        open_checkpoint(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("model: ")
    return message.replace(str(path), "PATH")


def small_gguf(path):
    return gguf_files.write_gguf(path, gguf_files.random_values(gguf_files.LLAMA))


@pytest.fixture
def tiny(tmp_path):
    """A copy of the tiny checkpoint."""
    return Path(shutil.copytree(TINY, tmp_path / "tiny"))


def test_home(tmp_path, tiny, monkeypatch, capfd):
    """`~` that no shell expanded, as in --model=~/tiny; one that is a folder's name stays it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert locate("~/tiny") == tiny
    assert locate(Path("~/tiny")) == tiny
    assert main(["predict", "--model=~/tiny", "--hardware", "m2-ultra"]) == 0
    assert main(["quantize", "~/tiny", str(tmp_path / "packed")]) == 0
    assert locate("~/packed").is_file()
    assert error("~/none", FileNotFoundError) == f"model: 'PATH' is no file or folder{ELSE}"
    assert error("~nobody-of-this-name/x", FileNotFoundError)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~").mkdir()
    (tmp_path / "~" / "tiny").mkdir()
    assert locate("~/tiny") == Path("~/tiny")
    capfd.readouterr()


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("https://example.org/model.gguf", "an address, download it first"),
        (r"C:\models\bitnet", "a path of Windows"),
        ("D:/models/bitnet", "a path of Windows"),
        (r"\\server\models", "a path of Windows"),
        (r"models\bitnet", "a path of Windows"),
    ],
)
def test_what_is_elsewhere(tmp_path, monkeypatch, path, words):
    """An address, a path of another system."""
    monkeypatch.chdir(tmp_path)
    message = error(path, FileNotFoundError)
    assert "is no file or folder" in message
    assert words in message.replace("PATH", path)


def test_a_prediction_of_what_is_elsewhere(tmp_path, monkeypatch, capfd):
    """The sizes that it knows, and the same hint."""
    monkeypatch.chdir(tmp_path)
    assert main(["predict", "--model", "12B", "--hardware", "generic"]) == 2
    assert capfd.readouterr().err.endswith("2B4T, 175B, 1T\n")
    assert main(["predict", "--model", "https://x.org/y", "--hardware", "generic"]) == 2
    assert capfd.readouterr().err.endswith("2B4T, 175B, 1T: an address, download it first\n")


def test_a_path_that_is_mistyped(tmp_path, tiny, monkeypatch):
    """It is not an id of the hub if its first folder exists; the name most like it is told."""
    monkeypatch.chdir(tmp_path)
    assert error("tiny/none", FileNotFoundError) == f"model: 'PATH' is no file or folder{ELSE}"
    (tmp_path / "Model.GGUF").write_bytes(b"")
    for name in ("model.gguf", "Modle.GGUF", "model.ggu"):
        assert error(name, FileNotFoundError).endswith(": there is 'Model.GGUF'")
    assert error(tmp_path / "TINY" / "x", FileNotFoundError).endswith(f": there is {str(tiny)!r}")


def test_the_cache_of_the_hub(tmp_path, tiny, monkeypatch):
    """The folder of a repository: its snapshot, that of main among several, or what there is."""
    cache = tmp_path / "hub" / "models--org--name"
    snapshots = cache / "snapshots"
    (cache / "refs").mkdir(parents=True)
    snapshots.mkdir()
    assert "has the snapshots none, expected" in error(cache)
    shutil.copytree(tiny, snapshots / "abc")
    assert locate(cache) == snapshots / "abc"
    assert isinstance(open_checkpoint(cache), HuggingFace)
    shutil.copytree(tiny, snapshots / "def")
    assert "has the snapshots abc, def, expected the path of one" in error(cache)
    (cache / "refs" / "main").write_text("def\n")
    assert locate(cache) == snapshots / "def"
    (cache / "refs" / "main").write_text("../../..")
    assert "has the snapshots abc, def" in error(cache)
    assert "expected the folder of a model in it: models--org--name" in error(tmp_path / "hub")
    assert main(["quantize", str(cache / "snapshots" / "abc"), str(tmp_path / "packed")]) == 0


def test_a_file_of_a_folder(tiny):
    """The weights, a shard, or any JSON of a Hugging Face folder: the folder is named."""
    for name in ("model-00001-of-00002.safetensors", "model.safetensors.index.json"):
        shutil.copy(tiny / "model.safetensors", tiny / name)
    for name in ("model.safetensors", "model-00001-of-00002.safetensors", "config.json",
                 "tokenizer.json", "model.safetensors.index.json", "tokenizer.model", "README.md",
                 "chat_template.jinja", "merges.txt"):  # fmt: skip
        if not (tiny / name).exists():
            (tiny / name).write_text("any")
        message = error(tiny / name)
        assert "is one file of a Hugging Face model" in message
        assert message.endswith(f"expected its folder, {str(tiny)!r}")
    (tiny / "config.json").unlink()
    assert "the folder is opened" in error(tiny / "model.safetensors")


def test_gguf_in_a_folder(tmp_path, tiny):
    """Next to a config.json it is used where there are no safetensors; several are named; a folder
    may be called x.gguf."""
    (tiny / "folder.gguf").mkdir()
    assert isinstance(open_checkpoint(tiny), HuggingFace)
    small_gguf(tiny / "a.gguf")
    assert isinstance(open_checkpoint(tiny), HuggingFace)
    (tiny / "model.safetensors").unlink()
    assert isinstance(open_checkpoint(tiny), Gguf)
    renamed = tiny.rename(tmp_path / "model.gguf")
    assert isinstance(open_checkpoint(renamed), Gguf)
    shutil.copy(renamed / "a.gguf", renamed / "b.gguf")
    assert error(renamed).endswith("holds a.gguf, b.gguf, expected the path of one")
    (renamed / "b.gguf").rename(renamed / "b.GGUF")
    assert error(renamed).endswith("holds a.gguf, b.GGUF, expected the path of one")
    (renamed / "model-00001-of-00002.safetensors").write_bytes(b"")
    assert "no model.safetensors.index.json" in error(renamed, FileNotFoundError)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pytorch_model.bin", "pytorch_model.bin, a pickle, which is never read: convert it"),
        ("consolidated.00.pth", "consolidated.00.pth, a pickle"),
        ("model-00001-of-00002.safetensors", "but no model.safetensors.index.json"),
        ("weights.safetensors", "weights.safetensors, expected that name, or the path of what"),
        ("model.safetensors.incomplete", "an unfinished download"),
        (".cache/huggingface/download/a.incomplete", "an unfinished download"),
    ],
)
def test_a_folder_without_weights(tiny, name, words):
    """What is there instead is named."""
    (tiny / "model.safetensors").unlink()
    assert error(tiny, FileNotFoundError) == "model: 'PATH' has no model.safetensors"
    (tiny / name).parent.mkdir(parents=True, exist_ok=True)
    (tiny / name).write_bytes(b"x")
    message = error(tiny, FileNotFoundError)
    assert message.startswith("model: 'PATH' has no model.safetensors: there is ")
    assert words in message


def test_a_folder_without_a_config(tmp_path, tiny):
    """A folder around it; pickles; a link whose file is gone."""
    assert error(tmp_path, FileNotFoundError) == (
        "model: 'PATH' has no config.json: there is tiny/config.json, expected the path of that "
        "folder"
    )
    (tiny / "config.json").unlink()
    assert error(tmp_path, FileNotFoundError) == "model: 'PATH' has no config.json"
    (tiny / "a.gguf").write_bytes(b"")
    assert error(tmp_path, FileNotFoundError).endswith(
        "there is tiny/a.gguf, expected the path of that file"
    )
    (tiny / "a.gguf").unlink()
    assert error(tiny, FileNotFoundError).endswith(
        "there is model.safetensors, expected the path of what quantize wrote"
    )
    (tmp_path / "pytorch_model.bin").write_bytes(b"PK")
    assert "pytorch_model.bin, a pickle" in error(tmp_path, FileNotFoundError)
    shutil.copy(TINY / "config.json", tiny)
    (tiny / "model.safetensors").unlink()
    (tiny / "model.safetensors").symlink_to("../blobs/123")
    assert "it is a link to '../blobs/123', where nothing is" in error(tiny, FileNotFoundError)


def test_a_pickle(tmp_path):
    """By its content, not by its name: a packed file may have any."""
    path = tmp_path / "model.bin"
    for start in (b"PK\x03\x04", b"\x80\x02", b"\x80\x05"):
        path.write_bytes(start + bytes(100))
        message = error(path)
        start = "model: 'PATH' is a pickle, which is never read: convert it to safetensors, with "
        assert message.startswith(start)
        assert message.endswith(".save_pretrained('DIR')\"")
        assert "\n" not in message
    path.write_bytes(b"tjgg" + bytes(100))
    assert "no intact safetensors file" in error(path)
    assert main(["quantize", str(TINY), str(path)]) == 0
    open_checkpoint(path)


@pytest.mark.parametrize(
    "name",
    ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
     "tokenizer_config.json", "chat_template.jinja"],
)  # fmt: skip
@pytest.mark.parametrize(
    ("data", "words"),
    [
        (POINTER, "is a pointer of git-lfs, expected the file itself: git lfs pull"),
        ("\n<!DOCTYPE html><html>", "is a web page, expected the file itself: download it again"),
        ("<html>\n", "is a web page"),
    ],
)
def test_what_lies_in_the_place_of_a_file(tiny, name, data, words):
    """A pointer of git-lfs, a web page: named when the folder is opened, each file."""
    (tiny / name).write_text(data)
    message = error(tiny)
    assert f"PATH/{name}" in message
    assert words in message


def test_placeholders_of_single_files(tmp_path):
    """Of a GGUF file, a packed file, shards and their index."""
    for name in ("a.gguf", "packed.safetensors"):
        (tmp_path / name).write_text(POINTER)
        assert "git lfs pull" in error(tmp_path / name)
    values = checkpoints.tensors()
    folder = checkpoints.write_shards(tmp_path / "shards", values, 2)
    for name in ("model-1.safetensors", "model.safetensors.index.json"):
        kept = (folder / name).read_bytes()
        (folder / name).write_text(POINTER)
        assert re.search(rf"{re.escape(name)}' is a pointer of git-lfs", error(folder))
        (folder / name).write_bytes(kept)
    open_checkpoint(folder)


def test_placeholders_of_other_templates(tiny, tmp_path, capfd):
    """A chat template of its own folder; a packed file that is to be verified."""
    folder = tiny / "additional_chat_templates"
    folder.mkdir()
    (folder / "default.jinja").write_text(POINTER)
    with pytest.raises(ValueError, match=r"default\.jinja' is a pointer of git-lfs"):
        open_checkpoint(tiny).chat_template()
    (tmp_path / "packed").write_text(POINTER)
    assert main(["verify", str(tmp_path / "packed")]) == 2
    assert "packed' is a pointer of git-lfs" in capfd.readouterr().err


def test_files_that_are_not_whole(tmp_path, tiny):
    """Empty ones and those of a download."""
    for name in ("config.json", "model.safetensors"):
        kept = (tiny / name).read_bytes()
        (tiny / name).write_bytes(b"")
        assert "it is empty" in error(tiny)
        (tiny / name).write_bytes(kept)
    for name in ("a.gguf.part", "b.safetensors.incomplete", "c.crdownload"):
        (tmp_path / name).write_bytes(b"GGUF" + bytes(60))
        assert error(tmp_path / name) == "model: 'PATH' is unfinished, expected a whole file"


def test_a_node_that_is_neither(tmp_path):
    """A pipe is not waited for."""
    os.mkfifo(tmp_path / "pipe")
    assert "has no config.json" in error(tmp_path / "pipe", FileNotFoundError)
