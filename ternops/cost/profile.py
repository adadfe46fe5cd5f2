"""A machine's profile: a TOML file in which every figure has a unit and a source.

What nobody measured or published is left out of the file; what is there is checked, and a key that
is not known is an error.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

from ternops.cost.energy import ARITHMETIC, CORES, IDLE
from ternops.cost.hardware import (
    NOTHING,
    USUAL_EDGE,
    Cores,
    Curve,
    Fixed,
    Hardware,
    Kernel,
    Level,
)
from ternops.cost.known_links import link_of
from ternops.cost.latency import reach_of
from ternops.cost.tables import MAX_CORES, ProfileError, Reader, Table, is_file, read_toml
from ternops.cost.workload import ATTENTION, ELEMENTWISE, FORMER_NAMES, KINDS, linear_bytes
from ternops.files import replaced
from ternops.spelling import meant

ARCHITECTURES = ("x86", "arm")
NODES = ("45 nm", "7 nm")
#: The figures of a kernel: one token from a cache, many tokens, a row of one token's product
#: besides, and the activations that one token is prepared from.
KERNEL_UNITS = {
    "gemv": "MAC/cycle", "gemm": "MAC/cycle", "row": "cycle", "prepare": "element/cycle",
}  # fmt: skip
#: Of a kernel by level, in a table; and in former profiles, for DRAM, what computing added to the
#: time of reading.
REACH, REACH_UNIT = "reach", "of bandwidth"
_EXPOSED, _EXPOSED_UNIT = "exposed", "of computing"
_EXPOSED_SHAPE = (2048, 2048)  # of the matrices that it was measured with
#: What a token costs besides, by level; and the unit of a level's edge.
FIXED, FIXED_UNIT = ("token", "layer", "head"), "us"
EDGE_UNIT = "times"
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
        expected = f"{', '.join(profiles)}{meant(str(name), profiles)}"
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
    clocks = [each.clock for each in cores for _ in range(each.count)]
    node = take.part("operations").choice("node", NODES) if take.has("operations") else "7 nm"
    barrier = take.part("barrier").curve("time", "us") if take.has("barrier") else None
    power = take.part("power") if take.has("power") else None
    machine = Hardware(
        name, take.choice("arch", ARCHITECTURES), take.names("tiers"),
        take.figure("memory", "GB"), cores, levels,
        barrier or Curve((1,), (0.0,)),
        power.figure("idle", "W") if power else math.nan,
        power.figure("core", "W") if power else math.nan,
        _kernels(take.part("kernels"), levels, clocks) if take.has("kernels") else {},
        node, file, link_of(take.part("link"), file) if take.has("link") else None, reader.sources,
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
    for key in ("capacity", "shared", "edge", "refill"):
        if is_last and take.has(key):
            raise take.wrong(key, "of DRAM, which is the last level, expected none")
    capacity = math.inf if is_last else take.figure("capacity", "MiB")
    energy = take.figure("energy", "pJ/byte") if take.has("energy") else math.nan
    shared = True if is_last else take.flag("shared")
    edge = take.figure("edge", EDGE_UNIT) if take.has("edge") else USUAL_EDGE
    if edge <= 1:
        raise take.wrong("edge", f"value is {edge:g}, expected a number above 1")
    refill = take.figure("refill", "GB/s") if take.has("refill") else 0.0
    fixed = NOTHING
    if take.has("fixed"):
        part = take.part("fixed")
        fixed = Fixed(**{name: part.curve(name, FIXED_UNIT) for name in FIXED})
    return Level(
        take.text("name"),
        take.curve("bandwidth", "GB/s"),
        capacity,
        shared,
        energy,
        edge,
        refill,
        fixed,
    )


def _kernels(take: Table, levels: tuple[Level, ...], clocks: list[float]) -> dict[str, Kernel]:
    kernels = {}
    for written in filter(take.has, (*_KERNELS, *FORMER_NAMES)):
        name, part = FORMER_NAMES.get(written, written), take.part(written)
        gemv, gemm, row, prepare = (
            part.curve(key, unit) if part.has(key) else None for key, unit in KERNEL_UNITS.items()
        )
        kernel = Kernel(gemv, gemm, row, prepare)
        if part.has(REACH):
            table = part.part(REACH)
            reach = {each.name: table.curve(each.name, REACH_UNIT)
                     for each in levels if table.has(each.name)}  # fmt: skip
            kernel = replace(kernel, reach=reach)
        elif part.has(_EXPOSED):
            exposed = part.curve(_EXPOSED, _EXPOSED_UNIT)
            kernel = _with_reach(name, kernel, exposed, levels[-1], clocks)
        kernels[name] = kernel
    return kernels


def _with_reach(
    name: str, kernel: Kernel, exposed: Curve, memory: Level, clocks: list[float]
) -> Kernel:
    """A kernel whose reach is what the same measurement would have told."""
    if kernel.gemv is None or name not in KINDS:
        return kernel
    reach = []
    size = linear_bytes(name, *_EXPOSED_SHAPE) / math.prod(_EXPOSED_SHAPE)
    for threads, part in zip(exposed.threads, exposed.values, strict=True):
        cycles = threads * min(clocks[:threads])
        compute, read = 1 / (kernel.gemv.at(threads) * cycles), size / memory.rate(threads)
        reach.append(reach_of(read, compute, read + part * compute))
    return replace(kernel, reach={memory.name: Curve(exposed.threads, tuple(reach))})
