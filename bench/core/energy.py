"""Joules of what runs between two calls, as the CPU's own counters (RAPL) tell.

Linux shows them below /sys/class/powercap, those of AMD too as intel-rapl:*. Added up are the
package-* domains and the dram domains beside them. core and uncore are parts of a package, and
psys, the whole platform, holds the packages: none of these is added. The counters see all that the
machine does, not this process alone, and none of them is read where a hypervisor hides them.

A counter starts again at 0 behind its range, every few minutes of full load: one such turn between
two readings is seen, a second one cannot be. Read at least once in range/power seconds: 262 kJ, as
many CPUs have it, at 200 W every 21 minutes.
"""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.core.errors import first_line

POWERCAP = Path("/sys/class/powercap")
#: The end of a zone's name; a second number is that of a part.
_ZONE = re.compile(r"intel-rapl:(\d+)(?::\d+)?")
_MICRO = 1e-6

#: What the counters showed, in joules and in their order; NaN for one that cannot be read.
Reading = tuple[float, ...]


class _Unreadable(Exception):
    """A counter, in one line."""


@dataclass(frozen=True)
class Counter:
    """read: joules since some moment, below `range`; raises _Unreadable.

    range: joules behind which it starts again at 0; NaN for one that never does.
    """

    name: str
    read: Callable[[], float]
    range: float


@dataclass
class Meter:
    """Counters that are added up; nothing here raises.

    problem: why the last figure is NaN, in one line; empty if it is not.
    """

    name: str
    counters: list[Counter]
    problem: str = ""

    def read(self) -> Reading:
        """What the counters show now, for `since`."""
        self.problem = ""
        return tuple(map(self._read, self.counters))

    def since(self, reading: Reading) -> float:
        """Joules since a reading of this meter; NaN where that cannot be told, `problem` says why.

        0 is no answer: counters that did not move are not counting, or were read too soon.
        """
        spent = math.fsum(
            _difference(before, after, counter.range)
            for counter, before, after in zip(self.counters, reading, self.read(), strict=True)
        )
        if spent > 0:
            return spent
        if not self.problem:
            missing = math.isnan(spent)
            self.problem = f"{self.name}: " + ("a reading is missing" if missing else "no change")
        return math.nan

    def _read(self, counter: Counter) -> float:
        try:
            return counter.read()
        except _Unreadable as error:
            self.problem = str(error)
            return math.nan


def find_meter(root: Path = POWERCAP) -> tuple[Meter | None, str]:
    """The counters of this machine, or None and the reason in one line.

    Where powercap's are there but closed (they are root's alone since CVE-2020-8694), the package
    zeus is asked, whose daemon may be allowed to read them. All packages are read or none is.
    root: the folder of powercap's zones.
    """
    zones = _zones(root)
    try:
        return _powercap(root, zones), ""
    except _Unreadable as error:
        reason = str(error)
    parts = (zone for zone, name in zones.items() if not _is_package(zone, name))
    others = {_number(zone) for zone in parts if _is_whole(zone)}
    try:
        return _zeus(others), ""
    except _Unreadable as error:
        return None, f"{reason}; {error}"


def _zones(root: Path) -> dict[Path, str]:
    """The folder of each zone and its name, each once however often it is linked to."""
    try:
        found = sorted(path for path in root.iterdir() if _ZONE.fullmatch(path.name))
    except OSError:
        return {}
    once = {path.resolve(): path for path in reversed(found)}
    return {path: _text(path / "name") for path in reversed(once.values())}


def _text(path: Path) -> str:
    """A small file's line, empty if there is none."""
    try:
        return path.read_text("ascii").strip()
    except (OSError, ValueError):
        return ""


def _number(zone: Path) -> int:
    match = _ZONE.fullmatch(zone.name)
    assert match  # `_zones` looked
    return int(match[1])


def _is_whole(zone: Path) -> bool:
    return zone.name.count(":") == 1


def _is_package(zone: Path, name: str) -> bool:
    return _is_whole(zone) and name.startswith("package-")


def _powercap(root: Path, zones: dict[Path, str]) -> Meter:
    for zone, name in zones.items():
        if not name:  # it may be that of a package, whose joules would be missing
            raise _Unreadable(f"{zone / 'name'} cannot be read")
    packages = {_number(zone) for zone, name in zones.items() if _is_package(zone, name)}
    if not packages:
        raise _Unreadable(f"{root} has no intel-rapl zone of a package")
    counters = [
        _counter(zone, name)
        for zone, name in zones.items()
        if _is_package(zone, name) or (name == "dram" and _number(zone) in packages)
    ]
    return Meter(f"RAPL {' + '.join(counter.name for counter in counters)}", counters)


def _counter(zone: Path, name: str) -> Counter:
    """Of a zone, read once; raises _Unreadable."""
    most = _joules(zone / "max_energy_range_uj", math.inf)
    if most <= 0:
        raise _Unreadable(f"{zone / 'max_energy_range_uj'} is 0")
    counter = Counter(name, lambda: _joules(zone / "energy_uj", most), most)
    counter.read()
    return counter


def _joules(path: Path, most: float) -> float:
    """A file's microjoules in joules; raises _Unreadable, also for more than `most`."""
    try:
        text = path.read_text("ascii").strip()
    except OSError as error:
        raise _Unreadable(f"{path}: {error.strerror or error}") from None
    except ValueError:
        raise _Unreadable(f"{path} holds no number") from None
    if not re.fullmatch(r"[0-9]{1,20}", text):
        raise _Unreadable(f"{path} holds {text[:40]!r}, expected microjoules")
    joules = int(text) * _MICRO
    if joules > most:
        raise _Unreadable(f"{path} holds {text}, more than the range of the counter")
    return joules


def _difference(before: float, after: float, most: float) -> float:
    """Joules between two values of a counter that starts again at 0 behind `most`, once."""
    return after - before if after >= before else after - before + most


def _zeus(others: set[int]) -> Meter:
    """Of the package zeus; `others` are the numbers of zones that it takes for packages."""
    try:
        cpus = importlib.import_module("zeus.device.cpu").get_cpus().cpus
        counters = [
            Counter(f"package-{cpu.cpu_index}", partial(_zeus_joules, cpu), math.nan)
            for cpu in cpus
            if cpu.cpu_index not in others
        ]
    except Exception as error:  # it is not installed, or may not read them, and has many for that
        raise _Unreadable(f"zeus: {first_line(error)}") from None
    if not counters:
        raise _Unreadable("zeus: no package")
    for counter in counters:
        counter.read()
    return Meter(f"zeus {' + '.join(counter.name for counter in counters)}", counters)


def _zeus_joules(cpu: Any) -> float:
    """A package's and its memory's, which zeus counts on behind the range."""
    try:
        found = cpu.get_total_energy_consumption()
        return float(found.cpu_mj + (found.dram_mj or 0)) / 1e3
    except Exception as error:  # the daemon may be gone
        raise _Unreadable(f"zeus: {first_line(error)}") from None
