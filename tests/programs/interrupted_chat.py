"""`python -m ternops chat`, which gets Ctrl-C amid its first answer.

python -m tests.programs.interrupted_chat MODEL
"""

from __future__ import annotations

import itertools
import os
import signal
import sys

from ternops.__main__ import main
from ternops.decoder.stops import StoppedText

original, count = StoppedText.take, itertools.count(1)


def take(self: StoppedText, token: int | None, is_last: bool) -> tuple[str, bool]:
    """As the original, with a signal before the sixth piece of text that there is."""
    if next(count) == 6:
        os.kill(os.getpid(), signal.SIGINT)
    return original(self, token, is_last)


if __name__ == "__main__":
    StoppedText.take = take  # type: ignore[method-assign]
    sys.exit(main(["chat", "--max-new-tokens", "100", "--model", *sys.argv[1:]]))
