"""PyTorch's products: in bfloat16, and with int8 weights.

bfloat16 is computed by oneDNN on CPUs that have instructions for it; the activations are bfloat16
before the clock starts, as they are in a model that runs in it. int8 is what a dynamically
quantised linear layer does: float32 activations are quantised in every call.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from bench.engines import Computation, Engine, Floats, Trits, has_avx512, library


def engines() -> Iterator[Engine]:
    """Both engines."""
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

    def computation(product: Callable[[], Any], nbytes: int, threads: int) -> Computation:
        out: list[Any] = [None]

        def run() -> None:
            # The count belongs to the process, and products of other counts take turns with this.
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)
            out[0] = product()

        return Computation(nbytes, run, lambda: out[0].float().numpy())

    def bfloat16(trits: Trits, x: Floats, threads: int) -> Computation:
        weights = torch.tensor(trits).to(torch.bfloat16)
        x16, linear = torch.tensor(x).to(torch.bfloat16), torch.nn.functional.linear
        return computation(lambda: linear(x16, weights), weights.nbytes, threads)

    def int8(trits: Trits, x: Floats, threads: int) -> Computation:
        operations, x32 = torch.ops.quantized, torch.tensor(x)
        with warnings.catch_warnings():
            # These are to move to another package, which this one will follow then.
            warnings.simplefilter("ignore")
            quantized = torch.quantize_per_tensor(torch.tensor(trits).float(), 1.0, 0, torch.qint8)
            weights = operations.linear_prepack(quantized, None)
        return computation(lambda: operations.linear_dynamic(x32, weights), trits.size, threads)

    yield Engine("torch bfloat16", version, "; ".join(remarks), bfloat16)
    backend = f"{version}, quantized engine {torch.backends.quantized.engine}"
    yield Engine("torch int8", backend, "; ".join(remarks), int8)
