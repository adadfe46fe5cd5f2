"""Links by name, by their two figures, or as `ternops calibrate --mpi` measured them."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from ternops.cost.link import Link
from ternops.cost.tables import ProfileError, Reader, Table, is_file, read_toml

#: Of a link in a file.
LATENCY_UNIT, BANDWIDTH_UNIT, GATHER_UNIT = "us", "GB/s", "us"
_SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}
_BYTES_PER_S = {
    f"{prefix}{unit}": factor * size
    for prefix, factor in (("M", 1e6), ("G", 1e9))
    for unit, size in (("bit/s", 1 / 8), ("B/s", 1.0))
}
#: What is outside is a mistake: a nanosecond to ten seconds, a kilobyte to ten terabytes a second.
_MAX_BYTES = 2**30  # of a vector that is gathered
_LATENCIES, _BANDWIDTHS = (1e-9, 10.0), (1e3, 1e13)


def shipped() -> dict[str, Link]:
    """Name -> link, of those with a source for every figure in `links.toml`."""
    path = Path(str(resources.files("ternops.cost") / "links.toml"))
    reader = Reader(str(path))
    take = reader.of(tables := read_toml(path), "")
    links = {name: link_of(take.part(name), name) for name in tables}
    reader.refuse_others()
    return links


def load_link(name: str) -> Link:
    """A shipped link, that of a profile's file, or "LATENCY,RATE", as "1ms,1Gbit/s".

    Raises ProfileError with one line for what is none of these; TypeError for what is no name.
    """
    if not isinstance(name, str):
        raise TypeError(f"link={reprlib.repr(name)}: expected a name")
    links = shipped()
    if name in links:
        return links[name]
    latency, comma, rate = name.partition(",")
    if comma and (found := _written(name, latency.strip(), rate.strip())):
        return found
    if is_file(Path(name)):
        return _of_profile(name)
    raise ProfileError(
        f"link {reprlib.repr(name)}: expected {', '.join(links)}, LATENCY,RATE as 1ms,1Gbit/s, "
        "or a file that calibrate --mpi wrote"
    )


def link_of(take: Table, name: str) -> Link:
    """The link that a file's table describes."""
    if take.has("barrier"):  # for whoever reads the file: decoding needs none
        take.figure("barrier", LATENCY_UNIT)
    gathers = dict([_gather_of(take.part("allgather"))]) if take.has("allgather") else {}
    return Link(
        name, take.figure("latency", LATENCY_UNIT), take.figure("bandwidth", BANDWIDTH_UNIT),
        take.flag("local"), gathers,
    )  # fmt: skip


def _gather_of(take: Table) -> tuple[int, tuple[tuple[int, ...], tuple[float, ...]]]:
    return take.count("ranks"), take.points("time", GATHER_UNIT, "bytes", _MAX_BYTES)


def _of_profile(name: str) -> Link:
    table = read_toml(Path(name))
    if not isinstance(link := table.get("link"), Mapping):
        raise ProfileError(f"{name}: link: missing, expected what calibrate --mpi writes")
    reader = Reader(name)
    found = link_of(reader.of(link, "link"), name)
    reader.refuse_others()
    return found


def _written(name: str, latency: str, rate: str) -> Link | None:
    seconds, per_s = _quantity(latency, _SECONDS), _quantity(rate, _BYTES_PER_S)
    if seconds is None or per_s is None:
        return None
    for value, (least, most), unit in ((seconds, _LATENCIES, "s"), (per_s, _BANDWIDTHS, "B/s")):
        if not least <= value <= most:
            expected = f"{least:g} to {most:g} {unit}"
            raise ProfileError(f"link {reprlib.repr(name)}: {value:g} {unit}, expected {expected}")
    return Link(name, seconds, per_s)


def _quantity(text: str, units: Mapping[str, float]) -> Any:
    """A number with a unit behind it; None for anything else."""
    for unit, size in sorted(units.items(), key=lambda item: -len(item[0])):
        if text.endswith(unit):
            try:
                return float(text.removesuffix(unit)) * size
            except ValueError:
                return None
    return None
