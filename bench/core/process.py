"""Measuring in a process of its own, so that its memory, threads and crashes are its own.

`call` starts a module as `python -m MODULE REQUEST.json ANSWER.json`, passes its progress on and
gives its answer; `answer` is such a module's main function. A `Conversation` lasts: it is asked
one thing after another, a line of JSON each; `converse` is its module's main function.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import IO, Any

from bench.core.command import Advance
from bench.core.errors import first_line

_REASON = "ternops: error: "  #: what `ternops.ranks.launch.stop` writes
_STEP = "step "  #: lines of a worker's output that begin with it are progress


class WorkerError(RuntimeError):
    """A worker failed; the message is its last word, in one line."""


#: Exit code after Ctrl-C, as shells have it.
INTERRUPTED = 130


def call(
    module: str, request: dict[str, Any], advance: Advance, launcher: Sequence[str] = ()
) -> dict[str, Any]:
    """What the module's process answers; it is ended when this is interrupted.

    launcher: what starts it, as ["mpiexec", "-n", "2"].
    Raises WorkerError.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        asked, answered, errors = (folder / each for each in ("asked", "answered", "errors"))
        asked.write_text(json.dumps(request), "utf-8")
        with (
            errors.open("wb") as sink,
            subprocess.Popen(
                [*launcher, sys.executable, "-m", module, str(asked), str(answered)],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=sink, text=True,
                encoding="utf-8", errors="replace",
            ) as process,
        ):  # fmt: skip
            try:
                for line in process.stdout or ():
                    if line.startswith(_STEP):
                        advance(line.removeprefix(_STEP).strip())
            except BaseException:
                process.kill()
                raise
        if process.returncode or not answered.exists():
            raise WorkerError(_end(process.returncode, errors.read_text("utf-8", "replace")))
        found: dict[str, Any] = json.loads(answered.read_text("utf-8"))
        return found


def answer(measure: Callable[[dict[str, Any], Advance], dict[str, Any]]) -> int:
    """The main function of a module that `call` starts."""
    asked, answered = map(Path, sys.argv[1:])
    found = measure(
        json.loads(asked.read_text("utf-8")), lambda what: print(_STEP + what, flush=True)
    )
    answered.write_text(json.dumps(found), "utf-8")
    return 0


class Conversation:
    """A process of `python -m MODULE ARGUMENTS...` that answers as `converse` does.

    Whatever it does wrong is a WorkerError, in a line: an exception, or its death.
    """

    def __init__(self, module: str, *arguments: str) -> None:
        # A file and not a pipe, which could be full. Open for as long as the process lives.
        self._errors = TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True,
            encoding="utf-8",
        )  # fmt: skip

    def ask(self, request: object) -> Any:
        """What the process answers."""
        with suppress(BrokenPipeError):  # it is dead: there is no answer
            self._stdin.write(f"{json.dumps(request)}\n")
            self._stdin.flush()
        assert self._process.stdout is not None
        if not (line := self._process.stdout.readline()):
            code = self._process.wait()
            self._errors.seek(0)
            raise WorkerError(_end(code, self._errors.read().decode(errors="replace")))
        found = json.loads(line)
        if "error" in found:
            raise WorkerError(found["error"])
        return found["answer"]

    def close(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.wait()
        for each in (self._stdin, self._process.stdout, self._errors):
            with suppress(BrokenPipeError):
                each.close()  # type: ignore[union-attr]

    @property
    def is_dead(self) -> bool:
        """Whether it has ended, and answers nothing any more."""
        return self._process.poll() is not None

    @property
    def _stdin(self) -> IO[str]:
        assert self._process.stdin is not None
        return self._process.stdin


def converse(answer: Callable[[Any], object]) -> None:
    """Answer what a `Conversation` asks until it ends; an exception is an answer as well."""
    # What a library prints must not be taken for one.
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8") as answers:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        for line in sys.stdin:
            try:
                found = {"answer": answer(json.loads(line))}
            except Exception as error:
                found = {"error": first_line(error)}
            print(json.dumps(found), file=answers, flush=True)


def _end(code: int, errors: str) -> str:
    """Why a process has ended: the line that says so, else the last one, or what ended it."""
    if code < 0:
        return f"killed by signal {-code} ({signal.Signals(-code).name})"
    words = errors.strip().splitlines()
    if said := [each for each in words if each.startswith(_REASON)]:  # mpiexec says more behind it
        return said[0].removeprefix(_REASON)
    return words[-1] if words else f"exit code {code}"
