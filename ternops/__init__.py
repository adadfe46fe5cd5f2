"""Ternary (1.58-bit) matrix multiplication on CPUs, compiled by Numba, exact to the last bit.

>>> W = ternops.quantize(weights)     # float (n, k) -> packed trits and a scale
>>> y = x @ W.T                       # or ternops.matmul(x, W.T, threads=2)
"""

import importlib
import os
import sys
from typing import Any


def _is_starting() -> bool:
    """Whether `python -m ternops`, or the command `ternops`, is still being looked for."""
    program = sys.argv[0] if sys.argv else ""
    if program == "-m":
        named = sys.orig_argv[-len(sys.argv)]
        return named == __name__ or (named[:1] == "-" and named.endswith(f"m{__name__}"))
    return os.path.splitext(os.path.basename(program))[0] == __name__


# Then there is nobody yet to make a line of an error or of Ctrl-C: who asks for a name, as
# `ternops.__main__` does, comes back here.
if "_load" not in globals() and _is_starting():

    def _load(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.reload(sys.modules[__name__]), name)

    globals()["__getattr__"] = _load
else:
    from ternops.settings import check as _check

    _check()
    from ternops.matmul import matmul
    from ternops.matrix import TernaryMatrix, load, pack, quantize
    from ternops.system import info, warmup
    from ternops.threads import get_num_threads, set_num_threads

__version__ = "0.1.0"

__all__ = [
    "TernaryMatrix",
    "get_num_threads",
    "info",
    "load",
    "matmul",
    "pack",
    "quantize",
    "set_num_threads",
    "warmup",
]
