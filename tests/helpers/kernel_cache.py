"""What a process of its own compiles, and what it reads from the cache of compiled kernels."""

from __future__ import annotations

import subprocess
from typing import Any

from tests.helpers import processes

#: Steps of tests/programs/kernel_cache.py: what is compiled in no time, another such, a product.
ONE, ANOTHER, PRODUCT = "read", "again", "two_bit/one"

#: What each leads to where it had to be compiled, and what any step does where all was there.
COMPILED = ["_launch", "_work", "read_1"]
COMPILED_OF_PRODUCT = ["_launch", "_work", "gemv_two_bit", "linear", "pack", "place_tokens"]
READ: list[str] = []


def start(*arguments: str, **environment: Any) -> subprocess.CompletedProcess[str]:
    """Run tests.programs.kernel_cache, which must end with success."""
    # -P: the ternops that PYTHONPATH names first, not that of the current folder.
    done = processes.python("-P", "-m", "tests.programs.kernel_cache", *arguments, **environment)
    assert done.returncode == 0, done.stderr
    return done


def run(folder: object, *arguments: str, **environment: Any) -> tuple[list[str], str]:
    """Do steps (default: ONE) with that cache: the jobs compiled, and the folder.

    arguments: as tests.programs.kernel_cache takes them.
    """
    done = start(*(arguments or (ONE,)), **{"NUMBA_CACHE_DIR": str(folder), **environment})
    compiled, used = done.stdout.splitlines()
    return compiled.split(), used
