"""Arguments of commands: each is done, or refused in one line, or explained by argparse."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from ternops.__main__ import main
from ternops.decoder.formats.convert import convert
from tests.fuzz.mutations import NUMBERS, of_json
from tests.fuzz.target import Finding, Target, new_folder
from tests.helpers import checkpoints

_SEEDS = (
    ["info"], ["--version"], ["generate", "--prompt", "a", "--max-new-tokens", "2"],
    ["generate", "--model", "packed", "--prompt", "a", "--max-new-tokens", "2"],
    ["generate", "--prompt", "a", "--max-new-tokens", "2", "--temperature", "0.5", "--top-k", "3",
     "--seed", "1", "--stop", "x", "--json", "--threads", "1"],
    ["generate", "--prompt-file", "text", "--max-new-tokens", "1", "--head", "int8", "--cache",
     "int8", "--context", "64", "--prompt-lookup", "2"],
    ["quantize", "source", "target", "--encoding", "tl1"],
    ["quantize", "source", "target.gguf", "--to", "gguf"],
    ["verify", "packed"], ["stack", "source", "stacked"],
    ["allocate", "source", "--bits", "2"], ["delta", "source", "source", "changed"],
    ["perplexity", "--text", "text", "--context", "32"],
    ["predict", "--model", "700M", "--hardware", "m2-ultra", "--encoding", "base3", "two_bit"],
    ["predict", "--model", "7B", "--hardware", "epyc-7v13", "--ranks", "4", "--link", "10GbE"],
    ["embed", "--model", "packed", "--output", "vectors.npy"],
)  # fmt: skip
#: Commands that take a machine for long, or listen: their own tests have them.
_LEFT_OUT = {"tune", "warmup", "serve", "calibrate", "eval", "evaluate", "chat"}
_MOST_TOKENS = 8
_WORDS = (
    *map(str, NUMBERS), "-1", "nan", "inf", "1e9", "", " ", "a", "é", "\udcff", "text", "packed",
    "source", "missing", ".", "/dev/null", "/proc/self/mem", "-", "--", "--model", "--help",
    "--json", "--threads", "--context", "--encoding", "two_bit", "fp16", "int3", "--cache",
    "x" * 999, "\n", "a\nb", "owner/name", "800MB", "tp=2", "../..",
)  # fmt: skip


@cache
def _folder() -> Path:
    folder = new_folder()
    checkpoints.write(folder / "source")
    convert(folder / "source", folder / "packed")
    (folder / "text").write_text("def f(x):\n    return x\n" * 20)
    return folder


def _seeds() -> Sequence[bytes]:
    return [json.dumps(each).encode() for each in _SEEDS]


def _mutate(data: bytes, random: Random) -> bytes:
    """Words put in, left out, exchanged and replaced; now and then their letters."""
    try:
        words: Any = json.loads(data)
    except ValueError:
        words = list(random.choice(_SEEDS))
    if not isinstance(words, list) or not words or random.random() < 0.1:
        return of_json(data, random)
    for _ in range(random.randint(1, 3)):
        place = random.randrange(len(words) + 1)
        kind = random.random()
        if kind < 0.35 or place == len(words):
            words.insert(place, random.choice(_WORDS))
        elif kind < 0.55:
            del words[place]
        elif kind < 0.9:
            words[place] = random.choice(_WORDS)
        else:
            words = words[:place] + list(random.choice(_SEEDS))[1:]
        words = words or ["info"]
    return json.dumps(words[:30]).encode()


def _arguments(data: bytes) -> bool:
    try:
        words = json.loads(data)
    except (ValueError, RecursionError):
        return False
    if not isinstance(words, list) or not all(isinstance(each, str) for each in words):
        return False
    words = [each.replace("\0", "0") for each in words]  # no process is given others
    if any("\ud800" <= letter < "\udc80" for each in words for letter in each):
        return False
    if set(words) & _LEFT_OUT or _is_long(words):
        return False
    os.chdir(_folder())
    out, err = io.StringIO(), io.StringIO()
    stdin = io.TextIOWrapper(io.BytesIO(b"a\nb\n"))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _from(stdin):
        try:
            code: Any = main(words)
        except SystemExit as end:
            code = end.code
    if code not in (None, 0, 1, 2):
        raise Finding(f"exit code {code}")
    if code == 2:
        lines = [line for line in err.getvalue().splitlines() if "error: " in line]
        if len(lines) != 1 or "Traceback" in err.getvalue():
            raise Finding(f"no line, or several: {err.getvalue()[-2000:]!r}")
    return code == 0


@contextlib.contextmanager
def _from(stdin: io.TextIOWrapper) -> Any:
    import sys

    before, sys.stdin = sys.stdin, stdin
    try:
        yield
    finally:
        sys.stdin = before


def _is_long(words: list[str]) -> bool:
    """Whether they ask for more than a few tokens, of a model that can go on for long."""
    if "generate" not in words:
        return False
    for at, word in enumerate(words[:-1]):
        if word == "--max-new-tokens" and words[at + 1].isdecimal():
            return int(words[at + 1]) > _MOST_TOKENS
    return True


TARGETS = {"arguments": Target("arguments", _seeds, _mutate, _arguments)}
