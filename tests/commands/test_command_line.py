"""`python -m ternops`: text and figures where they belong, errors in one line, exit codes."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, normalizers
from tokenizers.models import BPE

import ternops
from ternops.__main__ import main
from ternops.decoder import Model, open_checkpoint, reference
from ternops.decoder.formats.loading import TINY
from ternops.decoder.stops import StoppedText
from ternops.decoder.text import load_tokenizer
from ternops.encodings import TERNARY
from ternops.isa import detect
from tests.helpers import checkpoints, internals, processes

PROMPT = "def main("
#: The lines that a log gets while something takes long.
PROGRESS = re.compile(r"(loading|predicting|reading the prompt|quantizing): \d+%")


def expected_text(count, **settings):
    """What greedy decoding continues PROMPT with, by the library."""
    tokenizer = load_tokenizer(TINY)
    model = Model.from_pretrained(threads=1, **settings)
    tokens = list(model.generate(tokenizer.encode(PROMPT).ids, count))
    return PROMPT + tokenizer.decode(tokens)


@pytest.mark.parametrize(
    ("settings", "held"),
    [
        ({}, "two_bit weights, fp16 head, fp16 cache"),
        pytest.param({"weights": "fp16"}, "fp16 weights, fp16 head, fp16 cache",
                     marks=pytest.mark.slow),
        pytest.param({"weights": "tl2", "head": "int8", "cache": "int8"},
                     "tl2 weights, int8 head, int8 cache", marks=pytest.mark.slow),
        ({"head": "screened", "context": "40"}, "two_bit weights, screened head, fp16 cache"),
    ],
)  # fmt: skip
def test_generate_prints_the_text(settings, held):
    """Prompt and continuation on stdout, progress and figures on stderr, exit code 0."""
    options = [f"--{name}={value}" for name, value in settings.items()]
    done = processes.python(
        "-m", "ternops", "generate", "--prompt", PROMPT, "--max-new-tokens", "12", "--threads", "2",
        *options,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    if "context" in settings:
        settings = {**settings, "context": 40}
    assert done.stdout == expected_text(12, **settings) + "\n"
    *progress, last = done.stderr.splitlines()
    assert all(PROGRESS.fullmatch(line) for line in progress)
    rate = r"\d+\.\d tokens/s"
    rows = r"(, \d+\.\d of 1024 rows rescored a token)?"
    read = r"(, \d+% of up's rows and \d+% of down's columns read)?"
    figures = rf"prompt 5 tokens, {rate}; 12 token\(s\), {rate}; 2 thread\(s\), {held}"
    pattern = rf"\[{figures}{rows}{read}\]"
    assert re.fullmatch(pattern, last), last
    assert ("rescored" in last) == ("screened" in held)
    assert ("rows and" in last) == ("two_bit" in held)


def test_info_names_what_there_is():
    """A line for each entry of `ternops.info`, exit code 0, nothing on stderr."""
    done = processes.python("-m", "ternops", "info")
    assert (done.returncode, done.stderr) == (0, "")
    keys = list(ternops.info())
    assert keys == ["cpu", "tier", "threads", "threading layer", "cache", "tuning", "versions"]
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


def test_options_of_sampling(capfd):
    """The likeliest one of one is greedy; drafts change nothing."""
    expected = expected_text(30) + "\n"
    for options in (["--temperature", "2", "--top-k", "1"], ["--prompt-lookup", "5"]):
        assert main(["generate", "--prompt", PROMPT, "--max-new-tokens", "30", *options]) == 0
        assert capfd.readouterr().out == expected


def test_prompts_from_elsewhere(capfd, monkeypatch, tmp_path):
    """From a file and from stdin they are what they are as an option."""
    path = tmp_path / "prompt"
    path.write_text(PROMPT, "utf-8")
    expected = expected_text(8) + "\n"
    for options in (["--prompt-file", str(path)], ["--prompt-file", "-"], ["--prompt", "-"]):
        with open(path, encoding="utf-8") as file:
            monkeypatch.setattr("sys.stdin", file)
            assert main(["generate", *options, "--max-new-tokens", "8"]) == 0
        assert capfd.readouterr().out == expected
    assert "--prompt-file: '/nonexistent'" in complaint(
        ["generate", "--prompt-file", "/nonexistent"], capfd
    )
    path.write_bytes(b"a\xffb")
    assert "is not UTF-8 at byte 1" in complaint(["generate", "--prompt-file", str(path)], capfd)


def test_a_text_from_stdin(capfd, monkeypatch, text):
    """The same digits as from a file; the table would read it once for each row."""
    digits = []
    for path in (str(text), "-"):
        with open(text, encoding="utf-8") as file:
            monkeypatch.setattr("sys.stdin", file)
            assert main(["perplexity", "--text", path]) == 0
        digits.append(capfd.readouterr().out.splitlines()[:2])
    assert digits[0] == digits[1]
    assert "--text: stdin" in complaint(["perplexity", "--table", "--text", "-"], capfd)


def test_json(capfd):
    """One line with all there is to know; why it ended."""
    tokenizer = open_checkpoint(None).tokenizer()
    prompt, continued = tokenizer.encode(PROMPT).ids, expected_text(20).removeprefix(PROMPT)
    stop = continued[10:13]
    for options, reason in (
        (["--max-new-tokens", "20"], "length"), (["--stop", stop], "stop"),
        (["--context", "12"], "length"),
    ):  # fmt: skip
        assert main(["generate", "--prompt", PROMPT, "--json", *options]) == 0
        (line,) = capfd.readouterr().out.splitlines()
        found = json.loads(line)
        assert found["finish_reason"] == reason
        assert found["prompt_tokens"] == prompt
        assert found["prompt_tokens_read"] == len(prompt)
        assert len(found["token_seconds"]) == len(found["tokens"])
        assert found["token_seconds"] == sorted(found["token_seconds"])
        if reason == "stop":
            assert found["text"] == continued[: continued.index(stop)]
        else:
            assert len(found["tokens"]) == (20 if "20" in options else 12 - len(prompt) + 1)
            assert found["text"] == tokenizer.decode(prompt + found["tokens"])[len(PROMPT) :]


def test_control_tokens_may_be_text(capfd):
    """Their names in a prompt are read as they are asked to be."""
    tokenizer = open_checkpoint(None).tokenizer()
    for options, count in ([], 1), (["--no-control-tokens"], 0):
        arguments = ["generate", "--prompt", "a<|end_of_text|>b", "--json", *options]
        assert main([*arguments, "--max-new-tokens", "1"]) == 0
        prompt = json.loads(capfd.readouterr().out)["prompt_tokens"]
        assert prompt[0] == 0
        assert prompt.count(1) == count
        assert tokenizer.decode(prompt[1:], skip_special_tokens=False) == "a<|end_of_text|>b"


def test_the_settings_of_the_files_are_the_default(capfd, tmp_path):
    """Of generation_config.json; what is given counts more."""
    folder = shutil.copytree(TINY, tmp_path / "x")
    recommended = {"do_sample": True, "temperature": 5.0, "top_k": 1}
    (folder / "generation_config.json").write_text(json.dumps(recommended))
    arguments = ["generate", "--prompt", PROMPT, "--model", str(folder), "--max-new-tokens", "20"]
    texts = []
    for options in ([], ["--top-k", "0", "--seed", "1"], ["--top-k", "0", "--temperature", "0"]):
        assert main([*arguments, *options]) == 0
        texts.append(capfd.readouterr().out)
    assert texts[0] == texts[2] == expected_text(20) + "\n"
    assert texts[1] != texts[0]


def test_a_draft_model(capfd):
    """The same text."""
    arguments = ["generate", "--prompt", PROMPT, "--max-new-tokens", "20"]
    assert main([*arguments, "--draft-model", str(TINY), "--draft-tokens", "3"]) == 0
    assert capfd.readouterr().out == expected_text(20) + "\n"
    assert "--prompt-lookup 2" in complaint(
        [*arguments, "--draft-model", str(TINY), "--prompt-lookup", "2"], capfd
    )


@pytest.mark.parametrize("count", ["0", "1"])
def test_too_few_tokens_for_a_rate(capfd, count):
    """No division by nothing."""
    assert main(["generate", "--prompt", PROMPT, "--max-new-tokens", count]) == 0
    assert f"; {count} token(s), too few for a rate" in capfd.readouterr().err


def test_ctrl_c_keeps_the_figures(capfd, monkeypatch):
    """What was said so far, its line ended, and the figures; exit code 0."""
    original, count = StoppedText.take, itertools.count(1)

    def take(text, token, is_last):
        if next(count) == 4:
            raise KeyboardInterrupt
        return original(text, token, is_last)

    monkeypatch.setattr(StoppedText, "take", take)
    assert main(["generate", "--prompt", PROMPT]) == 0
    out, err = capfd.readouterr()
    assert expected_text(10).startswith(out[:-1])
    assert out.endswith("\n")
    assert "; 4 token(s), " in err


def test_ctrl_c_while_loading_is_130(capfd, monkeypatch):
    """And says nothing more."""

    def interrupted(*arguments, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(Model, "from_pretrained", interrupted)
    assert main(["generate", "--prompt", PROMPT]) == 130
    assert capfd.readouterr() == ("", "")


def error_of(out, err):
    """The one line of error, besides progress."""
    assert out == ""
    lines = [line for line in err.splitlines() if not PROGRESS.fullmatch(line)]
    assert len(lines) == 1, lines
    assert lines[0].startswith("ternops: error: ")
    return lines[0]


def complaint(arguments, capfd, code=2):
    """The one line of error that a command ends with."""
    assert main(arguments) == code
    return error_of(*capfd.readouterr())


def test_numbers_are_looked_at_before_a_model_is_loaded(capfd, monkeypatch):
    """Which may take long."""
    monkeypatch.setattr(Model, "from_pretrained", None)
    for command in (["generate", "--prompt", PROMPT], ["chat"]):
        for option, words in (
            ("--max-new-tokens=-1", "max_new_tokens=-1: expected 0 or more"),
            ("--prompt-lookup=-1", "prompt_lookup=-1: expected 0 or more"),
            ("--draft-tokens=0", "draft_tokens=0: expected 1 or more"),
        ):
            assert words in complaint([*command, option], capfd)


def test_the_version(capfd):
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capfd.readouterr().out == f"ternops {ternops.__version__}\n"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--threads", "0"], "threads=0 256"),
        (["--threads", "1000"], "threads=1000 256"),
        (["--temperature", "-1"], "temperature=-1.0"),
        (["--temperature", "nan"], "temperature=nan"),
        (["--top-p", "0"], "top_p=0.0"),
        (["--top-p", "1.5"], "top_p=1.5"),
        (["--top-k", "-1"], "top_k=-1"),
        (["--seed", "-1"], "seed=-1"),
        (["--max-new-tokens", "-1"], "max_new_tokens=-1"),
        (["--prompt-lookup", "-1"], "prompt_lookup=-1"),
        (["--min-p", "2"], "min_p=2.0"),
        (["--stop", ""], "stop: an empty string"),
        (["--repetition-penalty", "-1"], "repetition_penalty=-1.0"),
        (["--presence-penalty", "inf"], "presence_penalty=inf"),
        (["--frequency-penalty", "nan"], "frequency_penalty=nan"),
        (["--logit-bias", "2000=1"], "logit_bias: 2000"),
        (["--context", "1"], "--context 1 512"),
        (["--context", "513"], "--context 513 512"),
        (["--model", "/nonexistent"], "/nonexistent"),
        (["--model", "/dev/null"], "/dev/null"),
    ],
)
def test_a_bad_option_is_one_line(capfd, options, words):
    """Exit code 2 and what is wrong; nothing on stdout."""
    line = complaint(["generate", "--prompt", PROMPT, *options], capfd)
    assert all(word in line for word in words.split())


def test_a_prompt_longer_than_the_context(capfd):
    """One line that names the context, that of the model or the one asked for."""
    assert "512" in complaint(["generate", "--prompt", "x = 1\n" * 600], capfd)
    arguments = ["generate", "--prompt", "x = 1\n" * 20, "--context", "30"]
    assert "--prompt: " in (line := complaint(arguments, capfd))
    assert "holds 30" in line


def test_a_prompt_of_nothing(capfd, tmp_path):
    """Is one token where the tokenizer begins a text with one, an error where it does not."""
    assert main(["generate", "--prompt", "", "--max-new-tokens", "3"]) == 0
    assert "[prompt 1 tokens" in capfd.readouterr().err
    folder = shutil.copytree(TINY, tmp_path / "x")
    path = folder / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "post_processor": None}))
    line = complaint(["generate", "--prompt", "", "--model", str(folder)], capfd)
    assert line == "ternops: error: --prompt: empty, expected at least one token"


def run(arguments, **settings):
    """A finished process with output in bytes; of a string, a shell's."""
    shell = isinstance(arguments, str)
    return subprocess.run(
        arguments if shell else [sys.executable, "-m", "ternops", *arguments], shell=shell,
        env=processes.environment(**settings), cwd=processes.ROOT, timeout=300, check=False,
        capture_output=True,
    )  # fmt: skip


def test_a_continuation_of_pieces(capfd, tmp_path):
    """What is printed is the text of prompt and continuation, with the blank between them."""
    folder = shutil.copytree(TINY, tmp_path / "x")
    words = ["\u2581", "\u2581def", *(f"<0x{byte:02X}>" for byte in range(256))]
    words += [f"\u2581w{number}" for number in range(1024 - len(words))]
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    model = BPE({word: at for at, word in enumerate(words)}, [], byte_fallback=True)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)])
    tokenizer.add_tokens(["\u2581def"])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").unlink()
    prompt = tokenizer.encode(" def").ids
    assert len(prompt) == 1
    tokens = list(Model.from_pretrained(folder, threads=1).generate(prompt, 20))
    text = tokenizer.decode(prompt + tokens)
    assert text.startswith("def ")
    assert (
        main(["generate", "--prompt", " def", "--max-new-tokens", "20", "--model", str(folder)])
        == 0
    )
    assert capfd.readouterr().out == f" {text}\n"


@pytest.mark.slow
def test_a_character_that_stdout_has_not():
    """It is replaced and ends nothing."""
    arguments = ["generate", "--prompt", "café = 1", "--max-new-tokens", "4"]
    expected = run(arguments).stdout.decode()
    assert expected.startswith("café = 1")
    done = run(arguments, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode("ascii") == expected.replace("é", "?")


@pytest.mark.slow
def test_a_path_that_stdout_has_not(tmp_path):
    """The output says what was done, with question marks."""
    folder = shutil.copytree(TINY, tmp_path / "модель")
    steps = (
        (["quantize", str(folder), str(folder / "packed")], "??????/packed: base3"),
        (["verify", str(folder / "packed")], "??????/packed: intact"),
        (["predict", "--model", str(folder), "--hardware", "generic"], "??????"),
        (["info"], "??????/ternops"),
    )
    for encoding in ("ascii", "cp1252"):  # the second finds the kernels of the first
        for arguments, words in steps:
            done = run(arguments, PYTHONIOENCODING=encoding, NUMBA_CACHE_DIR=str(folder))
            assert done.returncode == 0, done.stderr
            assert words in done.stdout.decode(encoding)


def test_a_byte_order_mark_is_no_text(capfd, text, tmp_path):
    """Neither of a prompt nor of a file."""
    outputs = []
    for mark in ("", "\ufeff"):
        marked = tmp_path / f"marked{len(mark)}"
        marked.write_text(mark + text.read_text("utf-8"), "utf-8")
        assert main(["perplexity", "--text", str(marked)]) == 0
        digits = capfd.readouterr().out.splitlines()[:2]
        assert main(["generate", "--prompt", mark + PROMPT, "--max-new-tokens", "3"]) == 0
        outputs.append([*digits, capfd.readouterr().out])
    assert outputs[0] == outputs[1]


def test_a_token_beyond_the_model(capfd, tmp_path):
    """The tokenizer may have more than the model: one line once one is met."""
    folder = shutil.copytree(TINY, tmp_path / "x")
    (folder / "added_tokens.json").write_text('{"<x>": 1024}')
    path = tmp_path / "text"
    path.write_text("def f(x): <x>")
    words = "'<x>' is 1024 and to the model no token, expected 0 to 1023"
    line = complaint(["generate", "--model", str(folder), "--prompt", "a<x>"], capfd)
    assert line == f"ternops: error: --prompt: {words}"
    line = complaint(["perplexity", "--model", str(folder), "--text", str(path)], capfd)
    assert line == f"ternops: error: --text: {words}"
    assert main(["generate", "--model", str(folder), "--prompt", "a", "--max-new-tokens", "2"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("locale", ["C.UTF-8", "C"])
def test_a_prompt_that_is_no_text(locale):
    """Bytes that are not UTF-8, in any locale."""
    done = run([b"generate", b"--prompt", b"a\xffb"], LC_ALL=locale)
    assert done.returncode == 2
    line = error_of(done.stdout.decode(), done.stderr.decode())
    assert "--prompt: not UTF-8 at character 1" in line


@pytest.mark.slow
def test_a_reader_that_goes_away():
    """A pipe that is closed, and a stdout that never was open: one line, exit code 2."""
    program = f"{sys.executable} -m ternops generate --max-new-tokens 300 --prompt 'def f('"
    done = run(f"{{ {program}; echo $? >&2; }} | head -c 1")
    *lines, code = done.stderr.decode().splitlines()
    assert code == "2"
    assert error_of("", "\n".join(lines)) == "ternops: error: stdout: closed by its reader"
    done = run(f"{program} >&-")
    assert done.returncode == 2
    assert "stdout: closed" in error_of("", done.stderr.decode())


def test_too_little_memory_is_one_line(capfd, monkeypatch):
    """Not a traceback."""

    def fails(*arguments, **settings):
        raise MemoryError("Unable to allocate 9 TiB")

    monkeypatch.setattr(Model, "from_pretrained", fails)
    assert "9 TiB" in complaint(["generate", "--prompt", PROMPT], capfd)


def test_damaged_folders_are_one_line(capfd, tmp_path):
    """Without a tokenizer, with a damaged config, with damaged weights."""
    folder = checkpoints.write(tmp_path / "x")
    arguments = ["generate", "--prompt", PROMPT, "--model", str(folder)]
    assert "tokenizer.json" in complaint(arguments, capfd)
    shutil.copy(TINY / "tokenizer.json", folder)
    (folder / "model.safetensors").write_bytes(b"nothing")
    assert "model.safetensors" in complaint(arguments, capfd)
    (folder / "config.json").write_text("{")
    assert "config.json" in complaint(arguments, capfd)


def test_a_tokenizer_of_another_model_is_one_line(capfd, tmp_path):
    """Tokens that the model does not have are named."""
    folder = checkpoints.write(tmp_path / "x")
    shutil.copy(TINY / "tokenizer.json", folder)
    line = complaint(["generate", "--prompt", PROMPT, "--model", str(folder)], capfd)
    assert "no token, expected 0 to 32" in line


@pytest.mark.slow
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


def test_help_lists_the_commands():
    """Exit code 0 and all commands; each has help of its own."""
    done = processes.python("-m", "ternops", "--help")
    assert done.returncode == 0
    for name in ("info", "quantize", "verify", "generate", "chat", "perplexity"):
        assert re.search(rf"^ +{name} ", done.stdout, re.MULTILINE)
        with pytest.raises(SystemExit) as caught:
            main([name, "--help"])
        assert caught.value.code == 0


@pytest.mark.slow
@pytest.mark.parametrize("package", ["tokenizers", "rich"])
def test_without_a_package_the_error_says_what_to_install(tmp_path, package):
    """One line with the command, where that package cannot be imported."""
    (tmp_path / f"{package}.py").write_text(f"raise ModuleNotFoundError({package!r})")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from ternops.__main__ import main; sys.exit(main(['generate', '--prompt', 'x']))"
    )
    done = processes.python("-c", code)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"ternops: error: {package} is not installed: pip install 'ternops[llm]'"
    ]


@pytest.mark.slow
@pytest.mark.tiers
@pytest.mark.xdist_group("tier generic")  # where its kernels are compiled
def test_a_warning_is_one_line(tmp_path):
    """A packed file in an encoding that this tier is slow with."""
    path = tmp_path / "tiny.safetensors"
    assert main(["quantize", str(TINY), str(path)]) == 0
    arguments = ["-m", "ternops", "generate", "--prompt", PROMPT, "--model", str(path)]
    done = processes.python(*arguments, "--max-new-tokens", "3", **processes.SETTINGS["generic"])
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if not PROGRESS.fullmatch(line)]
    assert len(lines) == 2
    assert lines[0].startswith("ternops: warning: tiny.safetensors holds base3, which is slow on")
    assert "two_bit weights" in lines[1]


# perplexity


@pytest.fixture
def text(tmp_path):
    """Python of three windows and a bit."""
    path = tmp_path / "text.py"
    path.write_text((processes.ROOT / "ternops/team.py").read_text("utf-8")[:4000], "utf-8")
    return path


def expected_perplexity(path, context, **settings):
    """By the oracle's formula, and the tokens that it is over."""
    bos, *tokens = load_tokenizer(TINY).encode(path.read_text("utf-8")).ids
    model = Model.from_pretrained(threads=1, **settings)
    scores = []
    for at in range(0, len(tokens), context - 1):
        window = [bos, *tokens[at : at + context - 1]]
        mean = np.log(reference.perplexity(model.logits(window), window))
        scores += [mean] * (len(window) - 1)
    assert len(scores) == len(tokens)
    return np.exp(np.mean(scores)), len(tokens)


@pytest.mark.slow
@pytest.mark.parametrize("context", [None, 2, 100, 512])
def test_perplexity(capfd, text, context):
    """Of all tokens of the text, in windows that begin with BOS."""
    options = [] if context is None else ["--context", str(context)]
    assert main(["perplexity", "--text", str(text), *options]) == 0
    out, err = capfd.readouterr()
    expected, count = expected_perplexity(text, context or 512)
    lines = dict(line.split(None, 1) for line in out.splitlines())
    assert list(lines) == ["perplexity", "tokens", "tokens/s"]
    assert float(lines["perplexity"]) == pytest.approx(expected, rel=1e-12)
    assert repr(float(lines["perplexity"])) == lines["perplexity"]
    size = context or 512
    assert lines["tokens"] == f"{count} in {-(-count // (size - 1))} windows of {size}"
    assert float(lines["tokens/s"]) > 0
    assert "thread(s), two_bit weights" in err


def test_perplexity_does_not_depend_on_the_passes(capfd, text, monkeypatch):
    """To its last digit: the sum over the tokens is rounded once."""
    digits = set()
    for most in (1, 7, 64):
        internals.limit_tokens_of_a_pass(monkeypatch, most)
        assert main(["perplexity", "--text", str(text)]) == 0
        digits.add(capfd.readouterr().out.splitlines()[0])
    assert len(digits) == 1


def test_perplexity_without_a_token_to_begin_with(capfd, text, tmp_path):
    """The first token of a window is then not predicted."""
    folder = shutil.copytree(TINY, tmp_path / "x")
    path = folder / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "post_processor": None}))
    assert main(["perplexity", "--text", str(text), "--model", str(folder)]) == 0
    tokens = load_tokenizer(folder).encode(text.read_text("utf-8")).ids
    windows = -(-len(tokens) // 512)
    assert f"{len(tokens) - windows} in {windows} windows" in capfd.readouterr().out


def test_a_text_that_cannot_be_read(capfd, tmp_path):
    """Missing, a folder, no UTF-8, empty."""
    arguments = ["perplexity", "--text"]
    assert "No such file" in complaint([*arguments, str(tmp_path / "none")], capfd)
    assert "Is a directory" in complaint([*arguments, str(tmp_path)], capfd)
    path = tmp_path / "x"
    path.write_bytes(b"ab\xffcd")
    line = complaint([*arguments, str(path)], capfd)
    assert line == f"ternops: error: --text: {str(path)!r} is not UTF-8 at byte 2"
    path.write_bytes(b"")
    assert "too short" in complaint([*arguments, str(path)], capfd)
    path.write_text("x = 1")
    assert "--context 1:" in complaint([*arguments, str(path), "--context", "1"], capfd)
    assert "--context 600:" in complaint([*arguments, str(path), "--context", "600"], capfd)


@pytest.mark.slow
def test_the_table_of_this_tier(capfd, text, monkeypatch):
    """Every encoding, each in a process of its own; the digits of this process."""
    tier = next(each for each in detect.available() if each.name == detect.TIER.name)
    monkeypatch.setattr(detect, "available", lambda: [tier])
    arguments = ["perplexity", "--text", str(text), "--context", "200"]
    assert main(arguments) == 0
    digits = capfd.readouterr().out.split()[1]
    assert main([*arguments, "--table"]) == 0
    out, _ = capfd.readouterr()
    assert out.count(digits) == len(TERNARY)
    for encoding in TERNARY:
        assert re.search(rf"{tier.name}\W+{encoding}\W+{re.escape(digits)}\W+\d", out)
    assert out.endswith("all digits are equal\n")


def test_the_table_of_different_digits(capfd, text, monkeypatch):
    """Exit code 1; every encoding is computed on every tier."""
    asked = []

    def figures(arguments, tier, encoding):
        asked.append((tier, encoding))
        return {"perplexity": "3.5" if len(asked) != 3 else "3.5000000000000004", "tokens/s": "1"}

    internals.replace_figures(monkeypatch, figures)
    assert main(["perplexity", "--text", str(text), "--table"]) == 1
    assert "2 different perplexities" in capfd.readouterr().out
    assert asked == [(tier.name, each) for tier in detect.available() for each in TERNARY]


@pytest.mark.slow
def test_a_table_that_fails_is_one_line(capfd, tmp_path):
    """What went wrong in the other process."""
    arguments = ["perplexity", "--table", "--text", str(tmp_path / "none"), "--threads", "1"]
    assert "No such file" in complaint(arguments, capfd)
    assert os.listdir(tmp_path) == []
