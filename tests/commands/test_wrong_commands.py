"""What new users type wrong: each is answered by one line that says what to type."""

from __future__ import annotations

import runpy
import shlex
import socket
import sys

import gguf
import numpy as np
import pytest

import ternops
from ternops.__main__ import main
from ternops.decoder import Model
from tests.helpers import processes

#: Words after `python -m ternops` -> words of the line.
COMMANDS = {
    # A command, an option or a value that is misspelt.
    "": "command (python -m ternops --help tells more)",
    "genrate --prompt x": "did you mean 'generate'?",
    "quantise SRC DST": "did you mean 'quantize'?",
    "--model x": "--model: no such option; expected a command before it",
    "generate --promt x": "--promt: no such option; did you mean '--prompt'?",
    "generate --prompt x --max-tokens 5": "did you mean '--max-new-tokens'?",
    "generate --prompt x --max-tokens=5": "did you mean '--max-new-tokens'?",
    "generate hello": "--prompt --prompt-file is required (python -m ternops generate --help",
    "generate --prompt x --weights twobit": "did you mean 'two_bit'?",
    "generate --prompt x --threads all": "--threads: invalid int value: 'all'",
    "predict --model 7b --hardware generic": "did you mean '7B'?",
    "predict --model 7B --hardware m2ultra": "did you mean 'm2-ultra'?",
    "predict --model 7B": "required: --hardware",
    # What is no model.
    "generate --prompt x --model none": "is no file or folder; expected one, or OWNER/NAME to",
    "generate --prompt x --model modle.gguf": "no file or folder: there is 'model.gguf'",
    "generate --prompt x --model microsoft/bitnet-b1.58-2B-4T":
        "from where it can: hf download microsoft/bitnet-b1.58-2B-4T --local-dir FOLDER",
    "generate --prompt x --model https://example.org/model.gguf": "an address, download it first",
    "generate --prompt x --model pytorch_model.bin": "convert it to safetensors, with torch",
    "generate --prompt x --model model.pt": "convert it to safetensors, with torch",
    "generate --prompt x --model pickles": "a pickle, which is never read: convert it",
    "generate --prompt x --model model.gguf": "architecture is 'falcon', expected bitnet or",
    "quantize none packed.safetensors": "'none' is no file or folder; expected one",
    "perplexity --text none.txt": "--text: 'none.txt': No such file or directory",
    # Before anything is computed.
    "embed --output none/a.npy hello": "--output 'none/a.npy': No such file or directory",
    "eval --tasks x --output none/a.json": "--output 'none/a.json': No such file or directory",
    "serve --port PORT": "address already in use; --port 0 takes a free one",
}  # fmt: skip

#: The package that is missing, and a command -> what to install.
EXTRAS = {
    "uvicorn": ("serve", "pip install 'ternops[serve]'"),
    "rich": ("generate --prompt x", "pip install 'ternops[llm]'"),
    "tokenizers": ("generate --prompt x", "pip install 'ternops[llm]'"),
    "matplotlib": (
        "predict --model 7B --hardware generic --plot x.png", "pip install 'ternops[cost]'",
    ),
    "lm_eval": ("eval --tasks hellaswag", "pip install 'ternops[eval]'"),
}  # fmt: skip

W = ternops.quantize(np.random.default_rng(0).standard_normal((8, 16)))
X = np.ones((2, 16), np.float32)
FLOATS = np.ones((4, 4))
#: Python -> the error's line, or its end.
CALLS = {
    "X @ W": "axis -1 for a matrix of shape (8, 16), whose transpose (.T) fits",
    "W @ X": "matmul: b has shape (2, 16), expected 16 on axis -2 for a matrix of shape (8, 16)",
    "ternops.pack(FLOATS)": "ternops.quantize(w) rounds floats, trits.astype(np.int8) takes whole "
                            "numbers",
    "ternops.pack(np.full((2, 2), 2, np.int8))": "trits[0, 0] is 2, expected -1, 0 or 1",
    "ternops.quantize(FLOATS, 'twobit')": "; did you mean 'two_bit'?",
    "ternops.quantize(FLOATS, method='nf-4')": "; did you mean 'nf4'?",
    "W.to('base-3')": "; did you mean 'base3'?",
    "Model.from_pretrained(head='screen')": "; did you mean 'screened'?",
    "Model.from_pretrained(weights='base_3')": "; did you mean 'base3'?",
    "ternops.load('none.safetensors')": "path: 'none.safetensors' is not a file",
    "ternops.decoder": "has no attribute 'decoder': import ternops.decoder first",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current one, with files that are no models here."""
    monkeypatch.chdir(tmp_path)
    writer = gguf.GGUFWriter("model.gguf", "falcon")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    (tmp_path / "model.pt").write_bytes(b"PK\x03\x04")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02}")
    (tmp_path / "pickles").mkdir()
    (tmp_path / "pickles" / "pytorch_model.bin").write_bytes(b"\x80\x02}")
    return tmp_path


def the_line(words, capfd):
    """The one line of a command that ends with 2, without what is told of progress."""
    try:
        code = main(shlex.split(words))
    except SystemExit as end:  # as argparse ends
        code = end.code
    out, err = capfd.readouterr()
    lines = [line for line in err.splitlines() if not line.startswith("loading: ")]
    assert (code, out, len(lines)) == (2, "", 1), err
    assert " error: " in lines[0]
    return lines[0]


@pytest.mark.parametrize("words", COMMANDS)
def test_a_wrong_command(words, folder, capfd):
    expected = COMMANDS[words]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        words = words.replace("PORT", str(taken.getsockname()[1]))
        assert expected in the_line(words, capfd)


@pytest.mark.parametrize("package", EXTRAS)
def test_an_extra_that_is_not_installed(package, monkeypatch, capfd):
    for name in [name for name in sys.modules if name.split(".")[0] == package] or [package]:
        monkeypatch.setitem(sys.modules, name, None)
    command, expected = EXTRAS[package]
    line = the_line(command, capfd)
    assert line == f"ternops: error: {package} is not installed: {expected}"


@pytest.mark.parametrize("code", CALLS)
def test_a_wrong_call(code, folder, monkeypatch):
    monkeypatch.delattr(ternops, "decoder")
    with pytest.raises((AttributeError, OSError, TypeError, ValueError)) as caught:
        eval(code, {"ternops": ternops, "np": np, "Model": Model, "W": W, "X": X, "FLOATS": FLOATS})
    line = str(caught.value)
    assert line.endswith(CALLS[code])
    assert "\n" not in line


def test_layers_without_torch(monkeypatch):
    """As they are imported, not when they are used."""
    for name in [name for name in sys.modules if name.split(".")[:2] == ["ternops", "torch"]]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r'^ternops.torch needs PyTorch: pip install "ternops\['):
        import ternops.torch  # noqa: F401


@pytest.mark.parametrize(
    ("argument", "words"),
    [([], "expected python -m bench.NAME, as python -m bench.run --quick; NAME is one of compare,"),
     (["kernel"], "did you mean 'kernels'?")],
)  # fmt: skip
def test_no_benchmark(argument, words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench", *argument])
    with pytest.raises(SystemExit) as end:
        runpy.run_module("bench", run_name="__main__")
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


def test_benchmarks_without_their_extra():
    """As `python -m bench.run` begins: its package is imported while sys.argv is ["-m"]."""
    code = (
        "import importlib.util as u, sys; find = u.find_spec; sys.argv = ['-m']\n"
        "u.find_spec = lambda name: None if name == 'pyperf' else find(name)\n"
        "import bench"
    )
    done = processes.python("-c", code)
    assert done.returncode == 2
    assert done.stderr == "bench: error: pyperf is not installed: pip install '.[bench]'\n"
