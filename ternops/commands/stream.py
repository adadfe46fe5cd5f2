"""An answer of a model: tokens to stdout as they come, and how fast they came."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ternops.commands import options
from ternops.decoder.stops import StoppedText

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from ternops.decoder.model import Model


class Stream:
    """One answer. Made by `stream`.

    text: what came behind the prompt. tokens: those that it is of, and where it stops at a text,
    those of that text. finish_reason: "stop" at an end token or a text to stop at, "length" where
    there were as many tokens as may be, "interrupted" by Ctrl-C. fills_context: whether it has
    ended because nothing more fits.
    """

    def __init__(self, prompt: list[int]) -> None:
        self.text = ""
        self.tokens: list[int] = []
        self.finish_reason = "interrupted"
        self.fills_context = False
        self._prompt, self._read = prompt, 0
        self._began = time.perf_counter()
        self._seconds: list[float] = []

    def read(self, tokens: int) -> None:
        """Note how many tokens of the prompt were not in the cache."""
        self._read = tokens

    def take(
        self, tokenizer: Tokenizer, tokens: Iterable[int], prompt: list[int], stops: Sequence[str]
    ) -> Iterator[str]:
        """The text of tokens behind those of a prompt as soon as they make characters, up to the
        first of the texts to stop at."""
        text = StoppedText(tokenizer, prompt, stops)
        for token in itertools.chain(self._timed(tokens), [None]):
            safe, stopped = text.take(token, token is None)
            self.text += safe
            yield safe
            if stopped:
                self.finish_reason = "stop"
                return

    def finish(self, most: int, room: int) -> None:
        """Say why it has ended: after `most` tokens, after `room`, or at an end token."""
        if self.finish_reason == "interrupted":
            count = len(self.tokens)
            self.finish_reason = "length" if count >= min(most, room) else "stop"
            self.fills_context = room <= count < most

    def summary(self) -> str:
        """Tokens and tokens a second, of the prompt and of the answer.

        The time until the first token is the prompt's.
        """
        text, count = f"prompt {self._read} tokens", len(self.tokens)
        if count:
            text += f", {self._read / self._seconds[0]:.1f} tokens/s"
        text += f"; {count} token(s)"
        if count < 2:
            return f"{text}, too few for a rate"
        rate = (count - 1) / (self._seconds[-1] - self._seconds[0])
        return f"{text}, {rate:.1f} tokens/s"

    def to_json(self) -> str:
        """All of it in one line; seconds are from the call to each token."""
        return json.dumps({
            "text": self.text, "tokens": self.tokens, "finish_reason": self.finish_reason,
            "prompt_tokens": self._prompt, "prompt_tokens_read": self._read,
            "token_seconds": [round(each, 6) for each in self._seconds],
        })  # fmt: skip

    def _timed(self, tokens: Iterable[int]) -> Iterator[int]:
        for token in tokens:
            self._seconds.append(time.perf_counter() - self._began)
            self.tokens.append(token)
            yield token


def stream(
    model: Model,
    tokenizer: Tokenizer,
    prompt: list[int],
    echo: str = "",
    *,
    stops: Sequence[str] = (),
    as_json: bool = False,
    max_new_tokens: int,
    **settings: Any,
) -> Stream:
    """Print what the model says behind a prompt, until it ends or Ctrl-C stops it.

    echo: printed first, the prompt's text that the answer continues; without it the answer is a
    text of its own, which begins with no blank where the decoder strips that of a text.
    stops: texts to stop at. as_json: print `Stream.to_json` at the end, and nothing else.
    settings: of `Model.generate`.
    """
    answer = Stream(prompt)
    try:
        with options.progress("reading the prompt") as show:

            def progress(done: int, total: int) -> None:
                answer.read(done)
                show(done, total)

            tokens = model.generate(prompt, max_new_tokens, progress=progress, **settings)
            first = list(itertools.islice(tokens, 1))
        both = itertools.chain(first, tokens)
        if not as_json:
            print(echo, end="", flush=True)
        for text in answer.take(tokenizer, both, prompt if echo else [], stops):
            if text and not as_json:
                print(text, end="", flush=True)
        answer.finish(max_new_tokens, model.config.context - len(prompt) + 1)
    except KeyboardInterrupt:
        pass  # the figures so far are what the user wants to see
    print(answer.to_json() if as_json else "", flush=True)
    return answer
