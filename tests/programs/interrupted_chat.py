"""`python -m ternops chat`, which gets Ctrl-C amid its first answer.

python -m tests.programs.interrupted_chat MODEL
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

from ternops.__main__ import main
from ternops.commands import stream
from ternops.decoder import text

original, first = text.stream_text, True


def stream_text(tokenizer: Any, tokens: Any) -> Iterator[str]:
    """As the original, with a signal after the fifth piece of text, once."""
    global first
    for count, piece in enumerate(original(tokenizer, tokens)):
        yield piece
        if first and count == 4:
            first = False
            os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    stream.stream_text = stream_text  # type: ignore[attr-defined]
    sys.exit(main(["chat", "--max-new-tokens", "100", "--model", *sys.argv[1:]]))
