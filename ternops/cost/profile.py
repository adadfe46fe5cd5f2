"""A machine's profile: a TOML file in which every figure has a unit and a source.

A figure is a table of a value, its unit and where it comes from; a curve has a value for each of
some numbers of threads. What nobody measured or published is left out of the file; what is there
is checked, and a key that is not known is an error.
"""

from __future__ import annotations

import math
import reprlib
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from ternops.cost.energy import ARITHMETIC, CORES, IDLE
from ternops.cost.hardware import Cores, Curve, Hardware, Kernel, Level
from ternops.cost.workload import ATTENTION, ELEMENTWISE, KINDS
from ternops.files import replaced

#: Units that profiles use -> what one of them is here: bytes, seconds, joules, watts, counts.
UNITS = {
    "GB": 1e9, "MiB": 2.0**20, "GB/s": 1e9, "GHz": 1e9, "us": 1e-6, "W": 1.0, "pJ/byte": 1e-12,
    "MAC/cycle": 1.0, "element/cycle": 1.0, "of computing": 1.0,
}  # fmt: skip
ARCHITECTURES = ("x86", "arm")
NODES = ("45 nm", "7 nm")
#: The figures of a kernel: one token from a cache, many tokens, the activations that one token is
#: prepared from, and the part of computing that is not hidden behind reading from DRAM.
KERNEL_UNITS = {
    "gemv": "MAC/cycle", "gemm": "MAC/cycle", "prepare": "element/cycle",
    "exposed": "of computing",
}  # fmt: skip


_KERNELS = (*KINDS, ATTENTION, ELEMENTWISE)
_MOST_BYTES = 2**18  # of a file
_MOST_CORES, _MOST_LETTERS = 4096, 200
# A figure's value in its unit: what is outside is a mistake, and products of it would overflow.
_LEAST, _MOST = 1e-9, 1e9


class ProfileError(ValueError):
    """A profile that cannot be used; the message names the file and the key."""


def shipped() -> dict[str, Path]:
    """Name -> file of the profiles inside the package."""
    folder = resources.files("ternops.cost") / "profiles"
    paths = (Path(str(each)) for each in folder.iterdir())
    return {path.stem: path for path in sorted(paths) if path.suffix == ".toml"}


def load(name: str | Path) -> Hardware:
    """The profile of a shipped machine, or of a TOML file.

    Raises ProfileError with one line for a name that is neither, and for a file that is no profile;
    TypeError for what is no name.
    """
    if not isinstance(name, str | Path):
        raise TypeError(f"name={reprlib.repr(name)}: expected a machine or a path")
    profiles = shipped()
    path = profiles.get(str(name)) or Path(name)
    if not _is_file(path):
        expected = ", ".join(profiles)
        raise ProfileError(f"hardware {str(name)!r}: expected a TOML file or one of {expected}")
    return parse(read_toml(path), str(path))


def _is_file(path: Path) -> bool:
    """Whether it is one with an end; not what has too long a name, or is out of reach."""
    try:
        return path.is_file()
    except OSError:
        return False


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a file; ProfileError if it is none, or far larger than a profile."""
    if not _is_file(path):
        raise ProfileError(f"{path}: expected a TOML file")
    try:
        with open(path, "rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ProfileError(f"{path}: {error.strerror}, expected a TOML file") from error
    if len(content) > _MOST_BYTES:
        raise ProfileError(f"{path}: larger than a profile, expected at most {_MOST_BYTES} bytes")
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ProfileError(f"{path}: no TOML file: {error}") from error


def save(table: Mapping[str, Any], path: Path) -> None:
    """Write a profile's tables as a TOML file, whole or not at all; ProfileError for bad ones."""
    import tomli_w

    parse(table, str(path))
    with replaced(path) as temporary:
        temporary.write_text(tomli_w.dumps(table), "utf-8")


def parse(table: Mapping[str, Any], file: str) -> Hardware:
    """The machine that a profile's tables describe; ProfileError names the file and the key."""
    if not isinstance(table, Mapping):
        raise ProfileError(f"{file}: is {reprlib.repr(table)}, expected the tables of a profile")
    reader = _Reader(file)
    take = reader.of(table, "")
    name = take.text("name")
    cores = tuple(
        Cores(each.text("kind"), each.count("count"), each.figure("clock", "GHz"))
        for each in take.tables("cores")
    )
    together = sum(each.count for each in cores)
    if together > _MOST_CORES:
        raise take.wrong("cores", f"{together} together, expected at most {_MOST_CORES}")
    levels = _levels(take.tables("levels"))
    node = take.part("operations").choice("node", NODES) if take.has("operations") else "7 nm"
    barrier = take.part("barrier").curve("time", "us") if take.has("barrier") else None
    power = take.part("power") if take.has("power") else None
    machine = Hardware(
        name, take.choice("arch", ARCHITECTURES), take.names("tiers"),
        take.figure("memory", "GB"), cores, levels,
        barrier or Curve((1,), (0.0,)),
        power.figure("idle", "W") if power else math.nan,
        power.figure("core", "W") if power else math.nan,
        _kernels(take.part("kernels")) if take.has("kernels") else {},
        node, file, reader.sources,
    )  # fmt: skip
    reader.refuse_others()
    return machine


def _levels(tables: list[_Table]) -> tuple[Level, ...]:
    """With names that tell them from each other, and from the other terms of an energy."""
    taken = [ARITHMETIC, CORES, IDLE]
    levels = []
    for take in tables:
        levels.append(_level(take, is_last=take is tables[-1]))
        name = levels[-1].name
        if name in taken:
            raise take.wrong("name", f"is {name!r}, expected one that is not taken")
        taken.append(name)
    return tuple(levels)


def _level(take: _Table, is_last: bool) -> Level:
    for key in ("capacity", "shared"):
        if is_last and take.has(key):
            raise take.wrong(key, "of DRAM, which is the last level, expected none")
    capacity = math.inf if is_last else take.figure("capacity", "MiB")
    energy = take.figure("energy", "pJ/byte") if take.has("energy") else math.nan
    shared = True if is_last else take.flag("shared")
    return Level(take.text("name"), take.curve("bandwidth", "GB/s"), capacity, shared, energy)


def _kernels(take: _Table) -> dict[str, Kernel]:
    kernels = {}
    for name in filter(take.has, _KERNELS):
        part = take.part(name)
        figures = {
            key: part.curve(key, unit) for key, unit in KERNEL_UNITS.items() if part.has(key)
        }
        kernels[name] = Kernel(**figures)
    return kernels


class _Reader:
    """Takes figures out of a profile and remembers their sources, and what was asked for."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.sources: dict[str, str] = {}
        self.tables: list[_Table] = []

    def of(self, table: Mapping[str, Any], path: str) -> _Table:
        self.tables.append(_Table(self, table, path))
        return self.tables[-1]

    def refuse_others(self) -> None:
        """A key that nobody asked for is a misspelt one."""
        for table in self.tables:
            table.refuse_others()


class _Table:
    """One table of a profile; every method raises ProfileError for what is not there or wrong."""

    def __init__(self, reader: _Reader, table: Mapping[str, Any], path: str) -> None:
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
        expected = f"a text of 1 to {_MOST_LETTERS} printable characters"
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
        if not 0 < value <= _MOST_CORES:
            raise self.wrong(key, f"is {reprlib.repr(value)}, expected 1 to {_MOST_CORES}")
        return value

    def names(self, key: str) -> tuple[str, ...]:
        value = self._get(key, list, "a list of texts")
        if not value or not all(isinstance(each, str) and _is_name(each) for each in value):
            raise self.wrong(key, f"is {reprlib.repr(value)}, expected a list of texts")
        return tuple(value)

    def part(self, key: str) -> _Table:
        return self._reader.of(self._get(key, dict, "a table"), self._key(key))

    def tables(self, key: str) -> list[_Table]:
        value = self._get(key, list, f"tables [[{key}]]")
        if not value or not all(isinstance(each, dict) for each in value):
            raise self.wrong(key, f"expected tables [[{key}]]")
        path = self._key(key)
        return [self._reader.of(each, f"{path}[{n}]") for n, each in enumerate(value)]

    def figure(self, key: str, unit: str) -> float:
        return self._number(key, self._figure(key, unit, set())["value"], unit)

    def curve(self, key: str, unit: str) -> Curve:
        """A figure, or one for each of "threads"."""
        table = self._figure(key, unit, {"threads"})
        value = table["value"]
        if not isinstance(value, list):
            if "threads" in table:
                raise self.wrong(key, "has threads, expected a list of as many values")
            return Curve((1,), (self._number(key, value, unit),))
        threads: Any = table.get("threads")
        shown = f"threads is {reprlib.repr(threads)}"
        fits = isinstance(threads, list) and len(threads) == len(value) > 0
        if not fits or not all(type(each) is int and 0 < each <= _MOST_CORES for each in threads):
            raise self.wrong(key, f"{shown}, expected a count for each value")
        if sorted(set(threads)) != threads:
            raise self.wrong(key, f"{shown}, expected rising counts")
        values = tuple(self._number(key, each, unit) for each in value)
        return Curve(tuple(threads), values)

    def _figure(self, key: str, unit: str, more: set[str]) -> Mapping[str, Any]:
        self._known.add(key)
        table: Mapping[str, Any] = self._table.get(key)  # type: ignore[assignment]
        _check_figure(table, unit, self._key(key), self._reader.file, more)
        self._reader.sources[self._key(key)] = table["source"]
        return table

    def _number(self, key: str, value: Any, unit: str) -> float:
        return _check_number(value, unit, self._key(key), self._reader.file) * UNITS[unit]


def _is_name(text: str) -> bool:
    return text.isprintable() and 0 < len(text) <= _MOST_LETTERS


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
