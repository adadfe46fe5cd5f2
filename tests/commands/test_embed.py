"""`python -m ternops embed`: vectors to stdout or a file, one line for what is wrong."""

from __future__ import annotations

import io
import json
import re
import sys

import numpy as np
import pytest

from ternops.__main__ import main
from ternops.decoder import Model
from tests.helpers import cases, embedders, processes

TEXTS = ["hello", "", "a longer “text”"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Of a model whose pooling is the mean."""
    path = embedders.folder(tmp_path_factory.mktemp("embed") / "model")
    return embedders.write_modules(path, "mean")


def run(capfd, *arguments):
    """(exit code, stdout, the last line of stderr)."""
    code = main(["embed", *map(str, arguments)])
    out, err = capfd.readouterr()
    return code, out, err.splitlines()[-1]


def give(monkeypatch, data):
    """Let stdin be some bytes."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_lines_of_json(folder, capfd):
    """A text and its vector each, in all digits; figures on stderr."""
    code, out, last = run(capfd, "--model", folder, "--threads", 2, *TEXTS)
    assert code == 0
    found = [json.loads(line) for line in out.splitlines()]
    assert [each["text"] for each in found] == TEXTS
    vectors = np.array([each["embedding"] for each in found], np.float32)
    assert cases.same_bits(vectors, Model.from_pretrained(folder).embed(TEXTS))
    rate = r"\d+\.\d"
    assert re.fullmatch(
        rf"\[3 text\(s\), 27 tokens, {rate} texts/s, {rate} tokens/s; pooling: mean "
        r"\(modules.json\); 2 thread\(s\), \w+ weights, fp16 cache\]", last,
    )  # fmt: skip


def test_stdin_and_a_file(folder, capfd, tmp_path, monkeypatch):
    """A text a line, whatever ends it, a byte order mark left out."""
    give(monkeypatch, "\ufeffhello\r\n\na longer “text”\n".encode())
    path = tmp_path / "found.npy"
    options = ("--prompt", "find: ", "--no-normalize", "--output", path)
    code, out, _ = run(capfd, "--model", folder, *options)
    assert (code, out) == (0, "")
    expected = Model.from_pretrained(folder).embed(TEXTS, False, prompt="find: ")
    assert cases.same_bits(np.load(path), expected)


@pytest.mark.filterwarnings("ignore:dtype='int8'. buckets of 3")
@pytest.mark.parametrize("dtype", ["int8", "binary"])
def test_dtypes(folder, capfd, tmp_path, dtype):
    """Integers, also in JSON."""
    expected = Model.from_pretrained(folder).embed(TEXTS, dtype=dtype)
    _, out, _ = run(capfd, "--model", folder, "--dtype", dtype, *TEXTS)
    assert [json.loads(line)["embedding"] for line in out.splitlines()] == expected.tolist()
    path = tmp_path / "found.npy"
    run(capfd, "--model", folder, "--dtype", dtype, "--output", path, *TEXTS)
    assert cases.same_bits(np.load(path), expected)


def test_truncate(folder, capfd):
    """Cut off as `embed` does."""
    _, out, _ = run(capfd, "--model", folder, "--truncate", "x" * 200)
    found = np.array(json.loads(out)["embedding"], np.float32)
    assert cases.same_bits(found, Model.from_pretrained(folder).embed(["x" * 89])[0])


@pytest.mark.parametrize(
    ("arguments", "data", "words"),
    [
        (["x" * 90], b"", "TEXT[0]: 91 tokens, expected at most 90"),
        (["--context", "20", "a", "x" * 40], b"", "TEXT[1]: 41 tokens, expected at most 20"),
        (["--context", "91", "a"], b"", "--context 91: expected 2 to the model's 90"),
        ([], b"", "stdin: empty, expected a text in each line"),
        ([], b"a\xff", "stdin: not UTF-8 at byte 1"),
        ([], b"a\n" + b"x" * 100, "stdin[1]: 101 tokens, expected at most 90"),
        (["--output", "a.json", "a"], b"", "--output: 'a.json', expected a name that ends in .npy"),
        (["\udcff"], b"", "TEXT[0]: not UTF-8 at character 0"),
        (["--prompt", "\udcff", "a"], b"", "--prompt: not UTF-8 at character 0"),
        (["--model", "nowhere/at/all", "a"], b"", "model: "),
    ],
)
def test_what_is_wrong(folder, capfd, monkeypatch, arguments, data, words):
    """One line, exit code 2."""
    give(monkeypatch, data)
    code, out, last = run(capfd, "--model", folder, *arguments)
    assert (code, out) == (2, "")
    assert last.startswith(f"ternops: error: {words}")


def test_an_unknown_pooling(tmp_path, capfd):
    """Before weights are read."""
    path = embedders.write_modules(embedders.folder(tmp_path / "model"), "max")
    (path / "model.safetensors").write_bytes((path / "model.safetensors").read_bytes()[:-100])
    code, _, last = run(capfd, "--model", path, "a")
    assert code == 2
    assert "model.safetensors" in last or "pooling is 'max'" in last


def test_as_a_program(folder):
    """With the tiny model, which is no embedding model, with a warning."""
    done = processes.python("-m", "ternops", "embed", "def", "--threads", "1")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["embedding"]) > 100
    warning = "ternops: warning: model: no modules.json says how to embed texts: the last token's"
    assert any(line.startswith(warning) for line in done.stderr.splitlines())
    assert "pooling: lasttoken (no file says otherwise)" in done.stderr
