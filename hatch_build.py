"""Puts compiled kernels into wheels; hatchling runs it.

TERNOPS_BUILD says of which tiers: "all" of the architecture, "here" for this machine's alone, or
"none". Unless it is set, who asks decides: an installer for this machine, anyone else for all.
TERNOPS_BUILD_ARCH=aarch64 (or x86_64) makes the wheel of another architecture.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

#: What the kernels need of the C library, glibc has had since 2.17.
_GLIBC = "manylinux_2_17"


class CompiledKernels(BuildHookInterface[Any]):
    """Compiles kernels before a wheel is made, and adds them to it."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile; without kernels the wheel is one for every platform."""
        if version == "editable":
            self.app.display_info("compile kernels ahead by `python -m ternops warmup`")
            return
        here = {"AMD64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())
        machine = os.environ.get("TERNOPS_BUILD_ARCH") or here
        tiers = os.environ.get("TERNOPS_BUILD") or ("here" if _is_install() else "all")
        if machine != here and tiers == "here":
            tiers = "all"
        if tiers == "none":
            return
        self._folder = tempfile.TemporaryDirectory(prefix="ternops-build-")
        folder = Path(self._folder.name)
        # An isolated build finds its packages by this variable, too.
        path = os.pathsep.join(filter(None, (self.root, os.environ.get("PYTHONPATH"))))
        # A pipe that nothing is written to: it closes when this process ends, however it does.
        with subprocess.Popen(
            [sys.executable, "-P", "-m", "ternops.ahead.carried", str(folder),
             "--machine", machine, "--tiers", tiers, "--attended"],
            env={**os.environ, "PYTHONPATH": path}, cwd=self.root, stdin=subprocess.PIPE,
        ) as running:  # fmt: skip
            code = running.wait()
        files = sorted(folder.glob("*.kernels"))
        if code or not files:
            self.app.display_warning(
                "no kernels could be compiled here: they will be when they are first used"
            )
            return
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{_platform(machine, here)}"
        for file in files:
            build_data["force_include"][str(file)] = f"ternops/compiled/{file.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was compiled."""
        if folder := getattr(self, "_folder", None):
            folder.cleanup()


def _is_install() -> bool:
    """Whether the program that asks for the wheel is an installer: `pip install`, `uv sync`."""
    try:
        words = Path(f"/proc/{os.getppid()}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return bool({b"install", b"sync"} & set(words))


def _platform(machine: str, here: str) -> str:
    if machine != here or (sys.platform == "linux" and platform.libc_ver()[0] == "glibc"):
        return f"{_GLIBC}_{machine}"
    return sysconfig.get_platform().replace("-", "_").replace(".", "_")
