"""Writers that are cut off at every byte: the old file or the new one, never a third.

Each cut is a process that is killed as soon as any file of it would grow beyond N bytes. It leaves
what had been written by then in the page cache; that a power cut leaves no less where it counts is
the other half: whatever takes the place of a file has been synced when it does, whole.
"""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

#: Changes a folder; its file is what a reader looks at.
Writer = Callable[[Path], None]


def cut(write: Writer, path: Path, most: int) -> bool:
    """Write in a process of its own in which no file grows beyond `most` bytes; whether it came to
    its end."""
    child = os.fork()
    if not child:
        code = 1
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
            write(path)
            code = 0
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGXFSZ), f"ended with {status} at {most} bytes"
    return status == 0


def states(write: Writer, path: Path, step: int = 1) -> Iterator[tuple[int, bytes | None]]:
    """(bytes, the file then) of each cut, up to the one that is none; the folder keeps what each
    has left behind."""
    most = 0
    while True:
        done = cut(write, path, most)
        yield most, path.read_bytes() if path.exists() else None
        if done:
            return
        most += step


@contextmanager
def only_synced_files_replace() -> Iterator[list[str]]:
    """While this lasts, a file that takes another one's name must have been synced with the bytes
    that it has; gives the names of those that did."""
    synced: dict[tuple[int, int], int] = {}
    names: list[str] = []
    sync, replace = os.fsync, os.replace

    def fsync(file: object) -> None:
        sync(file)  # type: ignore[arg-type]
        number = file if isinstance(file, int) else file.fileno()  # type: ignore[attr-defined]
        found = os.fstat(number)
        synced[found.st_dev, found.st_ino] = found.st_mtime_ns

    def replaced(source: str, target: str) -> None:
        found = os.stat(source)
        when = synced.get((found.st_dev, found.st_ino))
        assert when == found.st_mtime_ns, f"{source} was written to after it was synced"
        names.append(str(target))
        replace(source, target)

    with mock.patch.object(os, "fsync", fsync), mock.patch.object(os, "replace", replaced):
        yield names


def others(folder: Path, known: Mapping[str, bytes] | set[str]) -> set[str]:
    """Names in a folder beside those that are known."""
    return {each.name for each in folder.iterdir()} - set(known)
