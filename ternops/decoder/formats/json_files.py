"""JSON files that somebody else wrote."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from ternops.decoder.formats.placeholders import check_fetched
from ternops.shown import in_line

#: One of the two numbers that JSON spells a character beyond 65535 with.
_HALF = re.compile(r"\\u[dD][89a-fA-F]")


def read_object(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises FileNotFoundError without the file, ValueError for anything that is no JSON object.
    """
    if not path.is_file():
        raise FileNotFoundError(f"model: {str(path.parent)!r} has no {path.name}")
    check_fetched(path)
    try:
        text = path.read_text("utf-8")
        value = json.loads(text)
        if _HALF.search(text):  # half a character, which no other program can be given
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        reason = in_line(error) if path.stat().st_size else "it is empty"
        raise ValueError(f"model: {str(path)!r} is not JSON: {reason}") from None
    if not isinstance(value, dict):
        raise ValueError(f"model: {str(path)!r} holds no object, expected one of settings")
    return value


def read_optional(path: Path) -> dict[str, Any]:
    """The same, {} without the file."""
    return read_object(path) if path.is_file() else {}
