"""What was found, as a TOML file for people and for `ternops.kernels.tuned`.

Written here: a bare install has no package that writes TOML, and these tables are plain.
"""

from __future__ import annotations

import datetime
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ternops.cost.rounds import Spread
from ternops.files import replaced
from ternops.kernels.tiles import Tile
from ternops.kernels.tuned import identity
from ternops.threads import default_threads
from ternops.tuning.plan import Task

_HEAD = """\
# The fastest tiles of this CPU, measured by `python -m ternops tune`. They change no result.
# gain: how many times as fast as the default. shares: of the speed of the fastest loop that only
# reads, in the same rounds. Three figures are a median and the quartiles around it.
"""


class Figures(NamedTuple):
    """A task's best tile, how much faster than the default it is, and whether that is enough."""

    task: Task
    tile: Tile
    gain: Spread
    wins: bool
    shares: Mapping[str, Spread]

    @property
    def used(self) -> Tile:
        """From now on."""
        return self.tile if self.wins else self.task.default


def write(
    path: Path, found: Iterable[Figures], auto: Mapping[str, tuple[str, Mapping[str, Spread]]],
    seconds: float, left_out: Iterable[Task],
) -> None:  # fmt: skip
    """Write the file, whole or not at all; OSError if that is not possible."""
    table: dict[str, Any] = {
        "version": sys.modules["ternops"].__version__,
        "date": datetime.date.today().isoformat(), **identity(),
        "threads": default_threads(), "seconds": round(seconds, 1),
        "left_out": [f"{task.encoding}.{task.subject.kind}" for task in left_out],
    }  # fmt: skip
    if len(auto) == 2:
        table["auto"] = {what: name for what, (name, _) in auto.items()}
        for what, (_, spreads) in auto.items():
            gains = {name: _figures(spread) for name, spread in spreads.items()}
            table["auto"][f"{what}_gain"] = gains
    for each in found:
        entry: dict[str, Any] = {
            "tile": each.used._asdict(), "default": str(each.task.default),
            "best": str(each.tile), "gain": _figures(each.gain),
        }  # fmt: skip
        if each.shares:
            entry["shares"] = {name: _figures(share) for name, share in each.shares.items()}
        table.setdefault(each.task.encoding, {})[each.task.subject.kind] = entry
    text = _HEAD + "\n".join(_lines(table)) + "\n"
    with replaced(path) as temporary:
        temporary.write_text(text, "utf-8")


def _figures(spread: Spread) -> list[float]:
    return [round(value, 3) for value in spread]


def _lines(table: Mapping[str, Any], name: str = "") -> Iterator[str]:
    """A table and those in it; `tile` stays in its line."""
    inner = {
        key: value for key, value in table.items() if isinstance(value, dict) and key != "tile"
    }  # fmt: skip
    if name and len(inner) < len(table):
        yield f"\n[{name}]"
    for key, value in table.items():
        if key not in inner:
            yield f"{_key(key)} = {_value(value)}"
    for key, value in inner.items():
        yield from _lines(value, f"{name}.{_key(key)}" if name else _key(key))


def _key(key: str) -> str:
    return key if key.replace("_", "").isalnum() and key.isascii() else json.dumps(key)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        pairs = ", ".join(f"{_key(key)} = {_value(each)}" for key, each in value.items())
        return f"{{ {pairs} }}"
    return json.dumps(value)  # TOML's way for texts, numbers, booleans and lists of them
