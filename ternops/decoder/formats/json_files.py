"""JSON files that somebody else wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ternops.decoder.formats.placeholders import check_fetched


def read_object(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises FileNotFoundError without the file, ValueError for anything that is no JSON object.
    """
    if not path.is_file():
        raise FileNotFoundError(f"model: {str(path.parent)!r} has no {path.name}")
    check_fetched(path)
    try:
        value = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        reason = error if path.stat().st_size else "it is empty"
        raise ValueError(f"model: {str(path)!r} is not JSON: {reason}") from None
    if not isinstance(value, dict):
        raise ValueError(f"model: {str(path)!r} holds no object, expected one of settings")
    return value


def read_optional(path: Path) -> dict[str, Any]:
    """The same, {} without the file."""
    return read_object(path) if path.is_file() else {}
