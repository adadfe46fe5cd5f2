"""No fork in the middle of compiling or loading, or of an import for that: the child would wait for
the locks, Python's for a module among them, for ever."""

from __future__ import annotations

# Its lock is held amid forks as well, and the compiler, which is imported while ours is held, asks
# for it. What registers last is asked first: ours must be, or each would wait for the other.
import logging as logging
import os
import sys
import threading
from typing import Any

#: Held while kernels or the compiler are imported late, and while a job is looked for, compiled or
#: loaded.
LOCK = threading.RLock()
_held: list[Any] = []


def _others() -> list[Any]:
    """Numba's lock and llvmlite's, of those that are loaded, in the order in which both are taken:
    other code of the process may be compiling."""
    found = []
    if numba := sys.modules.get("numba.core.compiler_lock"):
        found.append(getattr(numba, "global_compiler_lock", None))
    if llvm := sys.modules.get("llvmlite.binding.ffi"):
        found.append(getattr(getattr(getattr(llvm, "lib", None), "_lock", None), "_lock", None))
    return [lock for lock in found if lock is not None]


def _acquire() -> None:
    LOCK.acquire()
    _held[:] = _others()
    for lock in _held:
        lock.acquire()


def _release() -> None:
    for lock in reversed(_held):
        lock.release()
    LOCK.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_acquire, after_in_parent=_release, after_in_child=_release)
