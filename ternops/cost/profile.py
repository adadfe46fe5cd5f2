"""A machine's profile: a TOML file in which every figure has a unit and a source.

A figure is a table of a value, its unit and where it comes from; a curve has a value for each of
some numbers of threads. What nobody measured or published is left out of the file; what is there
is checked, and a key that is not known is an error.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from ternops.cost.hardware import Cores, Curve, Hardware, Kernel, Level
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


class ProfileError(ValueError):
    """A profile that cannot be used; the message names the file and the key."""


def shipped() -> dict[str, Path]:
    """Name -> file of the profiles inside the package."""
    folder = resources.files("ternops.cost") / "profiles"
    paths = (Path(str(each)) for each in folder.iterdir())
    return {path.stem: path for path in sorted(paths) if path.suffix == ".toml"}


def load(name: str | Path) -> Hardware:
    """The profile of a shipped machine, or of a TOML file.

    Raises ProfileError with one line for a name that is neither, and for a file that is no profile.
    """
    profiles = shipped()
    path = profiles.get(str(name)) or Path(name)
    if not path.is_file():
        expected = ", ".join(profiles)
        raise ProfileError(f"hardware {str(name)!r}: expected a TOML file or one of {expected}")
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ProfileError(f"{path}: no TOML file: {error}") from error
    return parse(table, str(path))


def save(table: Mapping[str, Any], path: Path) -> None:
    """Write a profile's tables as a TOML file, whole or not at all; ProfileError for bad ones."""
    import tomli_w

    parse(table, str(path))
    with replaced(path) as temporary:
        temporary.write_text(tomli_w.dumps(table), "utf-8")


def parse(table: Mapping[str, Any], file: str) -> Hardware:
    """The machine that a profile's tables describe; ProfileError names the file and the key."""
    reader = _Reader(file)
    take = reader.of(table, "")
    name = take.text("name")
    cores = tuple(
        Cores(each.text("kind"), each.count("count"), each.figure("clock", "GHz"))
        for each in take.tables("cores")
    )
    found = take.tables("levels")
    levels = tuple(_level(each, is_last=each is found[-1]) for each in found)
    node = take.part("operations").choice("node", NODES) if "operations" in table else "7 nm"
    barrier = take.part("barrier").curve("time", "us") if "barrier" in table else None
    power = take.part("power") if "power" in table else None
    machine = Hardware(
        name, take.choice("arch", ARCHITECTURES), take.names("tiers"),
        take.figure("memory", "GB"), cores, levels,
        barrier or Curve((1,), (0.0,)),
        power.figure("idle", "W") if power else math.nan,
        power.figure("core", "W") if power else math.nan,
        _kernels(take.part("kernels")) if "kernels" in table else {},
        node, file, reader.sources,
    )  # fmt: skip
    reader.refuse_others(table)
    return machine


def _level(take: _Table, is_last: bool) -> Level:
    capacity = math.inf if is_last else take.figure("capacity", "MiB")
    energy = take.figure("energy", "pJ/byte") if take.has("energy") else math.nan
    shared = True if is_last else take.flag("shared")
    return Level(take.text("name"), take.curve("bandwidth", "GB/s"), capacity, shared, energy)


def _kernels(take: _Table) -> dict[str, Kernel]:
    kernels = {}
    for name in take.names_inside():
        part = take.part(name)
        figures = {
            key: part.curve(key, unit) for key, unit in KERNEL_UNITS.items() if part.has(key)
        }
        kernels[name] = Kernel(**figures)
    return kernels


class _Reader:
    """Takes figures out of a profile, remembers their sources, and knows what was not taken."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.sources: dict[str, str] = {}
        self.taken: set[str] = set()

    def of(self, table: Mapping[str, Any], path: str) -> _Table:
        return _Table(self, table, path)

    def wrong(self, key: str, what: str) -> ProfileError:
        return ProfileError(f"{self.file}: {key}: {what}")

    def refuse_others(self, table: Mapping[str, Any]) -> None:
        """A key that nobody asked for is a misspelt one."""
        for path in _paths(table, ""):
            if path not in self.taken:
                raise self.wrong(path, "unknown, expected none of that name")


def _paths(table: Mapping[str, Any], path: str) -> Iterator[str]:
    """The keys of figures and words, as error messages name them."""
    for key, value in table.items():
        here = f"{path}.{key}" if path else key
        if isinstance(value, Mapping) and "value" not in value:
            yield from _paths(value, here)
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            for number, each in enumerate(value):
                yield from _paths(each, f"{here}[{number}]")
        else:
            yield here


class _Table:
    """One table of a profile; every method raises ProfileError for what is not there or wrong."""

    def __init__(self, reader: _Reader, table: Mapping[str, Any], path: str) -> None:
        self._reader, self._table, self._path = reader, table, path

    def _key(self, key: str) -> str:
        return f"{self._path}.{key}" if self._path else key

    def _wrong(self, key: str, what: str) -> ProfileError:
        return self._reader.wrong(self._key(key), what)

    def has(self, key: str) -> bool:
        return key in self._table

    def names_inside(self) -> list[str]:
        return list(self._table)

    def _get(self, key: str, kind: type, expected: str) -> Any:
        self._reader.taken.add(self._key(key))
        value = self._table.get(key)
        if value is None:
            raise self._wrong(key, f"missing, expected {expected}")
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self._wrong(key, f"is {value!r}, expected {expected}")
        return value

    def text(self, key: str) -> str:
        return str(self._get(key, str, "a text"))

    def choice(self, key: str, expected: tuple[str, ...]) -> str:
        value = self.text(key)
        if value not in expected:
            raise self._wrong(key, f"is {value!r}, expected {' or '.join(expected)}")
        return value

    def flag(self, key: str) -> bool:
        return bool(self._get(key, bool, "true or false"))

    def count(self, key: str) -> int:
        value = int(self._get(key, int, "a number of cores"))
        if not 0 < value <= 4096:
            raise self._wrong(key, f"is {value}, expected 1 to 4096")
        return value

    def names(self, key: str) -> tuple[str, ...]:
        value = self._get(key, list, "a list of texts")
        if not value or not all(isinstance(each, str) for each in value):
            raise self._wrong(key, f"is {value!r}, expected a list of texts")
        return tuple(value)

    def part(self, key: str) -> _Table:
        return self._reader.of(self._get(key, dict, "a table"), self._key(key))

    def tables(self, key: str) -> list[_Table]:
        value = self._get(key, list, f"tables [[{key}]]")
        if not value or not all(isinstance(each, dict) for each in value):
            raise self._wrong(key, f"expected tables [[{key}]]")
        path = self._key(key)
        return [self._reader.of(each, f"{path}[{n}]") for n, each in enumerate(value)]

    def figure(self, key: str, unit: str) -> float:
        table = self._figure(key, unit)
        return self._number(key, table["value"]) * UNITS[unit]

    def curve(self, key: str, unit: str) -> Curve:
        """A figure, or one for each of "threads"."""
        table = self._figure(key, unit)
        value = table["value"]
        if not isinstance(value, list):
            return Curve((1,), (self._number(key, value) * UNITS[unit],))
        threads: Any = table.get("threads")
        fits = isinstance(threads, list) and len(threads) == len(value) > 0
        if not fits or not all(type(each) is int and each > 0 for each in threads):
            raise self._wrong(key, f"threads is {threads!r}, expected a count for each value")
        if sorted(set(threads)) != threads:
            raise self._wrong(key, f"threads is {threads!r}, expected rising counts")
        values = tuple(self._number(key, each) * UNITS[unit] for each in value)
        return Curve(tuple(threads), values)

    def _figure(self, key: str, unit: str) -> Mapping[str, Any]:
        self._reader.taken.add(self._key(key))
        table: Mapping[str, Any] = self._table.get(key)  # type: ignore[assignment]
        _check_figure(table, unit, self._key(key), self._reader.file)
        self._reader.sources[self._key(key)] = table["source"]
        return table

    def _number(self, key: str, value: Any) -> float:
        return _check_number(value, self._key(key), self._reader.file)


def check_figure(figure: Any, unit: str, key: str, file: str) -> tuple[float, str]:
    """The value and the source of a figure in this unit; ProfileError for anything else."""
    _check_figure(figure, unit, key, file)
    return _check_number(figure["value"], key, file), str(figure["source"])


def _check_figure(figure: Any, unit: str, key: str, file: str) -> None:
    expected = f"expected {{ value, unit = {unit!r}, source }}"
    where = f"{file}: {key}:"
    if figure is None:
        raise ProfileError(f"{where} missing, {expected}")
    if not isinstance(figure, Mapping):
        raise ProfileError(f"{where} is {figure!r}, {expected}")
    for name in ("value", "unit", "source"):
        if name not in figure:
            raise ProfileError(f"{where} has no {name}, {expected}")
    if figure["unit"] != unit:
        raise ProfileError(f"{where} unit is {figure['unit']!r}, expected {unit!r}")
    source = figure["source"]
    if not isinstance(source, str) or not source.strip():
        raise ProfileError(f"{where} source is {source!r}, expected where the figure comes from")
    others = set(figure) - {"value", "unit", "source", "threads"}
    if others:
        raise ProfileError(f"{where} {min(others)!r} is unknown, {expected}")


def _check_number(value: Any, key: str, file: str) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value <= 0:
        raise ProfileError(f"{file}: {key}: value is {value!r}, expected a number above 0")
    return float(value)
