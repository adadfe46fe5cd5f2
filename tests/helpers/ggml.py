"""llama.cpp's own quantisers and what turns their blocks back into floats, by way of ctypes."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

#: ggml's numbers of types.
TYPES = {
    "Q4_0": 2, "Q8_0": 8, "Q6_K": 14, "IQ4_NL": 20, "TQ1_0": 34, "TQ2_0": 35, "MXFP4": 39,
    "NVFP4": 40, "Q1_0": 41, "Q2_0": 42,
}  # fmt: skip


class _Traits(ctypes.Structure):
    """The beginning of ggml_type_traits (ggml.h)."""

    _fields_ = [
        ("name", ctypes.c_char_p), ("weights", ctypes.c_int64), ("interleave", ctypes.c_int64),
        ("size", ctypes.c_size_t), ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)),
    ]  # fmt: skip


@functools.cache
def _library() -> Any:
    package = importlib.util.find_spec("llama_cpp")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("llama-cpp-python is not installed", name="llama_cpp")
    library = ctypes.CDLL(str(Path(package.origin).parent / "lib" / "libggml-base.so"))
    library.ggml_get_type_traits.restype = ctypes.POINTER(_Traits)
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_quantize_chunk.argtypes = [
        ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64,
        ctypes.c_int64, ctypes.c_void_p,
    ]  # fmt: skip
    return library


def traits(kind: str) -> Any:
    """name, weights and size of a block, to_float."""
    return _library().ggml_get_type_traits(TYPES[kind]).contents


def quantize(floats: Any, kind: str) -> Any:
    """uint8 (rows, bytes) of float32 (rows, columns)."""
    floats = np.ascontiguousarray(floats, np.float32)
    rows, columns = floats.shape
    each = traits(kind)
    data = np.zeros((rows, columns // each.weights * each.size), np.uint8)
    size = _library().ggml_quantize_chunk(
        TYPES[kind], floats.ctypes.data, data.ctypes.data, 0, rows, columns, None
    )
    assert size == data.nbytes
    return data


def dequantize(data: Any, kind: str) -> Any:
    """float32 (rows, columns) of uint8 (rows, bytes)."""
    each = traits(kind)
    data = np.ascontiguousarray(data)
    floats = np.zeros((len(data), data.shape[1] // each.size * each.weights), np.float32)
    each.to_float(data.ctypes.data, floats.ctypes.data, floats.size)
    return floats
