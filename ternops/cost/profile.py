"""A machine's profile: a TOML file in which every figure has a unit and a source.

What nobody measured or published is left out of the file; what is there is checked, and a key that
is not known is an error.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from ternops.cost.energy import ARITHMETIC, CORES, IDLE
from ternops.cost.hardware import Cores, Curve, Hardware, Kernel, Level
from ternops.cost.tables import MAX_CORES, ProfileError, Reader, Table, is_file, read_toml
from ternops.cost.workload import ATTENTION, ELEMENTWISE, FORMER_NAMES, KINDS
from ternops.files import replaced

ARCHITECTURES = ("x86", "arm")
NODES = ("45 nm", "7 nm")
#: The figures of a kernel: one token from a cache, many tokens, the activations that one token is
#: prepared from, and the part of computing that is not hidden behind reading from DRAM.
KERNEL_UNITS = {
    "gemv": "MAC/cycle", "gemm": "MAC/cycle", "prepare": "element/cycle",
    "exposed": "of computing",
}  # fmt: skip
_KERNELS = (*KINDS, ATTENTION, ELEMENTWISE)


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
    if not is_file(path):
        expected = ", ".join(profiles)
        raise ProfileError(f"hardware {str(name)!r}: expected a TOML file or one of {expected}")
    return parse(read_toml(path), str(path))


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
    reader = Reader(file)
    take = reader.of(table, "")
    name = take.text("name")
    cores = tuple(
        Cores(each.text("kind"), each.count("count"), each.figure("clock", "GHz"))
        for each in take.tables("cores")
    )
    together = sum(each.count for each in cores)
    if together > MAX_CORES:
        raise take.wrong("cores", f"{together} together, expected at most {MAX_CORES}")
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


def _levels(tables: list[Table]) -> tuple[Level, ...]:
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


def _level(take: Table, is_last: bool) -> Level:
    for key in ("capacity", "shared"):
        if is_last and take.has(key):
            raise take.wrong(key, "of DRAM, which is the last level, expected none")
    capacity = math.inf if is_last else take.figure("capacity", "MiB")
    energy = take.figure("energy", "pJ/byte") if take.has("energy") else math.nan
    shared = True if is_last else take.flag("shared")
    return Level(take.text("name"), take.curve("bandwidth", "GB/s"), capacity, shared, energy)


def _kernels(take: Table) -> dict[str, Kernel]:
    kernels = {}
    for written in filter(take.has, (*_KERNELS, *FORMER_NAMES)):
        part = take.part(written)
        figures = {
            key: part.curve(key, unit) for key, unit in KERNEL_UNITS.items() if part.has(key)
        }
        kernels[FORMER_NAMES.get(written, written)] = Kernel(**figures)
    return kernels
