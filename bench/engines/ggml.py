"""llama.cpp's products, through the ggml libraries inside the package llama-cpp-python.

One graph of one `ggml_mul_mat`, on the CPU backend as llama.cpp uses it: its aligned buffer holds
the tensors, the backend keeps its work memory, and a thread pool outlives the calls. For the
ternary types ggml quantises the activations to Q8_K, 8 bits in blocks of 256, within every call.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
from collections.abc import Iterator
from ctypes import POINTER, c_bool, c_char_p, c_int, c_int64, c_size_t, c_void_p
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.engines import Computation, Engine, Floats, Trits, Unsupported, has_avx512

#: enum ggml_type, by the names that ggml gives them.
_TYPES = {"tq1_0": 34, "tq2_0": 35, "f16": 1}
_F32 = 0
#: More than struct ggml_threadpool_params in any version: ggml fills it in, nothing here reads it.
_POOL_PARAMETERS = 4096


class _InitParameters(ctypes.Structure):
    """struct ggml_init_params."""

    _fields_ = (("mem_size", c_size_t), ("mem_buffer", c_void_p), ("no_alloc", c_bool))


class _Feature(ctypes.Structure):
    """struct ggml_backend_feature."""

    _fields_ = (("name", c_char_p), ("value", c_char_p))


#: function -> result, arguments
_FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "ggml_backend_alloc_ctx_tensors": (c_void_p, (c_void_p, c_void_p)),
    "ggml_backend_buffer_free": (None, (c_void_p,)),
    "ggml_backend_cpu_init": (c_void_p, ()),
    "ggml_backend_cpu_reg": (c_void_p, ()),
    "ggml_backend_cpu_set_n_threads": (None, (c_void_p, c_int)),
    "ggml_backend_cpu_set_threadpool": (None, (c_void_p, c_void_p)),
    "ggml_backend_free": (None, (c_void_p,)),
    "ggml_backend_graph_compute": (c_int, (c_void_p, c_void_p)),
    "ggml_backend_reg_get_proc_address": (c_void_p, (c_void_p, c_char_p)),
    "ggml_backend_tensor_get": (None, (c_void_p, c_void_p, c_size_t, c_size_t)),
    "ggml_backend_tensor_set": (None, (c_void_p, c_void_p, c_size_t, c_size_t)),
    "ggml_blck_size": (c_int64, (c_int,)),
    "ggml_build_forward_expand": (None, (c_void_p, c_void_p)),
    "ggml_free": (None, (c_void_p,)),
    "ggml_graph_overhead": (c_size_t, ()),
    "ggml_init": (c_void_p, (_InitParameters,)),
    "ggml_mul_mat": (c_void_p, (c_void_p, c_void_p, c_void_p)),
    "ggml_nbytes": (c_size_t, (c_void_p,)),
    "ggml_new_graph": (c_void_p, (c_void_p,)),
    "ggml_new_tensor_2d": (c_void_p, (c_void_p, c_int, c_int64, c_int64)),
    "ggml_quantize_chunk": (
        c_size_t, (c_int, c_void_p, c_void_p, c_int64, c_int64, c_int64, c_void_p)
    ),
    "ggml_tensor_overhead": (c_size_t, ()),
    "ggml_threadpool_free": (None, (c_void_p,)),
    "ggml_threadpool_new": (c_void_p, (c_void_p,)),
    "ggml_threadpool_params_init": (None, (c_void_p, c_int)),
    "ggml_type_name": (c_char_p, (c_int,)),
    "ggml_version": (c_char_p, ()),
    "llama_attach_threadpool": (None, (c_void_p,) * 3),
}  # fmt: skip


def engines() -> Iterator[Engine]:
    """An engine for each type."""
    ggml = _load()
    features = _features(ggml)
    version = (
        f"ggml {ggml.ggml_version().decode()} of llama-cpp-python "
        f"{importlib.metadata.version('llama-cpp-python')}, {' '.join(features)}"
    )
    remark = "built without AVX-512" if has_avx512() and "AVX512" not in features else ""
    for name, kind in _TYPES.items():
        # A wrong number would not fail but abort the process.
        if ggml.ggml_type_name(kind) != name.encode():
            raise ImportError(f"its type {kind} is not {name}")
        title = f"llama.cpp {name.upper()}"
        yield Engine(title, version, remark, partial(_prepare, ggml, title, kind))


def _prepare(
    ggml: ctypes.CDLL, title: str, kind: int, trits: Trits, x: Floats, threads: int
) -> Computation:
    (rows, columns), tokens = trits.shape, len(x)
    block = ggml.ggml_blck_size(kind)
    if columns % block:
        raise Unsupported(f"{title} needs K in blocks of {block}, got {columns}")
    out = np.empty((tokens, rows), np.float32)

    # The context holds the descriptions only: two operands, their product, the graph.
    memory = 3 * ggml.ggml_tensor_overhead() + ggml.ggml_graph_overhead()
    context = ggml.ggml_init(_InitParameters(memory, None, True))
    weights = ggml.ggml_new_tensor_2d(context, kind, columns, rows)
    activations = ggml.ggml_new_tensor_2d(context, _F32, columns, tokens)
    product = ggml.ggml_mul_mat(context, weights, activations)
    graph = ggml.ggml_new_graph(context)
    ggml.ggml_build_forward_expand(graph, product)

    backend = ggml.ggml_backend_cpu_init()
    pool = make_pool(ggml, threads)
    ggml.ggml_backend_cpu_set_threadpool(backend, pool)
    ggml.ggml_backend_cpu_set_n_threads(backend, threads)
    buffer = ggml.ggml_backend_alloc_ctx_tensors(context, backend)

    packed = np.empty(int(ggml.ggml_nbytes(weights)), np.uint8)
    dense = trits.astype(np.float32)
    ggml.ggml_quantize_chunk(kind, dense.ctypes.data, packed.ctypes.data, 0, rows, columns, None)
    ggml.ggml_backend_tensor_set(weights, packed.ctypes.data, 0, packed.nbytes)
    x = np.ascontiguousarray(x)
    ggml.ggml_backend_tensor_set(activations, x.ctypes.data, 0, x.nbytes)

    def run() -> None:
        if status := ggml.ggml_backend_graph_compute(backend, graph):
            raise RuntimeError(f"ggml_backend_graph_compute returned {status}")

    def result() -> Floats:
        ggml.ggml_backend_tensor_get(product, out.ctypes.data, 0, out.nbytes)
        return out

    def close() -> None:
        ggml.ggml_backend_free(backend)
        ggml.ggml_threadpool_free(pool)
        ggml.ggml_backend_buffer_free(buffer)
        ggml.ggml_free(context)

    return Computation(packed.nbytes, run, result, close)


def _load() -> ctypes.CDLL:
    """libggml-cpu, whose handle finds the functions of libggml-base as well."""
    # Looked for, not imported: the package would load all of llama.cpp.
    package = importlib.util.find_spec("llama_cpp")
    if package is None or package.origin is None:
        raise ImportError("llama-cpp-python is not installed")
    folder = Path(package.origin).parent / "lib"
    paths = sorted(folder.glob("libggml-cpu.so")) + sorted(folder.glob("libggml-cpu.dylib"))
    if not paths:
        raise ImportError(f"no libggml-cpu in {folder}")
    ggml = ctypes.CDLL(str(paths[0]))
    declare(ggml, *(name for name in _FUNCTIONS if name.startswith("ggml_")))
    return ggml


def declare(ggml: ctypes.CDLL, *names: str) -> None:
    """Tell ctypes the types of functions."""
    for name in names:
        function = getattr(ggml, name)
        function.restype, function.argtypes = _FUNCTIONS[name]


def make_pool(ggml: ctypes.CDLL, threads: int) -> int:
    """A thread pool, which outlives the calls."""
    parameters = ctypes.create_string_buffer(_POOL_PARAMETERS)
    ggml.ggml_threadpool_params_init(parameters, threads)
    return int(ggml.ggml_threadpool_new(parameters))


def _features(ggml: ctypes.CDLL) -> list[str]:
    """What ggml says that it was built with: CPU features, OPENMP, LLAMAFILE and the like."""
    registry = ggml.ggml_backend_cpu_reg()
    address = ggml.ggml_backend_reg_get_proc_address(registry, b"ggml_backend_get_features")
    if not address:
        return []
    feature = ctypes.CFUNCTYPE(POINTER(_Feature), c_void_p)(address)(registry)
    names = []
    for i in range(64):  # the list ends at a null name long before
        if not feature[i].name:
            break
        names.append(feature[i].name.decode())
    return names
