"""Servers in processes of their own, on free ports of the loopback."""

from __future__ import annotations

import importlib.util
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from bench.core.process import WorkerError

#: Seconds that a server may take to load its model and to end.
_START, _END = 600, 60
_PAUSE = 0.1


@dataclass(frozen=True)
class Served:
    """A server that runs. memory is asked of its process."""

    url: str
    process: subprocess.Popen[bytes]

    @property
    def memory(self) -> int:
        """Bytes that are its own: files that it maps are not."""
        found = psutil.Process(self.process.pid).memory_info()
        return int(found.rss - found.shared)


@contextmanager
def ours(model: Path, threads: int, parallel: int, *arguments: str) -> Iterator[Served]:
    """``python -m ternops serve``."""
    command = [
        sys.executable, "-m", "ternops", "serve", "--model", str(model), "--name", "model",
        "--threads", str(threads), "--parallel", str(parallel), *arguments, "--port",
    ]  # fmt: skip
    with _running(command, "/health") as found:
        yield found


@contextmanager
def llama(model: Path, threads: int, parallel: int) -> Iterator[Served]:
    """llama-server, or llama-cpp-python's server; ImportError if there is neither."""
    if binary := shutil.which("llama-server"):
        command = [
            binary, "-m", str(model), "-t", str(threads), "-np", str(parallel), "-c", "4096",
            "--port",
        ]  # fmt: skip
    elif importlib.util.find_spec("llama_cpp") and importlib.util.find_spec("fastapi"):
        command = [
            sys.executable, "-m", "llama_cpp.server", "--model", str(model), "--n_threads",
            str(threads), "--n_ctx", "2048", "--interrupt_requests", "false", "--port",
        ]  # fmt: skip
    else:
        raise ImportError("neither llama-server nor the server of llama-cpp-python is installed")
    with _running(command, "/v1/models") as found:
        yield found


@contextmanager
def _running(command: Sequence[str], path: str) -> Iterator[Served]:
    """A process that answers under `path`; WorkerError, with its last words, if it never does."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryFile() as words:
        process = subprocess.Popen([*command, str(port)], stdout=words, stderr=words)
        try:
            _wait(process, url + path)
            yield Served(url, process)
        except WorkerError:
            words.seek(0)
            said = words.read().decode(errors="replace").strip().splitlines()
            raise WorkerError(said[-1] if said else f"{command[0]}: no word") from None
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_END)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(process: subprocess.Popen[bytes], url: str) -> None:
    end = time.monotonic() + _START
    while time.monotonic() < end and process.poll() is None:
        try:
            if httpx.get(url).is_success:
                return
        except httpx.HTTPError:
            pass
        time.sleep(_PAUSE)
    raise WorkerError("it does not answer")
