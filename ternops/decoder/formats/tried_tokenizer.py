"""A tokenizer that has read a text, before anybody relies on it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from ternops.shown import in_line

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def tried(load: Callable[[], Tokenizer], source: str) -> Tokenizer:
    """What `load` gives; `source` says in errors where it is from.

    At some damaged files the tokenizers package panics, when they are read or with the first text:
    an exception that no ``except Exception`` sees. Here it is a ValueError.
    """
    try:
        tokenizer = load()
        with suppress(Exception):  # an ordinary error is the text's, which a vocabulary may lack
            tokenizer.decode(tokenizer.encode("a").ids)
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise ValueError(f"{source} is no tokenizer: {in_line(error)}") from None
    return tokenizer
