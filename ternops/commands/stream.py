"""An answer of a model: tokens to stdout as they come, and how fast they came."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ternops.commands import options
from ternops.decoder.text import Continuation, stream_text

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from ternops.decoder.model import Model


class Stream:
    """One answer. Made by `stream`.

    text: what was printed behind the prompt.
    """

    def __init__(self) -> None:
        self.text = ""
        self._prompt = 0
        self._began = time.perf_counter()
        self._first = self._last = 0.0
        self._count = 0

    def read(self, tokens: int) -> None:
        """Note how many tokens of the prompt were not in the cache."""
        self._prompt = tokens

    def print(self, tokenizer: Tokenizer, tokens: Iterable[int], prompt: list[int]) -> None:
        """Print the text of tokens behind those of a prompt as soon as they make characters."""
        for text in stream_text(tokenizer, Continuation(prompt, self._timed(tokens))):
            self.text += text
            print(text, end="", flush=True)

    def summary(self) -> str:
        """Tokens and tokens a second, of the prompt and of the answer.

        The time until the first token is the prompt's.
        """
        text = f"prompt {self._prompt} tokens"
        if self._count:
            text += f", {self._prompt / (self._first - self._began):.1f} tokens/s"
        text += f"; {self._count} token(s)"
        if self._count < 2:
            return f"{text}, too few for a rate"
        return f"{text}, {(self._count - 1) / (self._last - self._first):.1f} tokens/s"

    def _timed(self, tokens: Iterable[int]) -> Iterator[int]:
        for token in tokens:
            self._last = time.perf_counter()
            self._first = self._first or self._last
            self._count += 1
            yield token


def stream(
    model: Model,
    tokenizer: Tokenizer,
    prompt: list[int],
    echo: str = "",
    **settings: Any,
) -> Stream:
    """Print what the model says behind a prompt, until it ends or Ctrl-C stops it.

    echo: printed first, the prompt's text that the answer continues; without it the answer is a
    text of its own, which begins with no blank where the decoder strips that of a text.
    settings: of `Model.generate`.
    """
    answer = Stream()
    try:
        with options.progress("reading the prompt") as show:

            def progress(done: int, total: int) -> None:
                answer.read(done)
                show(done, total)

            tokens = model.generate(prompt, progress=progress, **settings)
            first = list(itertools.islice(tokens, 1))
        print(echo, end="", flush=True)
        both = itertools.chain(first, tokens)
        answer.print(tokenizer, both, prompt if echo else [])
    except KeyboardInterrupt:
        pass  # the figures so far are what the user wants to see
    print(flush=True)
    return answer
