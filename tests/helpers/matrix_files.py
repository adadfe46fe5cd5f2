"""Files of matrices that must be refused, or read as what was written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ternops


def refused(path: Path, words: str = ".") -> None:
    """Loading raises in one line that names the file."""
    line = rf"^path: '.*{path.name}' is no intact ternops file: .*{words}.*\Z"
    with pytest.raises(ValueError, match=line):
        ternops.load(path)


def damage_is_noticed(folder: Path, matrix: Any, content: Callable[[Any], Any]) -> None:
    """A bit of each byte flipped, and every seventh length: refused, or the same content."""
    matrix.save(folder / "good")
    data = (folder / "good").read_bytes()
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << place % 8
        (folder / "bad").write_bytes(damaged)
        try:
            loaded = ternops.load(folder / "bad")
        except ValueError:
            refused(folder / "bad")
        else:
            assert content(loaded) == content(matrix)
    for length in range(0, len(data), 7):
        (folder / "cut").write_bytes(data[:length])
        refused(folder / "cut")
