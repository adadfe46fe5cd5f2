"""Ternary (1.58-bit) matrix multiplication on CPUs: `quantize`, `pack`, `matmul`, `load`."""

from ternops.matmul import matmul
from ternops.matrix import TernaryMatrix, load, pack, quantize

__version__ = "0.1.0"

__all__ = ["TernaryMatrix", "load", "matmul", "pack", "quantize"]
