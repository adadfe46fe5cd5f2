"""Weights in multi-level-cell STT-RAM: spin-torque memory that holds two bits a cell.

Its energy depends on what is stored: a cell with both of its magnetic junctions alike (00, 11) is
cheaper to read and to write than a mixed one (01, 10). The bytes of an encoding hold codes, and
which pattern stands for which code is free: the most frequent codes get the cheapest patterns.
"""

from __future__ import annotations

import itertools
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ternops.cost.tables import ProfileError, check_figure, read_toml

PATTERNS = ("00", "01", "10", "11")
_CELL_BITS = 2
_ENERGIES = ("read", "write")
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
    table = read_toml(file)
    sources: dict[str, str] = {}
    energies = {
        what: tuple(_energy(table, what, pattern, str(file), sources) for pattern in PATTERNS)
        for what in _ENERGIES
    }
    _refuse_others(table, ("name", *_ENERGIES), "", str(file))
    for what in _ENERGIES:
        _refuse_others(table[what], PATTERNS, f"{what}.", str(file))
    name = table.get("name")
    if not isinstance(name, str):
        raise ProfileError(f"{file}: name: is {reprlib.repr(name)}, expected a text")
    return PatternMemory(name, energies["read"], energies["write"], sources)


def _refuse_others(table: Mapping[str, Any], known: tuple[str, ...], path: str, file: str) -> None:
    for key in table:
        if key not in known:
            raise ProfileError(f"{file}: {path}{key}: unknown, expected {' or '.join(known)}")


def _energy(
    table: Mapping[str, Any], what: str, pattern: str, file: str, sources: dict[str, str]
) -> float:
    part = table.get(what)
    key = f"{what}.{pattern}"
    figure = part.get(pattern) if isinstance(part, Mapping) else None
    value, sources[key] = check_figure(figure, "pJ", key, file)
    return value * 1e-12


def histogram(data: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.int64]:
    """int64 (2 ** bits,): how often each code of 2, 4 or 8 bits is in the bytes.

    Raises ValueError for other bits, TypeError for what is no array of bytes.
    """
    if bits not in (2, 4, 8):
        raise ValueError(f"bits={bits!r}: expected 2, 4 or 8")
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8:
        found = getattr(data, "dtype", type(data).__name__)
        raise TypeError(f"data: expected a uint8 array, got {found}")
    counts = np.bincount(data.reshape(-1), minlength=256).astype(np.int64)
    codes = np.zeros(1 << bits, np.int64)
    for value, count in enumerate(counts):
        for shift in range(0, 8, bits):
            codes[value >> shift & (1 << bits) - 1] += count
    return codes


def energy_of(memory: PatternMemory, data: npt.NDArray[np.uint8], what: str = "read") -> float:
    """Joules to read or write the bytes as they are; ValueError for another `what`."""
    _check_what(what)
    patterns = histogram(data, _CELL_BITS)
    return float(patterns @ np.array(getattr(memory, what)))


def _check_what(what: str) -> None:
    if what not in _ENERGIES:
        raise ValueError(f"what={what!r}: expected 'read' or 'write'")


def _by_code(energies: tuple[float, ...], bits: int) -> npt.NDArray[np.float64]:
    """Joules of a code's cells, (2 ** bits,)."""
    cells = [range(4)] * (bits // _CELL_BITS)
    return np.array([sum(energies[cell] for cell in code) for code in itertools.product(*cells)])


def best_codes(
    memory: PatternMemory, data: npt.NDArray[np.uint8], bits: int, what: str = "read"
) -> Codes:
    """The codes of 2, 4 or 8 bits that make the bytes cheapest to read (or to write).

    The most frequent code gets the cheapest pattern, and so on: no other order costs less, by the
    rearrangement inequality. Raises ValueError for other bits or another `what`.
    """
    _check_what(what)
    counts = histogram(data, bits)
    joules = {name: _by_code(getattr(memory, name), bits) for name in _ENERGIES}
    patterns = np.empty(len(counts), np.int64)
    patterns[np.argsort(-counts, kind="stable")] = np.argsort(joules[what], kind="stable")
    read, write = (float(counts @ joules[name][patterns]) for name in _ENERGIES)
    return Codes(tuple(patterns.tolist()), read, write)
