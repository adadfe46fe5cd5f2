"""What a word that is not known was meant as: errors say so, as a user cannot know all names."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

#: Of two words, as difflib has it: 1 is the same.
_ALIKE = 0.6


def nearest(word: Any, known: Iterable[str], alike: float = _ALIKE) -> str | None:
    """The known word that is most like another one, in any case of letters; None if none is."""
    folded = {each.casefold(): each for each in known}
    found = get_close_matches(word.casefold(), folded, 1, alike) if isinstance(word, str) else []
    return folded[found[0]] if found else None


def meant(word: Any, known: Iterable[str]) -> str:
    """ "; did you mean 'two_bit'?" of the nearest known word; "" if none is near."""
    found = nearest(word, known)
    return "" if found is None else f"; did you mean {found!r}?"


def one_of(value: Any, known: Iterable[str]) -> str:
    """What was expected in the place of a value that is none of some words."""
    words = list(known)
    return f"expected one of {', '.join(words)}{meant(value, words)}"


def expected_one(name: str, value: Any, known: Iterable[str]) -> str:
    """The line of an error of an argument that is none of some words."""
    return f"{name}={value!r}: {one_of(value, known)}"
