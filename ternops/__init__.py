"""Ternary (1.58-bit) matrix multiplication on CPUs, compiled by Numba, exact to the last bit.

>>> W = ternops.quantize(weights)     # float (n, k) -> packed trits and a scale
>>> y = x @ W.T                       # or ternops.matmul(x, W.T, threads=2)
"""

import sys

# While Python looks for what `python -m ternops` is to run there is nobody yet to make a line of an
# error or of Ctrl-C: `ternops.__main__` comes back here.
if sys.argv[:1] != ["-m"] or sys.orig_argv[-len(sys.argv)].removeprefix("-m") != __name__:
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
