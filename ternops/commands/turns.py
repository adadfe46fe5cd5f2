"""What somebody who talks to a model types: turns, of one line or several, and commands."""

from __future__ import annotations

import codecs
import contextlib
import io
import re
import sys
from collections.abc import Iterator
from typing import NamedTuple

from ternops.commands import options

#: What begins and ends a turn of several lines.
_QUOTES = '"""'
_COMMAND = re.compile(r"/(?:(save|load)(?:\s+(.*?))?|(help))\s*")
_END = re.compile(r"/(exit|quit|bye)\s*")


class Turn(NamedTuple):
    """text: what is said, or the file of a command. command: "save", "load", "help", or "" for
    none."""

    text: str
    command: str = ""


def read_turns() -> Iterator[Turn]:
    """Those of stdin, to its end or /exit: a line that is not blank, or all lines between two of
    three double quotes each, in which nothing is a command."""
    if sys.stdin is None:
        raise ValueError("stdin: closed, expected a line for each turn")
    if isinstance(sys.stdin, io.TextIOWrapper):
        # UTF-8 holds ASCII, and bytes that are no text reach `checked`.
        encoding = codecs.lookup(sys.stdin.encoding).name
        encoding = "utf-8" if encoding == "ascii" else encoding
        sys.stdin.reconfigure(encoding=encoding, errors="surrogateescape")
    asks = sys.stdin.isatty()
    if asks:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 (input() then edits lines and remembers them)
    while (line := _line("> " if asks else "")) is not None:
        if line.startswith(_QUOTES):
            yield Turn(_quoted(line.removeprefix(_QUOTES), "... " if asks else ""))
        elif _END.fullmatch(line):
            return
        elif command := _COMMAND.fullmatch(line):
            yield Turn(command[2] or "", command[1] or command[3])
        elif line.strip():
            yield Turn(line)
    if asks:
        print()


def _quoted(line: str, asks: str) -> str:
    """The lines behind three quotes up to three more, or to the end of stdin."""
    lines = []
    while not line.endswith(_QUOTES):
        lines.append(line)
        following = _line(asks)
        if following is None:
            options.note(f"stdin: ends within {_QUOTES}")
            break
        line = following
    else:
        lines.append(line.removesuffix(_QUOTES))
    return "\n".join(lines).strip("\n")


def _line(prompt: str) -> str | None:
    """None at the end of stdin."""
    try:
        return options.unmarked(input(prompt)).rstrip("\r")  # of files from Windows
    except EOFError:
        return None
