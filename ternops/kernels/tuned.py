"""The tiles that `ternops.tuning` found for this CPU and tier, read from a file beside the cache.

Nothing in such a file is more than a choice among `ternops.kernels.tiles.candidates`, none of which
changes a bit of any result; a file that says anything else, or is of another CPU, tier or state of
the sources, is not used at all.
"""

from __future__ import annotations

import functools
import os
import re
import stat
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ternops.cpu_caches import cpu_cache_bytes, cpu_model
from ternops.encodings import ENCODINGS, TERNARY
from ternops.isa.detect import TIER
from ternops.kernels.tiles import Tile, candidates, kinds_of
from ternops.shown import shown
from ternops.simd import host
from ternops.simd.folder import PACKAGE, cache_folder

#: "off", or the file to use instead of the usual one.
VARIABLE = "TERNOPS_TUNING"
OFF = "off"
AUTO = ("cached", "streamed")
MAX_BYTES = 1 << 17
#: What a tuned file depends on: kernels, and what chooses among them.
_IGNORED: list[bool] = []
_SOURCES = ("encodings", "isa", "kernels", "simd")


class Tuned(NamedTuple):
    """What a file says. tiles: by encoding and shape class. auto: two encodings, or nothing."""

    path: str = ""
    date: str = ""
    tiles: Mapping[tuple[str, str], Tile] = {}
    auto: tuple[str, str] | None = None


class TuningError(ValueError):
    """Why a file is not used, in a line."""


def identity() -> dict[str, str]:
    """What a file must say of itself to fit here."""
    return {"cpu": _cpu(), "tier": TIER.name, "sources": _digest()}


def _cpu() -> str:
    """Names of virtual CPUs say little: the caches tell them apart."""
    caches = ", ".join(f"L{level} {size >> 10} KB" for level, size in cpu_cache_bytes().items())
    return f"{cpu_model()}, LLVM's {host.cpu_name()}, {caches or 'caches unknown'}"


@functools.cache
def _digest() -> str:
    import hashlib

    digest = hashlib.sha256()
    for folder in _SOURCES:
        for path in sorted((PACKAGE / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def usual_path() -> Path | None:
    """Beside the folder of compiled kernels, one file a CPU and tier; None if there is none."""
    folder = cache_folder()
    if not folder:
        return None
    name = re.sub(r"[^a-z0-9]+", "-", cpu_model().lower()).strip("-")[:60] or "cpu"
    mark = zlib.crc32(_cpu().encode())
    return Path(folder).parent / f"tuning-{name}-{mark:08x}-{TIER.name}.toml"


def tuned() -> Tuned:
    """What the file says that is to be used; empty where there is none, or none that fits.

    Raises TuningError if TERNOPS_TUNING names a file that cannot be used.
    """
    return Tuned() if _IGNORED else _found()[0]


def state() -> str:
    """Where tiles come from, for `ternops.info`."""
    try:
        return _found()[1]
    except TuningError as error:
        return f"error: {error}"


def is_needed() -> bool:
    """Whether tuning would bring what is not there: it is not off, and no file fits."""
    if os.environ.get(VARIABLE) == OFF:
        return False
    try:
        return not tuned().path
    except TuningError:
        return True


@contextmanager
def ignored() -> Iterator[None]:
    """In here there is no file, and nothing is wrong with it; it is looked for anew behind."""
    _IGNORED.append(True)
    try:
        yield
    finally:
        _IGNORED.pop()
        forget()


def forget() -> None:
    """Look for the file anew when next asked."""
    _found.cache_clear()


@functools.cache
def _found() -> tuple[Tuned, str]:
    named = os.environ.get(VARIABLE, "")
    if named == OFF:
        return Tuned(), f"off ({VARIABLE})"
    if named:
        try:
            found = read(Path(named))
        except FileNotFoundError:
            raise TuningError(f"{VARIABLE}={named!r}: no such file") from None
        except (TuningError, OSError) as error:
            reason = getattr(error, "strerror", None) or error
            raise TuningError(f"{VARIABLE}={named!r}: {reason}") from None
        return found, _described(found)
    path = usual_path()
    if path is None:
        return Tuned(), "none: there is no folder for it"
    try:
        found = read(path)
    except FileNotFoundError:
        return Tuned(), "none (python -m ternops tune)"
    except (TuningError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        return Tuned(), f"ignored: {path}: {reason} (python -m ternops tune)"
    return found, _described(found)


def _described(found: Tuned) -> str:
    return f"{found.path} of {found.date or 'an unknown day'}"


def read(path: Path) -> Tuned:
    """What a file says; OSError if it cannot be read, TuningError unless all of it is right."""
    import tomllib

    data = _bytes(path)
    try:
        table = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        reason = "not UTF-8" if isinstance(error, UnicodeDecodeError) else "no TOML"
        raise TuningError(reason) from None
    for what, here in identity().items():
        if table.get(what) != here:
            raise TuningError(f"is of {what} {shown(table.get(what))}, this is {shown(here)}")
    tiles = {}
    for name in ENCODINGS:
        chosen = _table(table.get(name, {}), name)
        for kind, entry in chosen.items():
            tiles[name, kind] = _tile(name, kind, _table(entry, f"{name}.{kind}"))
    date = table.get("date")
    return Tuned(str(path), date if isinstance(date, str) else "", tiles, _auto(table))


def _bytes(path: Path) -> bytes:
    # A pipe would be waited for, a device never ends.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(handle, "rb") as file:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise TuningError("is no regular file")
        if found.st_size > MAX_BYTES:
            raise TuningError(f"has {found.st_size} bytes, expected at most {MAX_BYTES}")
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise TuningError(f"has more than {MAX_BYTES} bytes")
    return data


def _table(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise TuningError(f"{name} = {shown(value)}: expected a table")
    return value


def _tile(name: str, kind: str, entry: Mapping[str, Any]) -> Tile:
    kinds = kinds_of(ENCODINGS[name])
    if kind not in kinds:
        known = f"expected one of {', '.join(kinds)}" if kinds else f"{name} has no tiles to choose"
        raise TuningError(f"{shown(f'{name}.{kind}')}: {known}")
    fields = entry.get("tile")
    for tile in candidates(name, kind, TIER):
        wanted = tile._asdict()
        if isinstance(fields, dict) and fields == wanted and _types(fields) == _types(wanted):
            return tile
    raise TuningError(f"{name}.{kind}: tile = {shown(fields)} is none of the candidates")


def _types(fields: Mapping[str, Any]) -> dict[str, type]:
    return {key: type(value) for key, value in fields.items()}


def _auto(table: Mapping[str, Any]) -> tuple[str, str] | None:
    if "auto" not in table:
        return None
    entry = _table(table["auto"], "auto")
    for each in AUTO:
        if entry.get(each) not in TERNARY:
            found, expected = shown(entry.get(each)), " or ".join(TERNARY)
            raise TuningError(f"auto.{each} = {found}: expected {expected}")
    cached, streamed = (str(entry[each]) for each in AUTO)
    return cached, streamed
