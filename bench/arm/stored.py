"""What arm.json holds: three parts, each with its versions and rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from bench.core.envelope import envelope, load_json, save_json
from bench.core.errors import expect, is_positive
from bench.core.results import MODELLED

ARM_FILE = "arm.json"
FORMAT = 1


class Count(NamedTuple):
    """Instructions that a product of `tokens` with rows x columns weights executes on a CPU."""

    cpu: str
    tier: str
    kernel: str
    rows: int
    columns: int
    tokens: int
    instructions: int

    @property
    def each(self) -> float:
        """A weight and token."""
        return self.instructions / (self.rows * self.columns * self.tokens)


class Cycles(NamedTuple):
    """One turn of a kernel's hot loop (of `weights`), by LLVM's model of a core.

    model: of whose units LLVM schedules for the core. units: cycles if only the units were the
    limit, cycles: with dependencies and dispatch as well, by simulation.
    """

    core: str
    model: str
    kernel: str
    weights: int
    instructions: int
    units: float
    cycles: float

    @property
    def each(self) -> float:
        """Cycles a weight."""
        return self.cycles / self.weights


class Speed(NamedTuple):
    """Tokens/s of decoding by the cost model. kind: always "modelled".

    at_most: whether the profile has no rate of the kernel, so that only reading is counted.
    """

    profile: str
    machine: str
    size: str
    encoding: str
    threads: int
    kind: str
    tokens_per_second: float
    at_most: bool


Entry = Count | Cycles | Speed


class Part(NamedTuple):
    """versions: of what made the rows, by name. left_out: a line for each row that is missing."""

    versions: dict[str, str]
    rows: Sequence[Entry]
    left_out: Sequence[str] = ()


#: Part -> its rows.
KINDS: dict[str, type[Entry]] = {"executed": Count, "mca": Cycles, "predicted": Speed}


def load(folder: Path) -> dict[str, Part]:
    """The parts that a folder has, none without a file; ResultsError for one of another kind."""
    path = folder / ARM_FILE
    if not path.exists():
        return {}
    found = load_json(path, "bench.arm", FORMAT)
    return {
        name: _part(found[name], kind, f"{path}: {name}")
        for name, kind in KINDS.items()
        if name in found
    }


def save(folder: Path, parts: dict[str, Part]) -> Path:
    """Write them, all or nothing, with the envelope of the process that writes."""
    found: dict[str, Any] = envelope(FORMAT)
    for name, part in parts.items():
        rows = [row._asdict() for row in part.rows]
        found[name] = {"versions": part.versions, "rows": rows, "left_out": list(part.left_out)}
    return save_json(folder / ARM_FILE, found)


def _part(found: Any, kind: type[Entry], where: str) -> Part:
    expect(isinstance(found, dict), where, found, "an object")
    versions, rows, left_out = (found.get(key) for key in ("versions", "rows", "left_out"))
    are_texts = isinstance(versions, dict) and all(isinstance(v, str) for v in versions.values())
    expect(are_texts, f"{where}.versions", versions, "an object of texts")
    are_texts = isinstance(left_out, list) and all(isinstance(line, str) for line in left_out)
    expect(are_texts, f"{where}.left_out", left_out, "a list of texts")
    expect(isinstance(rows, list), f"{where}.rows", rows, "a list")
    checked = [_row(row, kind, f"{where}.rows[{n}]") for n, row in enumerate(rows)]
    return Part(versions, checked, left_out)


def _row(found: Any, kind: type[Entry], where: str) -> Entry:
    types = get_type_hints(kind)
    is_whole = isinstance(found, dict) and found.keys() == types.keys()
    expect(is_whole, where, found, f"an object with {', '.join(types)}")
    for name, value in found.items():
        if types[name] in (int, float):
            kinds = (int,) if types[name] is int else (int, float)
            expect(is_positive(value, kinds), f"{where}.{name}", value, "a number above 0")
        else:
            right = type(value) is types[name]
            expect(right, f"{where}.{name}", value, f"a {types[name].__name__}")
    word = found.get("kind", MODELLED)
    expect(word == MODELLED, f"{where}.kind", word, MODELLED)
    return kind(**found)
