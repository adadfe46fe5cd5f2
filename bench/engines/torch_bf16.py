"""PyTorch's product in bfloat16, which oneDNN computes on CPUs that have instructions for it.

The activations are bfloat16 before the clock starts, as they are in a model that runs in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from bench.engines import Engine, Floats, Trits, has_avx512, library


def engines() -> Iterator[Engine]:
    """One engine."""
    torch = library("torch")
    capability = torch.backends.cpu.get_cpu_capability()
    version = f"torch {torch.__version__}, {capability}"
    remarks = []
    if torch.backends.mkldnn.is_available():
        found = re.search(r"(?:MKL-DNN|oneDNN) v([\d.]+)", torch.__config__.show())
        version += f", oneDNN {found[1] if found else '(unknown version)'}"
        version += ", oneMKL" if torch.backends.mkl.is_available() else ""
    else:
        remarks.append("built without oneDNN")
    if has_avx512() and not capability.startswith("AVX512"):
        remarks.append(f"uses {capability} kernels; this CPU has AVX-512")

    def prepare(trits: Trits, x: Floats, threads: int) -> _Product:
        return _Product(torch, trits, x, threads)

    yield Engine("torch bfloat16", version, "; ".join(remarks), prepare)


class _Product:
    def __init__(self, torch: Any, trits: Trits, x: Floats, threads: int) -> None:
        self._torch = torch
        self._threads = threads
        self._weights = torch.tensor(trits).to(torch.bfloat16)
        self._x = torch.tensor(x).to(torch.bfloat16)
        self()

    @property
    def nbytes(self) -> int:
        return int(self._weights.nbytes)

    def __call__(self) -> None:
        # The count belongs to the process, and products of other counts take turns with this one.
        if self._torch.get_num_threads() != self._threads:
            self._torch.set_num_threads(self._threads)
        self._out = self._torch.nn.functional.linear(self._x, self._weights)

    def result(self) -> Floats:
        return np.array(self._out.float().numpy())

    def close(self) -> None:
        del self._weights, self._x, self._out
