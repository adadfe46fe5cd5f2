"""What stands at a target's name: regular files alone are replaced, all else stays what it is."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import stat
import subprocess
import sys
import tempfile
import threading

import numpy as np
import pytest

import ternops
from ternops import files
from ternops.__main__ import main
from ternops.decoder.formats import convert
from ternops.decoder.formats.loading import TINY
from ternops.files import GrowingFile, replaced
from tests.helpers import cases, checkpoints, processes

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="nodes of POSIX")


@pytest.fixture
def matrix():
    """A small matrix."""
    return ternops.pack(cases.trits(3, 9))


def holds(path, matrix):
    """Whether a file, or bytes, are a matrix: safetensors orders its metadata by chance."""
    if isinstance(path, bytes):
        with tempfile.NamedTemporaryFile() as file:
            file.write(path)
            file.flush()
            return holds(file.name, matrix)
    return np.array_equal(ternops.load(path).to_trits(), matrix.to_trits())


@pytest.fixture
def pipe(tmp_path):
    """A named pipe in a folder of its own."""
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


@contextlib.contextmanager
def reading(path):
    """What is read from a pipe meanwhile, as a list of one."""
    found, handle = [], os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    def read():
        poll, parts = select.poll(), []
        poll.register(handle, select.POLLIN | select.POLLHUP)  # the latter once a writer has left
        while poll.poll()[0][1] & select.POLLIN:
            parts.append(os.read(handle, 1 << 16))
        found.append(b"".join(parts))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    yield found
    thread.join(60)
    os.close(handle)
    assert found


def test_a_pipe_gets_the_bytes(matrix, pipe):
    """And stays a pipe; nothing else is left."""
    with reading(pipe) as found:
        matrix.save(pipe)
    assert holds(found[0], matrix)
    assert stat.S_ISFIFO(os.lstat(pipe).st_mode)
    assert os.listdir(pipe.parent) == ["pipe"]


def test_a_pipe_that_nobody_reads(matrix, pipe):
    """Is not waited for."""
    with pytest.raises(OSError, match=r"pipe' has no reader$"):
        matrix.save(pipe)
    assert stat.S_ISFIFO(os.lstat(pipe).st_mode)


def test_a_reader_that_goes_away(pipe):
    """Named in one line, which is not stdout's."""
    handle = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with contextlib.ExitStack() as stack:
        stack.enter_context(pytest.raises(OSError, match=r"pipe' was closed by its reader$"))
        stack.enter_context(replaced(pipe)).write_bytes(bytes(1 << 20))
        os.close(handle)
    assert os.listdir(pipe.parent) == ["pipe"]


def test_a_failed_block_writes_nothing_to_a_pipe(pipe):
    """All of it or nothing, as ever."""
    with reading(pipe) as found, contextlib.suppress(KeyError), replaced(pipe) as path:
        path.write_bytes(b"half")
        raise KeyError
    assert found == [b""]


def test_a_device_stays(matrix, tmp_path):
    """One that takes all, as /dev/null does, made for this test."""
    node = tmp_path / "null"
    try:
        os.mknod(node, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        node.write_bytes(b"")
    except OSError as error:
        pytest.skip(f"no device can be made here: {error}")
    matrix.save(node)
    assert main(["quantize", str(TINY), str(node)]) == 0
    assert stat.S_ISCHR(os.lstat(node).st_mode)
    assert os.listdir(tmp_path) == ["null"]


def test_what_can_be_neither_written_nor_replaced(matrix, tmp_path):
    """A folder, a socket, a name of nothing, a loop of links: an OSError, and they stay."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "to folder").symlink_to("folder")
    (tmp_path / "loop").symlink_to("loop")
    with socket.socket(socket.AF_UNIX) as server, contextlib.chdir(tmp_path):
        server.bind("socket")
        before = sorted(os.listdir())
        for name, words in {
            "folder": "Is a directory: 'folder'", "to folder": "Is a directory", "loop": "symbolic",
            "socket": "'socket' is a socket, expected the name of a file", "": "No such file",
            "none/x": "No such file or directory: 'none/x'",
        }.items():  # fmt: skip
            with pytest.raises(OSError, match=words):
                matrix.save(name)
        assert sorted(os.listdir()) == before


@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays(matrix, tmp_path, there):
    """What it leads to, over another link and from another folder, is written, there or not."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a/link").symlink_to("../b/second")
    (tmp_path / "b/second").symlink_to("real")
    if there:
        (tmp_path / "b/real").write_bytes(b"old")
    matrix.save(tmp_path / "a/link")
    assert os.readlink(tmp_path / "a/link") == "../b/second"
    assert os.readlink(tmp_path / "b/second") == "real"
    assert not (tmp_path / "b/real").is_symlink()
    assert holds(tmp_path / "b/real", matrix)
    assert sorted(os.listdir(tmp_path / "b")) == ["real", "second"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux's /proc")
def test_stdout_by_name(matrix, tmp_path):
    """Bytes go where stdout is, after what is there, into a pipe and into a file.

    Its name is a link made for this test, as /dev/stdout is one: a fault here may replace it.
    """
    (tmp_path / "stdout").symlink_to("/proc/self/fd/1")
    code = (
        "import os, sys, ternops; from tests.helpers import cases; os.write(1, b'before')\n"
        "ternops.pack(cases.trits(3, 9)).save(sys.argv[1]); os.write(1, b'behind')"
    )
    run = [sys.executable, "-c", code, str(tmp_path / "stdout")]
    setting = {"env": processes.environment(), "cwd": processes.ROOT, "check": True}
    found = subprocess.run(run, stdout=subprocess.PIPE, **setting).stdout
    assert holds(found.removeprefix(b"before").removesuffix(b"behind"), matrix)
    with open(tmp_path / "out", "wb") as file:
        inode = os.fstat(file.fileno()).st_ino
        subprocess.run(run, stdout=file, **setting)
    found = (tmp_path / "out").read_bytes()
    assert holds(found.removeprefix(b"before").removesuffix(b"behind"), matrix)
    assert os.stat(tmp_path / "out").st_ino == inode
    assert os.readlink(tmp_path / "stdout") == "/proc/self/fd/1"


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444])
def test_a_new_file_has_the_permissions_of_the_old_one(matrix, tmp_path, mode):
    """From its beginning, so that nobody reads what is private meanwhile."""
    path = tmp_path / "x"
    path.write_bytes(b"")
    path.chmod(mode)
    with replaced(path) as temporary:
        assert stat.S_IMODE(temporary.stat().st_mode) == mode
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_device_that_is_not_there(matrix, tmp_path):
    """The system's words: nobody is missing at its other end."""
    try:
        os.mknod(tmp_path / "x", stat.S_IFCHR | 0o666, os.makedev(240, 99))
    except (AttributeError, OSError) as error:
        pytest.skip(f"no node can be made here: {error}")
    with pytest.raises(OSError, match="No such device or address"):
        matrix.save(tmp_path / "x")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may")
def test_a_new_file_has_the_owner_of_the_old_one(matrix, tmp_path):
    """Who owned it can still write it when root has replaced it, packed or in steps."""
    path = tmp_path / "x"
    path.write_bytes(b"")
    os.chown(path, 12345, 23456)
    path.chmod(0o640)
    matrix.save(path)
    with GrowingFile(path, None, 0) as file:
        file.commit(b"x")
    found = path.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (12345, 23456, 0o640)


def test_the_umask_is_left_alone(matrix, tmp_path, monkeypatch):
    """It is the whole process's: another thread would make files that all may write."""
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("umask"))
    matrix.save(tmp_path / "x")


@pytest.mark.parametrize("letter", ["x", "\u00e4"])
def test_the_longest_name(matrix, tmp_path, letter):
    """A temporary file next to it has a shorter one."""
    path = tmp_path / (letter * (255 // len(letter.encode())))
    matrix.save(path)
    assert holds(path, matrix)


def test_a_folder_that_may_not_be_written_to(tmp_path):
    """Though the file in it may: the line names both."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "x").write_bytes(b"old")
    (folder / "x").chmod(0o666)
    for each in (folder, *folder.parents[:4]):
        with contextlib.suppress(PermissionError):
            each.chmod(0o555 if each == folder else 0o755)
    done = processes.program("save_as_nobody", str(folder / "x"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == (
        f"[Errno 13] Permission denied in its folder, where the new file is written: "
        f"'{folder / 'x'}'"
    )
    assert (folder / "x").read_bytes() == b"old"
    folder.chmod(0o755)


# quantize


@pytest.fixture
def source(tmp_path_factory):
    """A small model."""
    return checkpoints.write(tmp_path_factory.mktemp("source") / "x")


@pytest.fixture
def whole(source, tmp_path_factory):
    """What quantize makes of it."""
    path = tmp_path_factory.mktemp("whole") / "x"
    convert.convert(source, path)
    return path.read_bytes()


def test_quantize_to_a_pipe(source, whole, pipe, capfd):
    """All at once, from a temporary file; stdout is left to the bytes."""
    with reading(pipe) as found:
        assert main(["quantize", str(source), str(pipe)]) == 0
    assert found == [whole]
    assert stat.S_ISFIFO(os.lstat(pipe).st_mode)
    assert capfd.readouterr().out == ""
    assert main(["quantize", str(source), str(pipe)]) == 2
    assert capfd.readouterr().err.endswith(f"ternops: error: '{pipe}' has no reader\n")
    assert os.listdir(pipe.parent) == ["pipe"]


def test_quantize_through_a_link(source, whole, tmp_path):
    """It stays, and the file that it points to keeps its permissions."""
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "real").write_bytes(b"")
    (tmp_path / "real").chmod(0o640)
    assert main(["quantize", str(source), str(tmp_path / "link")]) == 0
    assert os.readlink(tmp_path / "link") == "real"
    assert (tmp_path / "real").read_bytes() == whole
    assert stat.S_IMODE((tmp_path / "real").stat().st_mode) == 0o640
    assert sorted(os.listdir(tmp_path)) == ["link", "real"]


def test_a_pipe_in_the_source_folder_is_not_read(source, whole, tmp_path):
    """As the target: nobody would ever answer."""
    os.mkfifo(source / "pipe")
    with pytest.raises(OSError, match="has no reader"):
        convert.convert(source, source / "pipe")


@pytest.mark.parametrize("number", ["ENOSYS", "EOPNOTSUPP", "ENOLCK"])
def test_a_file_system_without_locks(source, whole, tmp_path, monkeypatch, number):
    """One line, and the same file."""

    def flock(file, how):
        raise OSError(getattr(errno, number), "no locks")

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.warns(RuntimeWarning, match=r"x\.partial' cannot be locked") as caught:
        convert.convert(source, tmp_path / "x")
    assert len(caught) == 1
    assert (tmp_path / "x").read_bytes() == whole


def test_a_pipe_in_the_way_of_the_partial_file(tmp_path):
    """Is named, and stays."""
    os.mkfifo(tmp_path / "x.partial")
    with pytest.raises(ValueError, match=r"x\.partial' is in the way, expected a regular file$"):
        GrowingFile(tmp_path / "x", {}, 0)
    assert os.listdir(tmp_path) == ["x.partial"]


# commands that draw and measure


def test_a_target_is_tried_without_a_trace(pipe, tmp_path):
    """Neither in a folder nor in a pipe, whose reader would see an end."""
    with reading(pipe) as found:
        files.check_writable(pipe)
        files.check_writable(tmp_path / ("x" * 255))
        with open(pipe, "wb") as file:
            file.write(b"all")
    assert found == [b"all"]
    assert os.listdir(tmp_path) == ["pipe"]
    with pytest.raises(OSError, match="No such file"):
        files.check_writable(tmp_path / "none" / "x")


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_a_plot_through_a_link(tmp_path, kind):
    """`predict --plot` with a link stays one."""
    pytest.importorskip("matplotlib")
    pytest.importorskip("rich")
    link = tmp_path / f"link.{kind}"
    link.symlink_to("real")
    options = ["--model", "700M", "--hardware", "m2-ultra", "--plot", str(link)]
    assert main(["predict", *options]) == 0
    assert link.is_symlink()
    assert (tmp_path / "real").stat().st_size > 1000
