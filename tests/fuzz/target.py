"""What a target is, and what counts as a finding."""

from __future__ import annotations

import atexit
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

#: Characters of an error's line: more, and it repeats what is in the file.
MOST_CHARACTERS = 1000


#: Bytes of memory that an input may have read or written, beyond twice its own length: a module may
#: be imported meanwhile, and a model decodes in some of them.
TOUCHED = 16 << 20


class Finding(AssertionError):
    """What must not be: the input is kept, and somebody is told."""


class Target(NamedTuple):
    """seeds: good inputs. mutate: makes another one of one, by random numbers. check: whether one
    was accepted (else it was refused in good order); any exception of it is a finding."""

    name: str
    seeds: Callable[[], Sequence[bytes]]
    mutate: Callable[[bytes, random.Random], bytes]
    check: Callable[[bytes], bool]
    #: Modules whose branches guide what is tried next, where atheris is installed.
    guides: tuple[str, ...] = ()
    #: See TOUCHED.
    touches: int = TOUCHED


def new_folder() -> Path:
    """For files of this process: it goes when that ends."""
    folder = Path(tempfile.mkdtemp(prefix="ternops-fuzz-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


class Refused(Exception):
    """The input is none, as its reader said as it should."""


@contextmanager
def in_one_line(errors: Any = (ValueError, FileNotFoundError)) -> Iterator[None]:
    """Turns errors of a reader into Refused if they are one printable line of some length."""
    try:
        yield
    except errors as error:
        text = str(error)
        if "\n" in text or "\r" in text or not text:
            raise Finding(f"an error of several lines, or none: {text!r}") from error
        if len(text) > MOST_CHARACTERS:
            raise Finding(f"an error of {len(text)} characters: {text[:200]!r}") from error
        if isinstance(error, KeyError | UnicodeError):
            raise Finding(f"an error that tells nothing: {error!r}") from error
        raise Refused(text) from None
