"""The commands that decompose a model, or choose encodings for it, and --memory."""

from __future__ import annotations

import pytest

from ternops.__main__ import main
from ternops.decoder.formats.loading import TINY
from ternops.decoder.formats.packed import PackedFile
from ternops.decoder.formats.stack_file import open_packed

TEXT = "def read(path):\n    return open(path).read()\n" * 4


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text"
    path.write_text(TEXT)
    return str(path)


def test_a_stack_is_written_and_used_as_far_as_there_is_memory(tmp_path, text, capsys):
    path = str(tmp_path / "tiny.stack")
    arguments = ["stack", str(TINY), path, "--blocks", "2", "--rank", "1", "--text", text]
    assert main(arguments) == 0
    least, *_, most = open_packed(tmp_path / "tiny.stack").sizes
    line = f"{path}: {most:,} bytes of weights, of which --memory may use {least:,} and more"
    assert line in capsys.readouterr().out
    perplexity = ["perplexity", "--model", path, "--text", text]
    found = []
    for memory in (str(least), "1GB"):
        assert main([*perplexity, "--memory", memory]) == 0
        found.append(capsys.readouterr().out.split()[1])
    assert found[0] != found[1]
    for memory, words in (
        ("1kB", f"memory=1,000: expected {least:,} bytes at least"),
        ("much", "memory='much': expected a size as 800MB, 1.2GB or 1.5GiB"),
    ):
        assert main([*perplexity, "--memory", memory]) == 2
        assert words in capsys.readouterr().err
    assert main(["verify", path]) == 0


def test_bits_are_allocated(tmp_path, text, capsys):
    path = tmp_path / "tiny.safetensors"
    assert main(["allocate", str(TINY), str(path), "--bits", "1.6", "--text", text]) == 0
    assert " bits a weight, " in capsys.readouterr().out
    file = PackedFile(path)
    assert {file.matrix(0, name, "base3").encoding for name in "qkvo"} <= {"one_bit", "base3"}
    assert main(["allocate", str(TINY), str(path), "--bits", "0.1"]) == 2
    assert "bits=0.1: expected " in capsys.readouterr().err


def test_a_text_without_tokens_is_named(tmp_path, capsys):
    empty = tmp_path / "empty"
    empty.write_text("")
    assert main(["stack", str(TINY), str(tmp_path / "x"), "--text", str(empty)]) == 2
    assert "is too short, expected a few tokens" in capsys.readouterr().err
    assert main(["generate", "--prompt", "a", "--memory", "1GB"]) == 2
    assert "memory: the model is no stack of residual blocks" in capsys.readouterr().err
