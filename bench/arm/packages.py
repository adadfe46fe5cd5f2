"""Debian's packages, unpacked into a folder and not installed.

apt works in a state of its own, so that nothing outside of the folder is touched.
"""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

RELEASE = "bookworm"
_KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
_TOOLS = Path(".arm")  # the emulator and llvm-mca
_MINUTES = 10  # for any of the downloads


class Unavailable(RuntimeError):
    """What is missing here, in one line."""


def tools() -> Path:
    """The folder for what runs here alone; Unavailable where that cannot."""
    if platform.machine() != "x86_64":
        raise Unavailable(f"this is {platform.machine()}, expected x86_64")
    return _TOOLS


def unpack(
    folder: Path, arch: str, packages: tuple[str, ...], target: Path, suite: str = RELEASE
) -> None:
    """Unpack packages of an architecture into `target`; Unavailable if that cannot be.

    folder: for apt's state. suite: where they are taken from if it has them, else from RELEASE.
    """
    state = folder / f"apt-{target.name}"
    for name in ("lists/partial", "cache/archives/partial", "packages"):
        (state / name).mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    lines = (
        f"deb [signed-by={_KEYS}] {_mirror(each)} {each} main\n"
        for each in sorted({RELEASE, suite})
    )
    (state / "sources.list").write_text("".join(lines), "utf-8")
    options = {
        "Dir::State": state, "Dir::State::Lists": state / "lists",
        "Dir::State::status": state / "status", "Dir::Cache": state / "cache",
        "Dir::Etc::sourcelist": state / "sources.list", "Dir::Etc::sourceparts": "-",
        "Dir::Etc::parts": "-", "APT::Architecture": arch, "APT::Architectures::": arch,
        "Acquire::Languages": "none",
    }  # fmt: skip
    apt = ["apt-get", "-qq", *(f"-o{key}={value}" for key, value in options.items())]
    do([*apt, "update"], state)
    do([*apt, "-t", suite, "download", *packages], state / "packages")
    for package in sorted((state / "packages").glob("*.deb")):
        do(["dpkg", "-x", str(package), str(target)], state)


def _mirror(suite: str) -> str:
    """Where this machine has its own packages from: those of a suite, or else of the release."""
    targets = do(["apt-get", "indextargets", "--format", "$(RELEASE) $(REPO_URI)"], Path("/"))
    found = dict(line.split(" ", 1) for line in targets.splitlines() if " " in line)
    mirror = found.get(suite) or found.get(RELEASE)
    if not mirror:
        raise Unavailable(f"apt has no {RELEASE} among its sources, expected Debian 12")
    return mirror


def do(command: list[str], folder: Path, text: str = "", **changes: str) -> str:
    """What a command prints that reads `text`; Unavailable, with its last word, if it fails.

    changes: of the environment.
    """
    try:
        found = subprocess.run(
            command, cwd=folder, input=text, capture_output=True, text=True, check=False,
            timeout=60 * _MINUTES, env={**os.environ, **changes},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{command[0]}: {error}") from None
    if found.returncode:
        words = (found.stderr or found.stdout).strip().splitlines() or ["no output"]
        raise Unavailable(f"{command[0]} failed: {words[-1]}")
    return found.stdout
