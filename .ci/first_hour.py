"""Time what somebody does first who has nothing: a fresh environment, an empty home, no clone.

python .ci/first_hour.py WHEEL

Each goal takes two commands: an installation, and one that reaches it. Prints a table; the exit
code is 1, after the output of a command, where one fails or does not do what it is to do.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

_PRODUCT = (
    "import numpy as np, ternops; W = ternops.quantize(np.random.randn(4096, 4096)); "
    "print((np.random.randn(8, 4096).astype(np.float32) @ W.T).shape)"
)
_SECONDS = 600


class Goal(NamedTuple):
    """extra: of the wheel. command: after the environment's python. shows: what it prints."""

    name: str
    extra: str
    command: str
    shows: str
    file: str = ""


GOALS = (
    Goal("product", "", f"-c {shlex.quote(_PRODUCT)}", "(8, 4096)"),
    Goal("text", "[llm]", '-m ternops generate --prompt "def "', "def "),
    Goal("plot", "[cost]", "-m ternops predict --model 2B4T --hardware m2-ultra --plot parts.png",
         "tokens/s", "parts.png"),
    Goal("server", "[serve]", "-m ternops serve --port 0", "/v1 OpenAI's API"),
)  # fmt: skip


class Newcomer:
    """An environment of its own in an empty folder, which is the home as well."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # How this machine reaches an index of packages is no secret to a newcomer.
        kept = {
            name: value for name, value in os.environ.items()
            if name.startswith(("PIP_", "SSL_", "REQUESTS_")) or name.endswith("_proxy")
        }  # fmt: skip
        self.environment = {**kept, "PATH": os.defpath, "HOME": str(folder), "COLUMNS": "100"}
        subprocess.run([sys.executable, "-m", "venv", str(folder / "env")], check=True)
        self.python = str(folder / "env" / "bin" / "python")

    def run(self, *words: str) -> tuple[float, str]:
        """Seconds and output of a command of its Python; SystemExit with the output if it fails."""
        start = time.perf_counter()
        done = subprocess.run(
            [self.python, *words], env=self.environment, cwd=self.folder, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=_SECONDS, check=False,
        )  # fmt: skip
        seconds = time.perf_counter() - start
        if done.returncode:
            raise SystemExit(f"{shlex.join(words)} ended with {done.returncode}:\n{done.stdout}")
        return seconds, done.stdout

    def serve(self, *words: str) -> tuple[float, str]:
        """Seconds until a server has answered a request, and its output until then."""
        start = time.perf_counter()
        with subprocess.Popen(
            [self.python, *words], env=self.environment, cwd=self.folder, text=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        ) as process:  # fmt: skip
            try:
                said = ""
                for line in process.stderr or ():
                    said += line
                    if found := re.search(r"(http\S+/v1) ", line):
                        return self._ask(f"{found[1]}/completions") - start, said
                raise SystemExit(f"{shlex.join(words)} ended:\n{said}")
            finally:
                process.terminate()

    @staticmethod
    def _ask(url: str) -> float:
        request = urllib.request.Request(
            url, b'{"prompt": "def ", "max_tokens": 4}', {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=_SECONDS) as answer:
            assert answer.status == 200
        return time.perf_counter()


def main(wheel: Path) -> int:
    """Reach every goal, one after another in one environment; print the table."""
    print(f"{wheel.name}, Python {sys.version.split()[0]}, {os.cpu_count()} CPUs\n")
    print("| first | installation | s | command | s |\n| --- | --- | ---: | --- | ---: |")
    with tempfile.TemporaryDirectory(prefix="first-hour-") as name:
        newcomer = Newcomer(Path(name))
        for goal in GOALS:
            installing, _ = newcomer.run("-m", "pip", "install", "-q", f"{wheel}{goal.extra}")
            act: Callable[..., tuple[float, str]] = newcomer.run
            if goal.name == "server":
                act = newcomer.serve
            seconds, said = act(*shlex.split(goal.command))
            if goal.shows not in said:
                raise SystemExit(f"{goal.command}: expected {goal.shows!r} in\n{said}")
            if goal.file and not (Path(name) / goal.file).stat().st_size:
                raise SystemExit(f"{goal.command}: {goal.file} is empty")
            command = f"`python {goal.command}`" if goal.name != "product" else "`x @ W.T`"
            print(
                f"| {goal.name} | `pip install 'ternops{goal.extra}'` | {installing:.1f} "
                f"| {command} | {seconds:.1f} |", flush=True,
            )  # fmt: skip
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2 or not sys.argv[1].endswith(".whl"):
        raise SystemExit("usage: python .ci/first_hour.py WHEEL")
    raise SystemExit(main(Path(sys.argv[1]).resolve()))
