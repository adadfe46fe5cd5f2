"""The text of tokens, as those who print them as they come make it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ternops.decoder.text import TextDecoder


def pieces_of(tokenizer: Any, tokens: Iterable[int], prompt: Sequence[int] = ()) -> list[str]:
    """What each token adds behind a prompt's, and the end; empty ones left out."""
    decoder = TextDecoder(tokenizer, list(prompt))
    found = [decoder.push(token) for token in tokens]
    return [each for each in (*found, decoder.end()) if each]


def text_of(tokenizer: Any, tokens: Iterable[int], prompt: Sequence[int] = ()) -> str:
    """The same in one."""
    return "".join(pieces_of(tokenizer, tokens, prompt))
