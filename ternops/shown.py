"""What others wrote, in one short line of an error."""

from __future__ import annotations

import reprlib
from typing import Any

#: Characters of a text, entries of a list, and characters of what another program says.
_TEXT, _ENTRIES, _LINE = 120, 12, 400

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = _TEXT
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = _ENTRIES
_SHORT.maxlevel = 3


def shown(value: Any) -> str:
    """As `repr`, its middle left out where it is long: a file may hold anything of any length."""
    try:
        text = _SHORT.repr(value)
    except ValueError:  # Python writes no integer of thousands of digits
        text = f"an integer of {value.bit_length()} bits"
    text = " ".join(map(str.strip, text.splitlines()))  # those of an array
    return text if len(text) <= _LINE else f"{text[:_LINE]}..."


def in_line(text: object) -> str:
    """What another program says, or a text that quotes a file, without line breaks and the like."""
    words = " ".join(str(text).split())
    words = "".join(each if each.isprintable() else repr(each)[1:-1] for each in words)
    return words if len(words) <= _LINE else f"{words[:_LINE]}..."
