"""An ARM Python under qemu's user emulation, made from Debian's packages and wheels.

Nothing outside of one folder is touched: packages are unpacked and not installed, wheels for ARM
are put beside them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.arm.packages import RELEASE, do, unpack

#: qemu's models: one without the dot product, one with it, one with SVE, and all that qemu knows.
CPUS = ("cortex-a72", "neoverse-n1", "neoverse-v1", "max")
_PYTHON = "3.11"
#: What the interpreter and its wheels need.
_PACKAGES = (
    "libc6", "libgcc-s1", "libstdc++6", "zlib1g", "libexpat1", "libffi8", "libssl3",
    "libbz2-1.0", "liblzma5", "libsqlite3-0", "libuuid1", "libgomp1", "python3.11-minimal",
    "libpython3.11-minimal", "libpython3.11-stdlib",
)  # fmt: skip
_WHEELS = ("numba", "numpy", "llvmlite", "safetensors")
_PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")
_PROJECT = Path(__file__).resolve().parents[2]


class Emulator:
    """The emulator in a folder, set up where it is not there yet; Unavailable if that fails."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._qemu = self._folder / "qemu" / "usr" / "bin" / "qemu-aarch64"
        self._root, self._wheels = self._folder / "root", self._folder / "wheels"
        done = self._folder / "done"
        if not done.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            unpack(self._folder, "arm64", _PACKAGES, self._root)
            # The emulator itself runs here; older ones hide what newer CPUs have.
            qemu = self._folder / "qemu"
            unpack(self._folder, "amd64", ("qemu-user",), qemu, f"{RELEASE}-backports")
            self._add_wheels()
            done.touch()

    @property
    def version(self) -> str:
        """Of qemu."""
        return do([str(self._qemu), "--version"], self._folder).split()[2]

    def run(
        self, cpu: str, *arguments: str, wrapper: Sequence[str] = (), options: Sequence[str] = (),
        first: str = "", **changes: str,
    ) -> subprocess.Popen[str]:  # fmt: skip
        """Start Python on a CPU of qemu's, with this checkout and a cache of its own.

        wrapper: a command that starts qemu. options: of qemu. first: a folder whose packages come
        before the checkout's. changes: of the environment.
        """
        environment = {
            "HOME": str(self._folder), "PATH": "/usr/bin", "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, (first, str(self._wheels), str(_PROJECT)))),
            "PYTHONSAFEPATH": "1",  # no folder of its own in front of these
            "NUMBA_CACHE_DIR": str(self._folder / f"cache-{cpu}"),
            "OPENBLAS_NUM_THREADS": "1",  # whose threads would spin beside ours
            **changes,
        }  # fmt: skip
        python = self._root / "usr" / "bin" / f"python{_PYTHON}"
        return subprocess.Popen(
            [*wrapper, str(self._qemu), *options, "-cpu", cpu, "-L", str(self._root), str(python),
             *arguments],
            env=environment, cwd=_PROJECT, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def _add_wheels(self) -> None:
        platforms = (f"--platform={each}_aarch64" for each in _PLATFORMS)
        do([
            sys.executable, "-m", "pip", "install", "-q", "--only-binary=:all:",
            "--implementation=cp", f"--python-version={_PYTHON}", *platforms,
            f"--target={self._wheels}", *_WHEELS,
        ], self._folder)  # fmt: skip
