"""Where compiled jobs are looked for: in the package, then in the user's folder.

A wheel carries the jobs of every tier (`ternops/compiled`), compiled for CPUs that have the tier's
features and perhaps nothing more; what is compiled here is kept in the user's folder, compiled for
this CPU. Both are files of `ternops.simd.objects`, and both are told by the digest of the sources:
what comes from others is never used.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import NamedTuple

from ternops.simd import folder, host
from ternops.simd.objects import Objects, Origin, as_bytes, open_objects

SUFFIX = ".kernels"


class Place(NamedTuple):
    """What tells a job from all others: its module and name, and where it is written.

    keeps: whether that is enough to find it again.
    """

    key: str
    file: Path
    line: int
    keeps: bool

    @property
    def is_own(self) -> bool:
        """Whether the digest of the package covers it."""
        return folder.PACKAGE in self.file.parents

    @property
    def stamp(self) -> str | None:
        """Tells states of other sources apart: kernels may be written in a benchmark or by a user.
        None where nothing does."""
        if self.is_own:
            return ""
        if not self.keeps or not self.file.is_file():
            return None
        return f"-{self.line}-{_digest(self.file.parent)}"


@functools.cache
def _digest(of: Path) -> str:
    """Changes with any Python file of a folder."""
    import hashlib

    digest = hashlib.sha256()
    for path in sorted(of.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def platform() -> str:
    """What object code is made for, but for the CPU."""
    return f"{host.machine()}-{sys.platform}"


def origin() -> Origin:
    """Of what this process compiles."""
    features = tuple(each for each in host.feature_list().split(",") if each)
    return Origin(folder.sources_digest(), platform(), host.cpu_name(), features)


def find(place: Place) -> tuple[bytes, str] | None:
    """The object code of a job and its entry symbol, if there is an undamaged file with it."""
    if place.is_own and (objects := carried()):
        found = objects.read(place.key)
        if found is not None:
            return found
    stamp = place.stamp
    if stamp is None or not folder.cache_folder():
        return None
    try:
        folder.check(Path(folder.cache_folder()))
    except OSError:  # no longer ours, or there
        return None
    kept = open_objects(_path(place, stamp))
    return None if kept is None or kept.origin != origin() else kept.read(place.key)


def keep(place: Place, code: bytes, symbol: str) -> None:
    """Write a job's object code to the user's folder; where that fails, a line says so."""
    stamp = place.stamp
    if stamp is None:
        return
    if not folder.cache_folder():
        folder.tell_loss()
        return
    if changed := folder.change():  # by whoever switched to other sources meanwhile
        folder.tell_loss(changed)
        return
    from ternops.files import replaced

    try:
        folder.make(Path(folder.cache_folder()))  # once more: a temporary one may have been cleaned
        with replaced(_path(place, stamp)) as temporary:
            temporary.write_bytes(as_bytes(origin(), [(place.key, code, symbol)]))
    except OSError as error:  # a full disk only costs a compilation next time
        folder.tell_loss(f"{folder.cache_folder()}: {error.strerror or error}")
    else:
        folder.tell_loss()


def _path(place: Place, stamp: str) -> Path:
    told = repr((place.key, stamp, host.cpu_name(), host.feature_list(), platform()))
    import hashlib

    digest = hashlib.sha256(told.encode()).hexdigest()[:16]
    return Path(folder.cache_folder(), f"{place.key.rpartition('.')[2]}-{digest}{SUFFIX}")


@functools.cache
def carried() -> Objects | None:
    """What the package has for this process's tier, if it was compiled from these very sources and
    uses no feature that the CPU lacks."""
    name = carried_name(host.machine(), folder.tier())
    found = open_objects(folder.PACKAGE / "compiled" / name)
    if found is None or not found.origin.digest or found.origin.platform != platform():
        return None
    needed = {each[1:] for each in found.origin.features if each[0] == "+"}
    if not needed <= host.features() or found.origin.digest != folder.sources_digest():
        return None
    return found


def is_shared() -> bool:
    """Whether another process of this user, with the same environment, finds what is kept."""
    return bool(folder.cache_folder()) and host.IS_HERE and folder.is_of_tier()


def carried_name(machine: str, tier: str) -> str:
    """Of the file that has the jobs of a tier."""
    return f"{machine}-{tier}{SUFFIX}"
