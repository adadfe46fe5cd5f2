"""litespark-inference's two kernels for x86.

"litespark" is what its runtime multiplies with: weights of 2 bits, activations quantised to int8
in every call. "litespark int8" is what its own table of matrix products was measured with: a byte
a weight, and as there, activations quantised beforehand and int32 sums as the result. The latter
is compiled by torch when it is first prepared, which takes half a minute, and kept for later runs.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from bench.core.errors import first_line
from bench.engines import Computation, Engine, Floats, Trits, Unsupported, library

#: Rows of activations in one call; its kernel returns without a result when given more.
_MAX_ROWS = 64
#: kernel type -> the function that its benchmark times
_INT8_FUNCTIONS = {
    "vnni": "matmul_free_vnni_v4_large_n",
    "avx_vnni": "matmul_free_avx_vnni_v4_large_n",
}


def engines() -> Iterator[Engine]:
    """The runtime's kernel, and the one of its table where torch is there to compile it."""
    package = library("litespark_inference")
    kernel = library("litespark_inference.torchless.kernel")
    pack = library("litespark_inference.torchless.pack").pack_ternary_4_per_byte
    path = kernel.ensure_built()
    tier = path.name.split(".")[0].removeprefix("_matmul_lut_")
    if not tier.startswith("avx"):
        raise ImportError(f"no adapter for its {tier} kernels")
    version = f"litespark-inference {package.__version__}"
    # Its functions take no number of threads; OpenMP, found through the same handle, does.
    set_threads = ctypes.CDLL(str(path)).omp_set_num_threads if kernel.has_omp() else None
    yield Engine(
        "litespark",
        f"{version}, {tier}, {'OpenMP' if set_threads else 'built without OpenMP'}",
        f"given {_MAX_ROWS} rows at a time, because it silently computes nothing for more",
        partial(_prepare, kernel, pack, set_threads),
    )

    models = library("litespark_inference.models")
    kind = models.get_arch_info()["kernel_type"]
    if kind not in _INT8_FUNCTIONS:
        raise ImportError(f"no adapter for the {kind} kernel of its table")
    library("torch.utils.cpp_extension").verify_ninja_availability()
    yield Engine(
        "litespark int8",
        f"{version}, {kind}, compiled by torch {library('torch').__version__}",
        "as its own benchmark: activations quantised beforehand, int32 sums as the result",
        partial(_prepare_int8, models, _INT8_FUNCTIONS[kind]),
    )


def _prepare(
    kernel: Any, pack: Any, set_threads: Any, trits: Trits, x: Floats, threads: int
) -> Computation:
    columns = trits.shape[1]
    if columns % 4:
        raise Unsupported(f"litespark needs K in bytes of 4 weights, got {columns}")
    if set_threads is None and threads > 1:
        raise Unsupported("litespark was built without OpenMP and has one thread only")
    weights, x = pack(np.ascontiguousarray(trits)), np.ascontiguousarray(x)
    int8, steps = np.empty(x.shape, np.int8), np.empty(len(x), np.float32)
    out = np.empty((len(x), len(trits)), np.float32)
    batched = len(x) > 1 and kernel.has_batched_matmul() and kernel.has_batched_helpers()

    def run() -> None:
        # The count belongs to the process, and products of other counts take turns with this one.
        if set_threads is not None:
            set_threads(threads)
        if batched:
            kernel.quantize_activation_batched(x, int8, steps)
            for first in range(0, len(x), _MAX_ROWS):
                rows = slice(first, first + _MAX_ROWS)
                kernel.matmul_packed_mT(int8[rows], steps[rows], weights, 1.0, out[rows])
            return
        for row, codes, sums in zip(x, int8, out, strict=True):
            step = kernel.quantize_activation(row, codes)
            kernel.matmul_packed_m1(codes, weights, 1.0, step, sums)

    return Computation(weights.nbytes, run, lambda: out)


def _prepare_int8(models: Any, function: str, trits: Trits, x: Floats, threads: int) -> Computation:
    columns = trits.shape[1]
    if columns % 64:
        # It pads the weights to 64 but takes rows of activations to be K apart.
        raise Unsupported(f"litespark int8 needs K in vectors of 64, got {columns}")
    try:
        kernel = models.get_kernel()
    except Exception as error:
        raise Unsupported(f"litespark int8 was not compiled: {first_line(error)}") from error
    torch = models.torch
    weights = torch.tensor(trits)
    int8, steps = models.quantize_activation(torch.tensor(x))
    sums = weights.sum(dim=1, dtype=torch.int32)
    out = torch.zeros(len(x), len(trits), dtype=torch.int32)
    run = partial(
        getattr(kernel, function), int8, steps, weights, sums, out, len(x), len(trits), columns,
        threads,
    )  # fmt: skip
    return Computation(weights.nbytes + sums.nbytes, run, lambda: (out * steps[:, None]).numpy())
