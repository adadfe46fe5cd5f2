"""Compiled code on disk: found again by the next process, and no state of the disk can break it."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numba.core import caching

from ternops.files import replaced
from ternops.simd.folder import PACKAGE, cache_folder, check, make, tell_loss


@functools.cache
def _digest(folder: Path) -> str:
    """Changes with any Python file of a folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _stamp(file: str) -> str:
    """Tells states of the sources apart where the cache's folder does not: kernels may be written
    elsewhere, in a benchmark or by a user."""
    folder = Path(file).resolve().parent
    return "" if PACKAGE in (folder, *folder.parents) else f"-{_digest(folder)}"


class _Locator(caching._CacheLocator):
    def __init__(self, function: Any, file: str) -> None:
        self._name = f"{function.__code__.co_firstlineno}{_stamp(file)}"

    def ensure_cache_path(self) -> None:
        make(Path(cache_folder()))  # once more: a temporary folder may have been cleaned

    def get_cache_path(self) -> str:
        return cache_folder()

    def get_source_stamp(self) -> str:
        return "the folder's name is the stamp"

    def get_disambiguator(self) -> str:
        return self._name

    @classmethod
    def from_function(cls, function: Any, file: str) -> _Locator:
        return cls(function, file)


class _Store(caching.CompileResultCacheImpl):
    _locator_classes = [_Locator]  # noqa: RUF012


class _File(caching.IndexDataCacheFile):
    """Numba's, with a checksum behind the code, and nothing left behind by an interruption."""

    def _dump(self, value: Any) -> bytes:
        data: bytes = super()._dump(value)
        return data + _crc(data)

    def _load_data(self, name: str) -> Any:
        data = Path(self._data_path(name)).read_bytes()
        if _crc(data[:-4]) != data[-4:]:
            raise ValueError(f"{name}: damaged")
        return super()._load_data(name)

    @contextlib.contextmanager
    def _open_for_write(self, path: str) -> Iterator[Any]:
        with replaced(path) as temporary, open(temporary, "wb") as file:
            yield file


def _crc(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(4, "little")


class _FolderCache(caching.FunctionCache):
    _impl_class = _Store

    def __init__(self, function: Any, name: str | None) -> None:
        super().__init__(function)
        self._job = name

    def _index_key(self, signature: Any, target: Any) -> Any:
        """Numba's, or the name's where there is one. Each gets an index to itself: two processes
        that add to one at once, for other closures or another CPU, can give a key the other's
        code."""
        if self._job:
            key = signature, target.magic_tuple(), self._job
        else:
            key = super()._index_key(signature, target)
        name = f"{self._impl.filename_base}-{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}"
        stamp = self._impl.locator.get_source_stamp()
        self._cache_file = _File(self._cache_path, name, stamp)
        return key


class Cache(caching.NullCache):
    """A function's cache on disk, looked for when it is first needed and not at import.

    name, file: what tells functions of one factory apart, and where that is.
    """

    def __init__(self, function: Any, name: str | None = None, file: str = "") -> None:
        self._of = function, name and f"{name}{_stamp(file)}"

    @property
    def cache_path(self) -> str:
        return cache_folder()

    def load_overload(self, signature: Any, target: Any) -> Any:
        if not cache_folder():
            return None
        try:
            check(Path(cache_folder()))
        except OSError:  # no longer ours, or there
            return None
        files = _FolderCache(*self._of)
        try:
            return files.load_overload(signature, target)
        except Exception:  # a damaged file, of whatever kind, costs a compilation and is replaced
            with contextlib.suppress(OSError):
                files.flush()
            return None

    def save_overload(self, signature: Any, data: Any) -> None:
        if not cache_folder():
            tell_loss()
            return
        try:
            _FolderCache(*self._of).save_overload(signature, data)
        except OSError as error:  # a full disk only costs a compilation next time
            tell_loss(f"{cache_folder()}: {error.strerror or error}")
        else:
            tell_loss()
