"""`python -m ternops quantize`, which gets a signal after the n-th call of a method.

python -m tests.programs.killed_quantize SOURCE TARGET METHOD COUNT SIGNAL OPTION...

METHOD is one of GrowingFile's, SIGNAL a name: SIGKILL.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from ternops import files
from ternops.__main__ import main


def signal_after(name: str, count: int, number: signal.Signals) -> None:
    """Let the n-th call of a method of every GrowingFile end with a signal to this process."""
    original, calls = getattr(files.GrowingFile, name), 0

    def method(*arguments: Any) -> None:
        nonlocal calls
        original(*arguments)
        calls += 1
        if calls == count:
            os.kill(os.getpid(), number)

    setattr(files.GrowingFile, name, method)


if __name__ == "__main__":
    source, target, method, count, name, *options = sys.argv[1:]
    signal_after(method, int(count), signal.Signals[name])
    sys.exit(main(["quantize", source, target, *options]))
