"""Other people's products x @ W.T of a ternary W, each behind a small adapter that can be timed.

An adapter is a module whose `engines` yields what its library offers on this machine. It imports
the library there and not above, so that a library that is missing or broken costs one line.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.core.errors import first_line
from bench.core.measure import nothing
from ternops.simd import host

Trits = npt.NDArray[np.int8]
Floats = npt.NDArray[np.float32]

#: adapter -> what it adapts, for the line about one that is missing.
_ADAPTERS = {
    "numpy_blas": "NumPy float32",
    "torch_linear": "torch",
    "ggml": "llama.cpp",
    "litespark": "litespark",
}
#: Seconds over which `settle` looks for threads that compute, for which it does so at most, and
#: for which it then runs what is to be timed.
_LOOK, _MAX_WAIT, _WARM_UP = 0.005, 1.0, 0.02


class Unsupported(Exception):
    """A product that an engine cannot do, in one line."""


class Computation:
    """One product, converted, allocated and run once: a call does nothing else than compute it.

    nbytes: of the weights as the engine holds them. out: what the last call computed, (m, n).
    """

    def __init__(
        self, nbytes: int, run: Callable[[], object], out: Callable[[], Any],
        close: Callable[[], object] = nothing,
    ) -> None:  # fmt: skip
        self.nbytes, self._run, self._out, self._close = int(nbytes), run, out, close
        run()

    def __call__(self) -> None:
        self._run()

    def result(self) -> Floats:
        """A copy of what the last call computed."""
        return np.array(self._out())

    def close(self) -> None:
        """Let go of all; using it again is an error here."""
        self._close()
        self.__dict__.clear()


@dataclass(frozen=True)
class Engine:
    """A way to compute products, as it was found on this machine.

    version: one line: versions, backend, CPU features.
    remark: empty, or what a reader must know to judge its figures.
    prepare: trits (n, k), x (m, k), threads -> the product x @ trits.T; raises Unsupported.
    """

    name: str
    version: str
    remark: str
    prepare: Callable[[Trits, Floats, int], Computation]


def find() -> tuple[list[Engine], list[str]]:
    """The engines that work here, and for each library that does not, a line that says why."""
    engines: list[Engine] = []
    missing = []
    for adapter, name in _ADAPTERS.items():
        try:
            # One at a time: what came before an error has been found.
            for engine in importlib.import_module(f"bench.engines.{adapter}").engines():
                engines.append(engine)
        except Exception as error:
            missing.append(f"{name}: {first_line(error)}")
    return engines, missing


def settle(run: Callable[[], object]) -> None:
    """Let the threads of other engines go to sleep and those of `run` wake up, before it is timed.

    Threads go on spinning after a product (OpenBLAS's for 100 ms, GNU OpenMP's for 8) and take the
    cores of whatever comes next; woken up, they take some ms to find a core each. Measured on two
    cores: without this, products of a tenth of a millisecond took 3 to 6 times as long.
    """
    end = time.monotonic() + _MAX_WAIT
    while time.monotonic() < end:
        start = time.process_time()
        time.sleep(_LOOK)
        if time.process_time() - start < _LOOK / 10:
            break
    end = time.monotonic() + _WARM_UP
    while time.monotonic() < end:
        run()


def has_avx512() -> bool:
    """Whether this CPU has AVX-512, which some builds and settings leave unused."""
    return "avx512f" in host.features()


def library(name: str) -> Any:
    """Import a peer; without a type, because mypy need not have it installed."""
    return importlib.import_module(name)
