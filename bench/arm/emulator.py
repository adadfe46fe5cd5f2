"""An ARM Python under qemu's user emulation, made from Debian's packages and wheels.

Nothing outside of one folder is touched: apt works in a state of its own, packages are unpacked and
not installed, wheels for ARM are put beside them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

#: qemu's models: one without the dot product, one with it, one with SVE, and all that qemu knows.
CPUS = ("cortex-a72", "neoverse-n1", "neoverse-v1", "max")
_KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
_SUITES = ("bookworm", "bookworm-backports")
_OURS = f"{_SUITES[0]} "
_PYTHON = "3.11"
#: What the interpreter and its wheels need.
_PACKAGES = (
    "libc6", "libgcc-s1", "libstdc++6", "zlib1g", "libexpat1", "libffi8", "libssl3",
    "libbz2-1.0", "liblzma5", "libsqlite3-0", "libuuid1", "libgomp1", "python3.11-minimal",
    "libpython3.11-minimal", "libpython3.11-stdlib",
)  # fmt: skip
_WHEELS = ("numba", "numpy", "llvmlite", "safetensors")
_PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")
_MINUTES = 10  # for any of the downloads
_PROJECT = Path(__file__).resolve().parents[2]


class Unavailable(RuntimeError):
    """What is missing to emulate ARM here, in one line."""


class Emulator:
    """The emulator in a folder, set up where it is not there yet; Unavailable if that fails."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._qemu = self._folder / "qemu" / "usr" / "bin" / "qemu-aarch64"
        self._root, self._wheels = self._folder / "root", self._folder / "wheels"
        done = self._folder / "done"
        if not done.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            self._unpack("arm64", "bookworm", _PACKAGES, self._root)
            # The emulator itself runs here; older ones hide what newer CPUs have.
            self._unpack("amd64", "bookworm-backports", ("qemu-user",), self._folder / "qemu")
            self._add_wheels()
            done.touch()

    def run(self, cpu: str, *arguments: str, **changes: str) -> subprocess.Popen[str]:
        """Start Python on a CPU of qemu's, with this checkout and a cache of its own.

        changes: of the environment.
        """
        environment = {
            "HOME": str(self._folder), "PATH": "/usr/bin", "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": os.pathsep.join(map(str, (self._wheels, _PROJECT))),
            "NUMBA_CACHE_DIR": str(self._folder / f"cache-{cpu}"),
            "OPENBLAS_NUM_THREADS": "1",  # whose threads would spin beside ours
            **changes,
        }  # fmt: skip
        python = self._root / "usr" / "bin" / f"python{_PYTHON}"
        return subprocess.Popen(
            [str(self._qemu), "-cpu", cpu, "-L", str(self._root), str(python), *arguments],
            env=environment, cwd=_PROJECT, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def _unpack(self, arch: str, suite: str, packages: tuple[str, ...], target: Path) -> None:
        state = self._folder / f"apt-{arch}"
        for name in ("lists/partial", "cache/archives/partial", "packages"):
            (state / name).mkdir(parents=True, exist_ok=True)
        (state / "status").touch()
        mirror = _mirror()
        lines = (f"deb [signed-by={_KEYS}] {mirror} {each} main\n" for each in _SUITES)
        (state / "sources.list").write_text("".join(lines), "utf-8")
        options = {
            "Dir::State": state, "Dir::State::Lists": state / "lists",
            "Dir::State::status": state / "status", "Dir::Cache": state / "cache",
            "Dir::Etc::sourcelist": state / "sources.list", "Dir::Etc::sourceparts": "-",
            "Dir::Etc::parts": "-", "APT::Architecture": arch, "APT::Architectures::": arch,
            "Acquire::Languages": "none",
        }  # fmt: skip
        apt = ["apt-get", "-qq", *(f"-o{key}={value}" for key, value in options.items())]
        _do([*apt, "update"], state)
        _do([*apt, "-t", suite, "download", *packages], state / "packages")
        for package in sorted((state / "packages").glob("*.deb")):
            _do(["dpkg", "-x", str(package), str(target)], state)

    def _add_wheels(self) -> None:
        platforms = (f"--platform={each}_aarch64" for each in _PLATFORMS)
        _do([
            sys.executable, "-m", "pip", "install", "-q", "--only-binary=:all:",
            "--implementation=cp", f"--python-version={_PYTHON}", *platforms,
            f"--target={self._wheels}", *_WHEELS,
        ], self._folder)  # fmt: skip


def _mirror() -> str:
    """Where this machine has its own packages from."""
    targets = _do(["apt-get", "indextargets", "--format", "$(RELEASE) $(REPO_URI)"], Path("/"))
    found = (line.split(" ", 1)[1] for line in targets.splitlines() if line.startswith(_OURS))
    mirror = next(found, "")
    if not mirror:
        raise Unavailable(f"apt has no {_SUITES[0]} among its sources, expected Debian 12")
    return mirror


def _do(command: list[str], folder: Path) -> str:
    """What a command prints; Unavailable, with its last word, if it fails."""
    try:
        found = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=60 * _MINUTES, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{command[0]}: {error}") from None
    if found.returncode:
        words = (found.stderr or found.stdout).strip().splitlines() or ["no output"]
        raise Unavailable(f"{command[0]} failed: {words[-1]}")
    return found.stdout
