"""NumPy's float32 product, by the BLAS that it was built with."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from bench.engines import Computation, Engine, Floats, Trits, has_avx512, library

#: OpenBLAS's names of CPUs whose kernels use AVX-512.
_AVX512_KERNELS = ("SkylakeX", "Cooperlake", "SapphireRapids")


def engines() -> Iterator[Engine]:
    """One engine, whatever the BLAS."""
    blas = library("threadpoolctl").ThreadpoolController().select(user_api="blas").lib_controllers
    infos = [each.info() for each in blas]
    # Another package may have brought a BLAS of its own: NumPy's stands first.
    infos.sort(key=lambda info: "numpy" not in info["filepath"])
    info = infos[0] if infos else {"internal_api": "unknown BLAS", "version": None}
    words = [info["internal_api"], info["version"]]
    if "architecture" in info:
        words.append(f"({info['architecture']} kernels, {info['threading_layer']})")
    version = f"numpy {np.__version__}, {' '.join(word for word in words if word)}"

    def prepare(trits: Trits, x: Floats, threads: int) -> Computation:
        weights = trits.astype(np.float32)
        out = np.empty((len(x), len(trits)), np.float32)

        def run() -> None:
            # The count belongs to the process, and products of other counts take turns with this.
            for each in blas:
                each.set_num_threads(threads)
            np.matmul(x, weights.T, out=out)

        return Computation(weights.nbytes, run, lambda: out)

    yield Engine("NumPy float32", version, _remark(info), prepare)


def _remark(info: dict[str, Any]) -> str:
    """What OpenBLAS was told by the environment, and whether it leaves AVX-512 unused."""
    if info["internal_api"] != "openblas":
        return ""
    told = [f"{key}={value}" for key, value in sorted(os.environ.items())
            if key.startswith("OPENBLAS_")]  # fmt: skip
    architecture = info.get("architecture")
    if has_avx512() and architecture not in _AVX512_KERNELS:
        why = f" ({', '.join(told)})" if told else ""
        return f"its BLAS uses {architecture} kernels{why}; this CPU has AVX-512"
    return f"its BLAS was told {', '.join(told)}" if told else ""
