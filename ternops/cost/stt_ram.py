"""Weights in multi-level-cell STT-RAM: spin-torque memory that holds two bits a cell.

Its energy depends on what is stored: a cell with both of its magnetic junctions alike (00, 11) is
cheaper to read and to write than a mixed one (01, 10). The bytes of an encoding hold codes, and
which pattern stands for which code is free: the most frequent codes get the cheapest patterns.
"""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ternops.cost.profile import ProfileError, check_figure

PATTERNS = ("00", "01", "10", "11")
_CELL_BITS = 2
#: Encoding -> the bits of one of its codes, which a byte holds 8 / bits of.
CODE_BITS = {"base3": 8, "two_bit": 2, "tl1": 4}


@dataclass(frozen=True)
class PatternMemory:
    """read, write: joules of a cell by its pattern, in the order of PATTERNS."""

    name: str
    read: tuple[float, ...]
    write: tuple[float, ...]
    sources: Mapping[str, str]


@dataclass(frozen=True)
class Codes:
    """A choice of codes. patterns: of code 0, 1, ...; read, write: joules of all bytes with it."""

    patterns: tuple[int, ...]
    read: float
    write: float


def load(path: Path | None = None) -> PatternMemory:
    """A memory profile, by default the one inside the package; ProfileError for a bad one."""
    file = path or Path(str(resources.files("ternops.cost") / "memories" / "mlc-stt-ram.toml"))
    try:
        table = tomllib.loads(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ProfileError(f"{file}: no TOML file: {error}") from error
    sources: dict[str, str] = {}
    energies = {
        what: tuple(_energy(table, what, pattern, str(file), sources) for pattern in PATTERNS)
        for what in ("read", "write")
    }
    name = table.get("name")
    if not isinstance(name, str):
        raise ProfileError(f"{file}: name: is {name!r}, expected a text")
    return PatternMemory(name, energies["read"], energies["write"], sources)


def _energy(
    table: Mapping[str, Any], what: str, pattern: str, file: str, sources: dict[str, str]
) -> float:
    part = table.get(what)
    key = f"{what}.{pattern}"
    figure = part.get(pattern) if isinstance(part, Mapping) else None
    value, sources[key] = check_figure(figure, "pJ", key, file)
    return value * 1e-12


def histogram(data: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.int64]:
    """int64 (2 ** bits,): how often each code of so many bits (2, 4 or 8) is in the bytes."""
    counts = np.bincount(data.reshape(-1), minlength=256).astype(np.int64)
    codes = np.zeros(1 << bits, np.int64)
    for value, count in enumerate(counts):
        for shift in range(0, 8, bits):
            codes[value >> shift & (1 << bits) - 1] += count
    return codes


def energy_of(memory: PatternMemory, data: npt.NDArray[np.uint8], what: str = "read") -> float:
    """Joules to read or write the bytes as they are."""
    patterns = histogram(data, _CELL_BITS)
    return float(patterns @ np.array(getattr(memory, what)))


def _by_code(energies: tuple[float, ...], bits: int) -> npt.NDArray[np.float64]:
    """Joules of a code's cells, (2 ** bits,)."""
    cells = [range(4)] * (bits // _CELL_BITS)
    return np.array([sum(energies[cell] for cell in code) for code in itertools.product(*cells)])


def best_codes(
    memory: PatternMemory, data: npt.NDArray[np.uint8], bits: int, what: str = "read"
) -> Codes:
    """The codes of so many bits that make the bytes cheapest to read (or to write).

    The most frequent code gets the cheapest pattern, and so on: no other order costs less, by the
    rearrangement inequality.
    """
    counts = histogram(data, bits)
    joules = {name: _by_code(getattr(memory, name), bits) for name in ("read", "write")}
    patterns = np.empty(len(counts), np.int64)
    patterns[np.argsort(-counts, kind="stable")] = np.argsort(joules[what], kind="stable")
    read, write = (float(counts @ joules[name][patterns]) for name in ("read", "write"))
    return Codes(tuple(patterns.tolist()), read, write)
