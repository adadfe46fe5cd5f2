"""Where compiled kernels are kept, so that the next process finds them.

A kept kernel is executed, so its folder must be one that nobody else can have written to.
"""

from __future__ import annotations

import functools
import os
import stat
import sys
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from ternops.imported import TIME

PACKAGE = Path(__file__).resolve().parent.parent
#: Folders that no kernel code imports anything from: an edit there compiles nothing anew.
WITHOUT_KERNELS = (
    PACKAGE / "ahead",
    PACKAGE / "commands",
    PACKAGE / "decoder" / "formats",
    PACKAGE / "serve",
    PACKAGE / "torch",
    PACKAGE / "tuning",
)
#: Seconds by which the times of files lag behind: they are those of the last tick of a clock.
_TICK = 0.005
_COMPILED_FOR: list[str] = []
#: Why kernels are not kept where they would be; the first is told, once, when one is compiled.
_REASONS: list[str] = []
_TOLD: list[str] = []


def compile_for(tier: str) -> None:
    """Tell the name of the tier: compiled code depends on it, and not on the features alone."""
    _COMPILED_FOR.append(tier)


def tier() -> str:
    """That name; empty as long as it is not known."""
    return _COMPILED_FOR[0] if _COMPILED_FOR else ""


def is_of_tier() -> bool:
    """Whether compiled code depends on nothing besides that a process chooses."""
    return len(_COMPILED_FOR) == 1


@functools.cache
def cache_folder() -> str:
    """One folder a state of the package's sources, tier and versions; empty if there can be none.

    It is below NUMBA_CACHE_DIR or the user's cache folder, else below one in the temporary folder
    that all processes of the user share.
    """
    _REASONS.clear()
    digest = _digest()
    if not digest:
        none = f"{PACKAGE} holds no sources, which tell kernels of other versions apart"
        _REASONS.append(_changed(_sources()) or none)
        return ""
    for place in (_usual, _temporary):
        try:
            folder = place() / digest
            make(folder)
            return str(folder)
        except (OSError, RuntimeError) as error:  # RuntimeError: there is no home
            _REASONS.append(_reason(place, error))
    return ""


def cache_state() -> str:
    """The folder, and what is lost where it is not the usual one."""
    folder = cache_folder()
    if not _REASONS:
        return folder
    return f"{folder or 'none, each process compiles anew'} ({_REASONS[0]})"


def tell_loss(reason: str = "") -> None:
    """Warn, once a process, that what was compiled is not kept, or not in the usual place."""
    folder = cache_folder()
    reasons = [*_REASONS, *([reason] if reason else [])]
    if _TOLD or not reasons:
        return
    _TOLD.extend(reasons)
    kept = f"kept in {folder}" if folder and not reason else "not kept for the next process"
    line = f"compiled kernels are {kept} ({reasons[-1] if reason else reasons[0]})"
    warnings.warn(f"{line}; NUMBA_CACHE_DIR names another folder", RuntimeWarning, stacklevel=2)


def make(folder: Path) -> None:
    """Make the folder and the one above it, if need be; OSError if they cannot be used."""
    folder.parent.parent.mkdir(parents=True, exist_ok=True)
    for each in (folder.parent, folder):
        each.mkdir(mode=0o700, exist_ok=True)
    check(folder)
    import tempfile

    with tempfile.TemporaryFile(dir=folder):
        pass


def check(folder: Path) -> None:
    """Raise OSError unless the folder and the one above are there and nobody else's."""
    for each in (folder.parent, folder):
        # Of a symbolic link both: whoever made it chose the folder.
        for found in (each.lstat(), each.stat()):
            if hasattr(os, "geteuid") and found.st_uid != os.geteuid():
                raise PermissionError(0, "belongs to another user", str(each))
        if found.st_mode & stat.S_IWOTH:
            raise PermissionError(0, "everybody may write there", str(each))


def _digest() -> str:
    """Of the sources and of what compiles them; empty without any sources."""
    sources = sources_digest()
    import hashlib

    digest = hashlib.sha256(repr((sources, _compilers())).encode())
    return digest.hexdigest()[:16] if sources else ""


@functools.cache
def sources_digest() -> str:
    """Of all that can hold kernel code, and the tier; empty without any sources, and where they
    have changed since they were imported: nobody knows then what was compiled."""
    import hashlib

    digest = hashlib.sha256(repr(_COMPILED_FOR).encode())
    sources = _sources()
    for path in sources:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16] if sources and not _changed(sources) else ""


def change() -> str:
    """What of the sources has changed since they were imported, in words; empty if nothing has."""
    return _changed(_sources())


def _sources() -> list[Path]:
    """All that can hold kernel code."""
    without = tuple(f"{folder}{os.sep}" for folder in WITHOUT_KERNELS)
    return [path for path in sorted(PACKAGE.rglob("*.py")) if not str(path).startswith(without)]


def _ahead() -> dict[Path, float]:
    """The times of all sources, if the clock is behind them: it was set back, or the machine has
    none that goes on without power. By it they would all have changed since they were imported."""
    try:
        if Path(__file__).stat().st_ctime <= time.time():
            return {}
        return {path: path.stat().st_ctime for path in _sources()}
    except OSError:
        return {}


#: As they were at import; empty unless the clock is behind.
_AHEAD = _ahead()


def _changed(sources: list[Path]) -> str:
    for path in sources:
        try:
            # The time of the last change of whatever kind: others can be set.
            found = path.stat().st_ctime
            changed = found > TIME - _TICK and found != _AHEAD.get(path)
        except OSError:  # gone since it was listed
            changed = True
        if changed:
            return f"{path} has changed since this process imported {PACKAGE.name}"
    return ""


def _compilers() -> tuple[str, ...]:
    """The versions of Numba, which is not imported for that, of LLVM's, and of Python."""
    found = [sys.implementation.cache_tag]
    for name in ("numba", "llvmlite"):
        spec = find_spec(name)
        place = Path(spec.origin or "").parent if spec else Path()
        found.append((place / "_version.py").read_text("utf-8"))
    return tuple(found)


def _usual() -> Path:
    if named := os.environ.get("NUMBA_CACHE_DIR"):
        base = Path(named)
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home())
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        named = os.environ.get("XDG_CACHE_HOME", "")
        base = Path(named) if os.path.isabs(named) else Path.home() / ".cache"
    return base.absolute() / "ternops"  # what is relative is so to where it was first asked for


def _temporary() -> Path:
    import tempfile

    user = f"-{os.geteuid()}" if hasattr(os, "geteuid") else ""
    return Path(tempfile.gettempdir()).absolute() / f"ternops{user}"


def _reason(place: Callable[[], Path], error: Exception) -> str:
    """Why a place cannot be used, in a line."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'the cache folder'}: {error.strerror}"
    return " ".join(str(error).split())
