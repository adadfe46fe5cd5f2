"""What programs print when they are asked for help, each run by a process of its own.

python -m tests.programs.usages FOLDER MODULE ...

A file a module is written to the folder; prints the names of those that do not end with success.
The processes are forks of this one, which has imported what most of them need of other packages:
importing that anew takes a second of each.
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

import jinja2  # noqa: F401
import matplotlib.figure  # noqa: F401
import numba  # noqa: F401
import numpy  # noqa: F401
import psutil  # noqa: F401
import pyperf  # noqa: F401
import rich.console  # noqa: F401

import ternops.cost.predict  # noqa: F401


def ask(module: str, answer: Path) -> None:
    """Run `python -m MODULE --help` in this process, and end it."""
    with answer.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        sys.argv[1:] = ["--help"]
        runpy.run_module(module, run_name="__main__", alter_sys=True)


def main(folder: Path, *modules: str) -> None:
    """One after another."""
    for module in modules:
        child = os.fork()
        if not child:
            ask(module, folder / module)
            sys.exit()
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
            print(module)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
