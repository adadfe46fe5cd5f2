"""TOML files of figures: every table is taken key by key, and what nobody asked for is an error.

A figure is a table of a value, its unit and where it comes from; a curve has a value for each of
some numbers of threads.
"""

from __future__ import annotations

import reprlib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from ternops.cost.hardware import Curve

#: Units that profiles use -> what one of them is here: bytes, seconds, joules, watts, counts.
UNITS = {
    "GB": 1e9, "MiB": 2.0**20, "GB/s": 1e9, "GHz": 1e9, "us": 1e-6, "W": 1.0, "pJ/byte": 1e-12,
    "MAC/cycle": 1.0, "element/cycle": 1.0, "cycle": 1.0, "of computing": 1.0, "of bandwidth": 1.0,
    "times": 1.0,
}  # fmt: skip
#: Cores that a machine may have.
MAX_CORES = 4096
_MAX_BYTES = 2**18  # of a file
_MAX_LETTERS = 200  # of a name
# A figure's value in its unit: what is outside is a mistake, and products of it would overflow.
_LEAST, _MOST = 1e-9, 1e9


class ProfileError(ValueError):
    """A profile that cannot be used; the message names the file and the key."""


def is_file(path: Path) -> bool:
    """Whether there is a file with an end; not what has too long a name, or is out of reach."""
    try:
        return path.is_file()
    except OSError:
        return False


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a file; ProfileError if it is not TOML, or far larger than a profile."""
    if not is_file(path):
        raise ProfileError(f"{path}: expected a TOML file")
    try:
        with open(path, "rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ProfileError(f"{path}: {error.strerror}, expected a TOML file") from error
    if len(content) > _MAX_BYTES:
        raise ProfileError(f"{path}: larger than a profile, expected at most {_MAX_BYTES} bytes")
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ProfileError(f"{path}: no TOML file: {error}") from error


class Reader:
    """What the tables of one file have in common: its name, and the sources of its figures."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.sources: dict[str, str] = {}
        self.tables: list[Table] = []

    def of(self, table: Mapping[str, Any], path: str) -> Table:
        """To take it key by key."""
        self.tables.append(Table(self, table, path))
        return self.tables[-1]

    def refuse_others(self) -> None:
        """A key that nobody asked for is a misspelt one."""
        for table in self.tables:
            table.refuse_others()


class Table:
    """One table of a profile; every method raises ProfileError for what is not there or wrong."""

    def __init__(self, reader: Reader, table: Mapping[str, Any], path: str) -> None:
        self._reader, self._table, self._path = reader, table, path
        self._known: set[str] = set()

    def _key(self, key: str) -> str:
        shown = key if _is_name(key) else reprlib.repr(key)
        return f"{self._path}.{shown}" if self._path else shown

    def wrong(self, key: str, what: str) -> ProfileError:
        return ProfileError(f"{self._reader.file}: {self._key(key)}: {what}")

    def has(self, key: str) -> bool:
        self._known.add(key)
        return key in self._table

    def refuse_others(self) -> None:
        for key in self._table:
            if key not in self._known:
                raise self.wrong(key, f"unknown, expected {' or '.join(sorted(self._known))}")

    def _get(self, key: str, kind: type, expected: str) -> Any:
        self._known.add(key)
        value = self._table.get(key)
        if value is None:
            raise self.wrong(key, f"missing, expected {expected}")
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.wrong(key, f"is {reprlib.repr(value)}, expected {expected}")
        return value

    def text(self, key: str) -> str:
        expected = f"a text of 1 to {_MAX_LETTERS} printable characters"
        value = str(self._get(key, str, expected))
        if not _is_name(value):
            raise self.wrong(key, f"is {reprlib.repr(value)}, expected {expected}")
        return value

    def choice(self, key: str, expected: tuple[str, ...]) -> str:
        value = self.text(key)
        if value not in expected:
            raise self.wrong(key, f"is {reprlib.repr(value)}, expected {' or '.join(expected)}")
        return value

    def flag(self, key: str) -> bool:
        return bool(self._get(key, bool, "true or false"))

    def count(self, key: str) -> int:
        value = int(self._get(key, int, "a number of cores"))
        if not 0 < value <= MAX_CORES:
            raise self.wrong(key, f"is {reprlib.repr(value)}, expected 1 to {MAX_CORES}")
        return value

    def names(self, key: str) -> tuple[str, ...]:
        value = self._get(key, list, "a list of texts")
        if not value or not all(isinstance(each, str) and _is_name(each) for each in value):
            raise self.wrong(key, f"is {reprlib.repr(value)}, expected a list of texts")
        return tuple(value)

    def part(self, key: str) -> Table:
        return self._reader.of(self._get(key, dict, "a table"), self._key(key))

    def tables(self, key: str) -> list[Table]:
        value = self._get(key, list, f"tables [[{key}]]")
        if not value or not all(isinstance(each, dict) for each in value):
            raise self.wrong(key, f"expected tables [[{key}]]")
        path = self._key(key)
        return [self._reader.of(each, f"{path}[{n}]") for n, each in enumerate(value)]

    def figure(self, key: str, unit: str) -> float:
        return self._number(key, self._figure(key, unit, set())["value"], unit)

    def curve(self, key: str, unit: str) -> Curve:
        """A figure, or one for each of "threads"."""
        if not isinstance(self._figure(key, unit, {"threads"})["value"], list):
            if "threads" in self._table[key]:
                raise self.wrong(key, "has threads, expected a list of as many values")
            return Curve((1,), (self.figure(key, unit),))
        return Curve(*self.points(key, unit, "threads", MAX_CORES))

    def points(
        self, key: str, unit: str, by: str, most: int
    ) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """A figure for each of some counts named `by`, rising, up to `most`: counts, values."""
        table = self._figure(key, unit, {by})
        value, counts = table["value"], cast(Any, table.get(by))
        shown = f"{by} is {reprlib.repr(counts)}"
        fits = isinstance(value, list) and isinstance(counts, list)
        if not fits or not len(counts) == len(value) > 0 or not all(
            type(each) is int and 0 < each <= most for each in counts
        ):  # fmt: skip
            raise self.wrong(key, f"{shown}, expected a count for each value")
        if sorted(set(counts)) != counts:
            raise self.wrong(key, f"{shown}, expected rising counts")
        return tuple(counts), tuple(self._number(key, each, unit) for each in value)

    def _figure(self, key: str, unit: str, more: set[str]) -> Mapping[str, Any]:
        self._known.add(key)
        table: Mapping[str, Any] = self._table.get(key)  # type: ignore[assignment]
        _check_figure(table, unit, self._key(key), self._reader.file, more)
        self._reader.sources[self._key(key)] = table["source"]
        return table

    def _number(self, key: str, value: Any, unit: str) -> float:
        return _check_number(value, unit, self._key(key), self._reader.file) * UNITS[unit]


def _is_name(text: str) -> bool:
    return text.isprintable() and 0 < len(text) <= _MAX_LETTERS


def check_figure(figure: Any, unit: str, key: str, file: str) -> tuple[float, str]:
    """The value and the source of a figure in this unit; ProfileError for anything else."""
    _check_figure(figure, unit, key, file, set())
    return _check_number(figure["value"], unit, key, file), str(figure["source"])


def _check_figure(figure: Any, unit: str, key: str, file: str, more: set[str]) -> None:
    """more: what it may have beside value, unit and source."""
    expected = f"expected {{ value, unit = {unit!r}, source }}"
    where = f"{file}: {key}:"
    if figure is None:
        raise ProfileError(f"{where} missing, {expected}")
    if not isinstance(figure, Mapping):
        raise ProfileError(f"{where} is {reprlib.repr(figure)}, {expected}")
    for name in ("value", "unit", "source"):
        if name not in figure:
            raise ProfileError(f"{where} has no {name}, {expected}")
    if figure["unit"] != unit:
        raise ProfileError(f"{where} unit is {reprlib.repr(figure['unit'])}, expected {unit!r}")
    source = figure["source"]
    if not isinstance(source, str) or not source.strip():
        raise ProfileError(
            f"{where} source is {reprlib.repr(source)}, expected where the figure comes from"
        )
    if others := set(figure) - {"value", "unit", "source"} - more:
        raise ProfileError(f"{where} {reprlib.repr(min(others))} is unknown, {expected}")


def _check_number(value: Any, unit: str, key: str, file: str) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    most = 1 if unit == "of computing" else _MOST
    if not is_number or not _LEAST <= value <= most:
        expected = f"expected a number above 0, {_LEAST:g} to {most:g}"
        raise ProfileError(f"{file}: {key}: value is {reprlib.repr(value)}, {expected}")
    return float(value)
