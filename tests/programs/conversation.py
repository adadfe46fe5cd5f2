"""Answers what `bench.core.process.Conversation` asks: [how, what].

python -m tests.programs.conversation
"""

from __future__ import annotations

import os
import signal
from typing import Any

from bench.core.process import converse


def answer(request: tuple[str, Any]) -> Any:
    """`what`, in the way that was asked for."""
    how, what = request
    if how == "print":
        print(what, flush=True)
        os.write(1, b"a library's line\n")
    if how == "raise":
        raise ValueError(what)
    if how == "die":
        os.kill(os.getpid(), what)
    if how == "leave":
        raise SystemExit(what)
    return what


if __name__ == "__main__":
    # Where it is ignored, dying of it is to be possible all the same.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    converse(answer)
