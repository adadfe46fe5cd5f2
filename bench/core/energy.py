"""Joules of what runs between two calls, as the CPU's own counters (RAPL) tell.

Linux shows them below /sys/class/powercap, those of AMD too as intel-rapl:*. Added up are the
package-* domains and the dram domains beside them. core and uncore are parts of a package, and
psys, the whole platform, holds the packages: none of these is added. The counters see all that the
machine does, not this process alone, and none of them is read where a hypervisor hides them.

Counters wrap around every few minutes of full load: one wrap between two readings is detected, two
are not. Read at least once in range/power seconds: 262 kJ, as many CPUs have it, at 200 W every 21
minutes.
"""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.core.errors import first_line

POWERCAP = Path("/sys/class/powercap")

#: What the counters showed, in joules and in their order; NaN for one that cannot be read.
Reading = tuple[float, ...]


class _Unreadable(Exception):
    """A counter, in one line."""


@dataclass(frozen=True)
class Counter:
    """read: joules since some moment, below `range`, where it wraps around; raises _Unreadable.

    range: NaN for a counter that never wraps around.
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
        """Joules since a reading of this meter; NaN where that is unknown, `problem` says why.

        0 is no answer: counters that did not move are not counting, or were read too soon.
        """
        spent = math.fsum(
            after - before + (0 if after >= before else counter.range)
            for counter, before, after in zip(self.counters, reading, self.read(), strict=True)
        )
        if spent > 0:
            return spent
        missing = "a reading is missing" if math.isnan(spent) else "no change"
        self.problem = self.problem or f"{self.name}: {missing}"
        return math.nan

    def _read(self, counter: Counter) -> float:
        try:
            return counter.read()
        except _Unreadable as error:
            self.problem = str(error)
            return math.nan


@dataclass(frozen=True)
class _Zone:
    """A folder of powercap: number of the package, and whether it is a whole one or a part."""

    path: Path
    number: int
    is_whole: bool
    name: str

    @property
    def is_package(self) -> bool:
        return self.is_whole and self.name.startswith("package-")

    def counter(self) -> Counter:
        """Read once; raises _Unreadable."""
        most = _joules(self.path / "max_energy_range_uj", math.inf)
        if most <= 0:
            raise _Unreadable(f"{self.path / 'max_energy_range_uj'} is 0")
        counter = Counter(self.name, lambda: _joules(self.path / "energy_uj", most), most)
        counter.read()
        return counter


def find_meter(root: Path = POWERCAP) -> tuple[Meter | None, str]:
    """The counters of this machine, or None and the reason in one line.

    Where powercap's are there but closed (they are root's alone since CVE-2020-8694), the package
    zeus is asked, whose daemon may be allowed to read them. All packages are read or none is.
    root: the folder of powercap's zones.
    """
    zones = list(_zones(root))
    try:
        return _powercap(root, zones), ""
    except _Unreadable as error:
        reason = str(error)
    others = {zone.number for zone in zones if zone.is_whole and not zone.is_package}
    try:
        return _zeus(others), ""
    except _Unreadable as error:
        return None, f"{reason}; {error}"


def _zones(root: Path) -> Iterable[_Zone]:
    """Each zone once however often it is linked to; one that cannot be read has no name."""
    try:
        found = sorted(root.iterdir())
    except OSError:
        return
    seen = set()
    for path in found:
        # A second number is that of a part.
        match = re.fullmatch(r"intel-rapl:(\d+)(:\d+)?", path.name)
        if match and path.resolve() not in seen:
            seen.add(path.resolve())
            try:
                name = (path / "name").read_text("ascii").strip()
            except (OSError, ValueError):
                name = ""
            yield _Zone(path, int(match[1]), not match[2], name)


def _powercap(root: Path, zones: list[_Zone]) -> Meter:
    for zone in zones:
        if not zone.name:  # it may be that of a package, whose joules would be missing
            raise _Unreadable(f"{zone.path / 'name'} cannot be read")
    packages = {zone.number for zone in zones if zone.is_package}
    if not packages:
        raise _Unreadable(f"{root} has no intel-rapl zone of a package")
    counters = [
        zone.counter()
        for zone in zones
        if zone.is_package or (zone.name == "dram" and zone.number in packages)
    ]
    return Meter(f"RAPL {' + '.join(counter.name for counter in counters)}", counters)


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
    joules = int(text) * 1e-6
    if joules > most:
        raise _Unreadable(f"{path} holds {text}, more than the range of the counter")
    return joules


def _zeus(others: set[int]) -> Meter:
    """Of the package zeus; `others` are the numbers of zones that it takes for packages."""

    def counter(cpu: Any) -> Counter:
        """A package's and its memory's, which zeus counts on past the range."""

        def read() -> float:
            try:
                found = cpu.get_total_energy_consumption()
                return float(found.cpu_mj + (found.dram_mj or 0)) / 1e3
            except Exception as error:  # the daemon may be gone
                raise _Unreadable(f"zeus: {first_line(error)}") from None

        return Counter(f"package-{cpu.cpu_index}", read, math.nan)

    try:
        cpus = importlib.import_module("zeus.device.cpu").get_cpus().cpus
        counters = [counter(cpu) for cpu in cpus if cpu.cpu_index not in others]
    except Exception as error:  # it is not installed, or may not read them, and has many for that
        raise _Unreadable(f"zeus: {first_line(error)}") from None
    if not counters:
        raise _Unreadable("zeus: no package")
    for each in counters:
        each.read()
    return Meter(f"zeus {' + '.join(each.name for each in counters)}", counters)
