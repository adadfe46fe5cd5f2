"""Writing files whole or not at all, at once or in steps that survive an interruption."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


@contextmanager
def replaced(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary path beside `path`, which becomes `path` if the block ends well.

    If it does not, an older file stays as it was and the temporary one is removed.
    """
    target = Path(path)
    handle, name = tempfile.mkstemp(prefix=target.name, suffix=".tmp", dir=target.parent)
    try:
        os.close(handle)
        yield Path(name)
        with open(name, "rb+") as file:
            os.fsync(file.fileno())
        # mkstemp's files are private; the result gets what open() would have given it.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, target)
    except BaseException:
        os.unlink(name)
        raise


class GrowingFile:
    """A file that grows step by step beside `path`, and becomes `path` when it is whole.

    The bytes lie in ``<path>.partial``, what is done in ``<path>.journal``. If the process ends
    before `commit`, a later one with the same `plan` (JSON) goes on behind the last finished step;
    with another plan it starts over. As a context manager it keeps both files when interrupted or
    when the system fails (OSError, MemoryError), and removes them after any other error.

    room: bytes left free at the beginning, for `commit` to fill.
    records: what `finish_step` was given so far. started_over: whether there was something else.
    """

    def __init__(self, path: Path, plan: Any, room: int) -> None:
        self._path = path
        self.partial = path.with_name(f"{path.name}.partial")
        self._journal_path = path.with_name(f"{path.name}.journal")
        handle = os.open(self.partial, os.O_RDWR | os.O_CREAT, 0o666)
        self._file = os.fdopen(handle, "rb+")
        self._lock()
        first = _line({"plan": plan})
        kept = _whole_lines(self._journal_path)
        self.started_over = bool(kept) and kept[0] != first
        done = _finished(kept[1:], self._file) if kept[:1] == [first] else []
        self.records = [each["record"] for each in done]
        self.size = done[-1]["size"] if done else room
        # Anything behind that belongs to a step that was not finished.
        self._file.truncate(self.size)
        self._file.seek(self.size)
        self._journal = open(self._journal_path, "ab")  # noqa: SIM115 (closed by __exit__)
        if self.started_over or not kept:
            self._journal.truncate(0)
            self._journal.write(first)
        else:
            self._journal.truncate(sum(map(len, kept[: 1 + len(done)])))
        _sync(self._journal)

    def __enter__(self) -> GrowingFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._file.close()
        self._journal.close()
        if kind and issubclass(kind, Exception) and not issubclass(kind, OSError | MemoryError):
            for path in (self.partial, self._journal_path):
                path.unlink(missing_ok=True)

    def append(self, data: Any) -> None:
        """Write a contiguous buffer behind what is there."""
        self._file.write(data)
        self.size += memoryview(data).nbytes

    def finish_step(self, record: Any) -> None:
        """Note (JSON) that all bytes so far are there to stay."""
        _sync(self._file)
        self._journal.write(_line({"record": record, "size": self.size}))
        _sync(self._journal)
        self.records.append(record)

    def commit(self, head: bytes) -> None:
        """Write `head` at the beginning; the file is whole."""
        self._file.seek(0)
        self._file.write(head)
        _sync(self._file)
        os.replace(self.partial, self._path)
        self._journal_path.unlink()

    def _lock(self) -> None:
        """Raise ValueError if another process writes the file."""
        import fcntl  # here, since nothing else of this package needs POSIX

        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # It may have become `path` since it was opened here.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(self._file.fileno()), os.stat(self.partial)):
                    return
        except BlockingIOError:
            pass
        self._file.close()
        raise ValueError(f"{str(self._path)!r} is being written by another process")


def _line(value: Any) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _whole_lines(path: Path) -> list[bytes]:
    """The lines of a file that end as lines do, if it is there."""
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return []
    return [line for line in lines if line.endswith(b"\n")]


def _finished(lines: list[bytes], file: Any) -> list[Any]:
    """The steps that lines of a journal tell of, as far as their bytes are in the file."""
    available, done = os.fstat(file.fileno()).st_size, []
    for line in lines:
        try:
            step = json.loads(line)
            if step["size"] > available:
                break
        except (ValueError, KeyError, TypeError):
            break
        done.append(step)
    return done


def _sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
