"""Measuring in a process of its own, so that its memory, threads and crashes are its own.

`call` starts a module as `python -m MODULE REQUEST.json ANSWER.json`, passes its progress on and
gives its answer; `answer` is such a module's main function.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.core.command import Advance

_STEP = "step "  #: lines of a worker's output that begin with it are progress


#: Exit code after Ctrl-C, as shells have it.
INTERRUPTED = 130


class WorkerError(RuntimeError):
    """A worker failed; the message is its last word, in one line."""


def call(module: str, request: dict[str, Any], advance: Advance) -> dict[str, Any]:
    """What the module's process answers; it is ended when this is interrupted.

    Raises WorkerError.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        asked, answered, errors = (folder / each for each in ("asked", "answered", "errors"))
        asked.write_text(json.dumps(request), "utf-8")
        with (
            errors.open("wb") as sink,
            subprocess.Popen(
                [sys.executable, "-m", module, str(asked), str(answered)],
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
            words = errors.read_text("utf-8", "replace").strip().splitlines()
            raise WorkerError(words[-1] if words else f"exit code {process.returncode}")
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
