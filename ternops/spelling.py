"""What a word that is not known was meant as: errors say so, as a user cannot know all names."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any


def meant(word: Any, known: Iterable[str]) -> str:
    """ "; did you mean 'two_bit'?" of the known word that is most like another one, in any case of
    letters; "" if none is."""
    folded = {each.casefold(): each for each in known}
    found = get_close_matches(word.casefold(), folded, 1) if isinstance(word, str) else []
    return f"; did you mean {folded[found[0]]!r}?" if found else ""


def expected_one(name: str, value: Any, known: Iterable[str]) -> str:
    """The line of an error of an argument that is none of some words."""
    words = list(known)
    return f"{name}={value!r}: expected one of {', '.join(words)}{meant(value, words)}"
