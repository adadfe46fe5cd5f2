"""Strings at which a text that comes piece by piece ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ternops.decoder.text import TextDecoder

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class StopStrings:
    """Lets through a text up to the first of some strings, which is left out.

    What may be the beginning of one is held back until it is known. Of several that end at once the
    one that began first counts. Raises TypeError for what is no string, ValueError for an empty
    one.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        if isinstance(stops, str):
            raise TypeError("stop: a string, expected a list of strings")
        for stop in stops:
            if not isinstance(stop, str):
                raise TypeError(f"stop: {stop!r}, expected a string")
            if not stop:
                raise ValueError("stop: an empty string, expected some text")
        self._stops = tuple(stops)
        self._held = ""

    def feed(self, text: str) -> tuple[str, bool]:
        """What is safe to show with this text behind the one before, and whether it has ended."""
        text = self._held + text
        self._held = ""
        found = [(text.find(stop) + len(stop), text.find(stop)) for stop in self._stops
                 if stop in text]  # fmt: skip
        if found:
            return text[: min(found)[1]], True
        held = max((overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held], False

    def end(self) -> str:
        """What was held back, of a text that ends without any of the strings."""
        held, self._held = self._held, ""
        return held


class StoppedText:
    """The text of tokens as they come, up to the first of some strings, which is left out.

    prompt: as of `TextDecoder`. Raises as `StopStrings`.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: list[int], stops: Sequence[str]) -> None:
        self._decoder, self._stops = TextDecoder(tokenizer, prompt), StopStrings(stops)

    def take(self, token: int | None, is_last: bool) -> tuple[str, bool]:
        """What is safe to show with one more token, None for none, and whether the text has ended
        at a string; with the last one all that was held back."""
        text = "" if token is None else self._decoder.push(token)
        text += self._decoder.end() if is_last else ""
        safe, stopped = self._stops.feed(text)
        return safe + (self._stops.end() if is_last else ""), stopped


def overlap(text: str, stop: str) -> int:
    """The most characters at the end of a text that a string begins with."""
    most = min(len(text), len(stop) - 1)
    return next((size for size in range(most, 0, -1) if text.endswith(stop[:size])), 0)
