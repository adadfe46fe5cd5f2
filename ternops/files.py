"""Writing files whole or not at all, at once or in steps that survive an interruption."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

#: The most links from one to the next that Linux follows.
_MAX_LINKS = 40
#: Characters of a file's name that its temporary file's begins with; the limit is 255 bytes.
_PREFIX = 40
#: What flock says of a file system that has no locks.
_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK)


@contextmanager
def replaced(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary path beside `path`, which becomes `path` if the block ends well.

    If it does not, an older file stays as it was and the temporary one is removed. A new file has
    the permissions of the one that it replaces. Only a regular file is ever replaced: a symbolic
    link stays, and what it points to is written; a pipe or a character device gets the bytes.
    Raises OSError for a folder, a socket, a block device and what cannot be written.
    """
    target = behind_links(path)
    if is_node(target):
        with _opened(target) as sink, tempfile.TemporaryDirectory(prefix="ternops-") as folder:
            yield (temporary := Path(folder, target.name))
            with open(temporary, "rb") as file:
                try:
                    shutil.copyfileobj(file, sink)
                    sink.flush()
                except BrokenPipeError:
                    raise OSError(f"{str(path)!r} was closed by its reader") from None
        return
    with _beside(target) as temporary:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise OSError if `replaced` could not write there."""
    target = behind_links(path)
    if not is_node(target):
        with _beside(target) as temporary:
            os.unlink(temporary)
    elif not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


def behind_links(path: str | os.PathLike[str]) -> Path:
    """What is to be written under a name: itself, or what symbolic links lead to, there or not."""
    target = Path(path)
    if not os.fspath(path):  # Path("") is the current folder
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "")
    for _ in range(_MAX_LINKS):
        if _descriptor(target) is not None or not target.is_symlink():
            return target
        target = target.parent / os.readlink(target)
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))


def is_node(target: Path) -> bool:
    """Whether bytes go into what is there, a pipe or a character device, and replace no file.

    Raises OSError for what is there and can be neither written nor replaced.
    """
    try:
        mode = os.stat(target).st_mode
    except FileNotFoundError:
        return False
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    if stat.S_ISSOCK(mode) or stat.S_ISBLK(mode):
        kind = "socket" if stat.S_ISSOCK(mode) else "block device"
        raise OSError(f"{str(target)!r} is a {kind}, expected the name of a file")
    return not stat.S_ISREG(mode) or _descriptor(target) is not None


def _descriptor(path: Path) -> int | None:
    """The open file of this process that a name such as /dev/stdout ends at; None for others.

    Its name leads on to a file that may be gone, or be written to by others at this very place.
    """
    if path.name.isdecimal() and os.path.realpath(path.parent) == f"/proc/{os.getpid()}/fd":
        return int(path.name)
    return None


def _opened(target: Path) -> Any:
    """A pipe or a device, or an open file once more, to write to."""
    if (number := _descriptor(target)) is not None:
        return os.fdopen(os.dup(number), "wb")
    try:
        # A pipe that nobody reads would be waited for.
        handle = os.open(target, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        if error.errno == errno.ENXIO and target.is_fifo():
            raise OSError(f"{str(target)!r} has no reader") from None
        raise
    os.set_blocking(handle, True)
    return os.fdopen(handle, "wb")


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A new file in the folder of another, with its permissions; removed if the block fails."""
    name = None
    try:
        try:
            prefix = f"{target.name[:_PREFIX]}."
            handle, name = tempfile.mkstemp(prefix=prefix, suffix=".tmp", dir=target.parent)
            os.close(handle)
            # That one is private. This gets what open() gives, without asking for the umask,
            # which threads share.
            os.unlink(name)
            os.close(os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666))
        except OSError as error:
            error.filename = str(target)
            if isinstance(error, PermissionError):
                error.strerror = f"{error.strerror} in its folder, where the new file is written"
            raise
        temporary = Path(name)
        _keep_permissions(target, temporary)
        yield temporary
    except BaseException:
        if name:
            with suppress(FileNotFoundError):
                os.unlink(name)
        raise


def _keep_permissions(old: Path, new: Path) -> None:
    """Those of a file that is replaced, if it is there; its owner and group, too, where we may."""
    with suppress(FileNotFoundError):
        found, made = os.stat(old), os.stat(new)
        if (found.st_uid, found.st_gid) != (made.st_uid, made.st_gid):
            with suppress(OSError):
                os.chown(new, found.st_uid, found.st_gid)
        os.chmod(new, stat.S_IMODE(found.st_mode))


class GrowingFile:
    """A file that grows step by step beside `path`, and becomes `path` when it is whole.

    The bytes lie in ``<path>.partial``, what is done in ``<path>.journal``. If the process ends
    before `commit`, a later one with the same `plan` (JSON) goes on behind the last finished step;
    with another plan it starts over. As a context manager it keeps both files when interrupted or
    when the system fails (OSError, MemoryError), and removes them after any other error.

    room: bytes left free at the beginning, for `commit` to fill.
    path: of a regular file, there or not; behind symbolic links, which stay.
    records: what `finish_step` was given so far. started_over: whether there was something else.
    """

    def __init__(self, path: Path, plan: Any, room: int) -> None:
        self._path = path = behind_links(path)
        self.partial = path.with_name(f"{path.name}.partial")
        self._journal_path = path.with_name(f"{path.name}.journal")
        handle = os.open(self.partial, os.O_RDWR | os.O_CREAT, 0o666)
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise ValueError(f"{str(self.partial)!r} is in the way, expected a regular file")
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
        _keep_permissions(self._path, self.partial)
        os.replace(self.partial, self._path)
        self._journal_path.unlink()

    def _lock(self) -> None:
        """Raise ValueError if another process writes the file."""
        import fcntl  # here, since nothing else of this package needs POSIX

        try:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                line = f"{str(self.partial)!r} cannot be locked: let no other process write it"
                warnings.warn(line, RuntimeWarning, stacklevel=4)
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
