"""Starting ranks on this machine."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

from ternops.ranks import world


def mpiexec() -> str:
    """That of this Python's environment or of the system; OSError without one."""
    own = Path(sys.executable).with_name("mpiexec")
    found = str(own) if own.exists() else shutil.which("mpiexec")
    if found is None:
        raise OSError("mpiexec: not found, expected MPICH: pip install mpi4py mpich")
    return found


def check_ranks(ranks: int, threads: int) -> None:
    """Raises ValueError, OSError or ImportError where so many ranks cannot share out threads."""
    if world.size() > 1:
        raise ValueError(f"--ranks {ranks}: starts the ranks itself, expected no mpirun")
    if ranks < 2 or threads % ranks:
        raise ValueError(
            f"--ranks {ranks}: expected 2 or more that share out {threads} threads (--threads)"
        )
    if importlib.util.find_spec("mpi4py") is None:
        raise ImportError(
            f"--ranks {ranks}: mpi4py is not installed: pip install 'ternops[mpi]' mpich"
        )
    mpiexec()
