"""Ternary (1.58-bit) matrix multiplication on CPUs, compiled by Numba, exact to the last bit.

>>> W = ternops.quantize(weights)     # float (n, k) -> packed trits and a scale
>>> y = x @ W.T                       # or ternops.matmul(x, W.T, threads=2)
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

from ternops import imported as imported  # the first of all: it notes the time

if TYPE_CHECKING:
    from ternops.allocation import Allocation, allocate
    from ternops.bitdelta import DeltaMatrix, delta, matmul_deltas
    from ternops.float_matrix import FloatMatrix
    from ternops.matrix import TernaryMatrix, load, pack, quantize
    from ternops.operators import matmul
    from ternops.stacks.matrix import StackMatrix, stack
    from ternops.system import info, warmup
    from ternops.threads import get_num_threads, set_num_threads
    from ternops.tuning import tune

__version__ = "0.1.0"

__all__ = [
    "Allocation",
    "DeltaMatrix",
    "FloatMatrix",
    "StackMatrix",
    "TernaryMatrix",
    "allocate",
    "delta",
    "get_num_threads",
    "info",
    "load",
    "matmul",
    "matmul_deltas",
    "pack",
    "quantize",
    "set_num_threads",
    "stack",
    "tune",
    "warmup",
]

_MODULES = {
    "Allocation": "allocation",
    "DeltaMatrix": "bitdelta",
    "FloatMatrix": "float_matrix",
    "StackMatrix": "stacks.matrix",
    "TernaryMatrix": "matrix",
    "allocate": "allocation",
    "delta": "bitdelta",
    "get_num_threads": "threads",
    "info": "system",
    "load": "matrix",
    "matmul": "operators",
    "matmul_deltas": "bitdelta",
    "pack": "matrix",
    "quantize": "matrix",
    "set_num_threads": "threads",
    "stack": "stacks.matrix",
    "tune": "tuning",
    "warmup": "system",
}

#: What has public names, and is not imported with the package.
_SUBMODULES = ("cost", "decoder", "evaluation", "ranks", "torch")


def __getattr__(name: str) -> Any:
    """Import what is asked for (PEP 562): NumPy takes a while, which --help need not wait for."""
    if name not in _MODULES:
        first = f": import ternops.{name} first" if name in _SUBMODULES else ""
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{first}")
    if any(each == "TERNOPS_ISA" or each.startswith("NUMBA_") for each in os.environ):
        # What the environment says of kernels is an error here, and not in the first product.
        importlib.import_module("ternops.isa.detect")
    found = getattr(importlib.import_module(f"ternops.{_MODULES[name]}"), name)
    return globals().setdefault(name, found)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
