"""`python -m ternops`: text and figures where they belong, errors in one line, exit codes."""

from __future__ import annotations

import shutil

import pytest

import ternops
from ternops.__main__ import main
from ternops.decoder import Model
from ternops.decoder.checkpoint import TINY
from ternops.decoder.text import load_tokenizer
from tests import checkpoints, processes

PROMPT = "def main("


def expected_text(weights, count):
    """What greedy decoding continues PROMPT with, by the library."""
    tokenizer = load_tokenizer(TINY)
    model = Model.from_pretrained(weights=weights, threads=1)
    tokens = list(model.generate(tokenizer.encode(PROMPT).ids, count))
    return PROMPT + tokenizer.decode(tokens)


@pytest.mark.parametrize("weights", ["ternary", "fp16"])
def test_generate_prints_the_text(weights):
    """Prompt and continuation on stdout, progress and rate on stderr, exit code 0."""
    done = processes.python(
        "-m", "ternops", "generate", "--prompt", PROMPT, "--max-new-tokens", "12",
        "--weights", weights, "--threads", "2",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == expected_text(weights, 12) + "\n"
    last = done.stderr.splitlines()[-1]
    assert last.startswith("[12 tokens, ")
    assert last.endswith(f" tokens/s, 2 thread(s), {weights}]")
    assert "loading layer 4 of 4" in done.stderr


def test_info_names_what_there_is():
    """A line for each entry of `ternops.info`, exit code 0, nothing on stderr."""
    done = processes.python("-m", "ternops", "info")
    assert (done.returncode, done.stderr) == (0, "")
    keys = list(ternops.info())
    assert keys == ["cpu", "tier", "threads", "threading layer", "cache", "versions"]
    lines = done.stdout.splitlines()
    assert len(lines) == len(keys)
    for key, line in zip(keys, lines, strict=True):
        assert line.startswith(f"{key}  ")
        assert len(line) > len(key) + 5


def test_the_seed_decides(capfd):
    """The same seed prints the same text, another one another text."""
    texts = []
    for seed in ("1", "1", "2"):
        arguments = ["generate", "--prompt", PROMPT, "--temperature", "1.5", "--seed", seed]
        assert main([*arguments, "--max-new-tokens", "30"]) == 0
        texts.append(capfd.readouterr().out)
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]


@pytest.mark.parametrize("count", ["0", "1"])
def test_too_few_tokens_for_a_rate(capfd, count):
    """No division by nothing."""
    assert main(["generate", "--prompt", PROMPT, "--max-new-tokens", count]) == 0
    assert f"[{count} token(s), too few for a rate" in capfd.readouterr().err


def complaint(arguments, capfd, code=2):
    """The one line of error that a command ends with, besides the progress of loading."""
    assert main(arguments) == code
    out, err = capfd.readouterr()
    assert out == ""
    lines = [line for line in err.splitlines() if not line.startswith("loading layer")]
    lines = [line for line in lines if line]
    assert len(lines) == 1
    assert lines[0].startswith("ternops: error: ")
    return lines[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--threads", "0"], "threads=0 256"),
        (["--threads", "1000"], "threads=1000 256"),
        (["--temperature", "-1"], "temperature=-1.0"),
        (["--temperature", "nan"], "temperature=nan"),
        (["--top-p", "0"], "top_p=0.0"),
        (["--top-p", "1.5"], "top_p=1.5"),
        (["--seed", "-1"], "seed=-1"),
        (["--max-new-tokens", "-1"], "max_new_tokens=-1"),
        (["--model", "/nonexistent"], "/nonexistent"),
    ],
)
def test_a_bad_option_is_one_line(capfd, options, words):
    """Exit code 2 and what is wrong; nothing on stdout."""
    line = complaint(["generate", "--prompt", PROMPT, *options], capfd)
    assert all(word in line for word in words.split())


def test_a_prompt_longer_than_the_context(capfd):
    """One line that names the context."""
    assert "512" in complaint(["generate", "--prompt", "x = 1\n" * 600], capfd)


def test_damaged_folders_are_one_line(capfd, tmp_path):
    """Without a tokenizer, with a damaged config, with damaged weights."""
    folder = checkpoints.write(tmp_path / "x")
    command = ["generate", "--prompt", PROMPT, "--model", str(folder)]
    assert "tokenizer.json" in complaint(command, capfd)
    shutil.copy(TINY / "tokenizer.json", folder)
    (folder / "model.safetensors").write_bytes(b"nothing")
    assert "model.safetensors" in complaint(command, capfd)
    (folder / "config.json").write_text("{")
    assert "config.json" in complaint(command, capfd)


def test_a_tokenizer_of_another_model_is_one_line(capfd, tmp_path):
    """Tokens that the model does not have are named."""
    folder = checkpoints.write(tmp_path / "x")
    shutil.copy(TINY / "tokenizer.json", folder)
    line = complaint(["generate", "--prompt", PROMPT, "--model", str(folder)], capfd)
    assert "no token, expected 0 to 32" in line


def test_the_process_ends_with_the_code():
    """2 and no traceback for errors of ours and of the arguments."""
    for arguments in (
        ["generate", "--prompt", PROMPT, "--model", "/nonexistent"],
        ["generate", "--prompt", PROMPT, "--weights", "int4"],
        ["generate"],
        ["nothing"],
        [],
    ):
        done = processes.python("-m", "ternops", *arguments)
        assert done.returncode == 2
        assert done.stdout == ""
        assert "Traceback" not in done.stderr


def test_help_tells_the_commands():
    """Exit code 0 and both commands."""
    done = processes.python("-m", "ternops", "--help")
    assert done.returncode == 0
    assert "info" in done.stdout
    assert "generate" in done.stdout


def test_without_tokenizers_the_error_says_what_to_install(tmp_path):
    """One line with the command, where that package cannot be imported."""
    (tmp_path / "tokenizers.py").write_text("raise ModuleNotFoundError('tokenizers')")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from ternops.__main__ import main; sys.exit(main(['generate', '--prompt', 'x']))"
    )
    done = processes.python("-c", code)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "ternops: error: tokenizers is not installed: pip install 'ternops[llm]'"
    ]
