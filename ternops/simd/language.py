"""The words of the language as records: kernels are written with them, and nothing is compiled.

Kernel code names these at import, which must not wait for Numba. `ternops.simd.lowering` tells
Numba what each stands for, and is imported when something must be compiled.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from ternops.simd.lock import LOCK

_LOWERING = "ternops.simd.lowering"


def lowering() -> Any:
    """The package that compiles, imported when it is first needed: it imports Numba."""
    # A fork in the middle of an import would leave the child with half of it.
    if _LOWERING not in sys.modules or getattr(sys.modules[_LOWERING], "ready", None) is None:
        with LOCK:
            import_module(_LOWERING)
    return sys.modules[_LOWERING]


@dataclass(frozen=True, slots=True)
class Vector:
    """A SIMD vector of `lanes` elements: "u8", "i8", "u16", "i16", "i32", "f16" or "f32".

    LLVM splits a vector that is wider than the CPU's registers into several of them.
    """

    element: str
    lanes: int

    @property
    def bytes(self) -> int:
        return self.lanes * int(self.element[1:]) // 8


@dataclass(frozen=True, slots=True)
class Kind:
    """What an instruction takes and gives besides vectors."""

    name: str


INTEGER, INT32, POINTER, VOID = map(Kind, ("integer", "int32", "pointer", "void"))
#: An argument that must be a literal: part of the instruction's code.
IMMEDIATE = Kind("immediate")


@dataclass(frozen=True, slots=True)
class Operation:
    """A function of kernel code that `ternops.simd.lowering` has: in a module of it, by name."""

    module: str
    name: str


@dataclass(frozen=True, slots=True)
class Instruction:
    """A function of kernel code for one LLVM intrinsic of that name and type."""

    name: str
    result: Vector | Kind
    arguments: tuple[Vector | Kind, ...]


def instruction(name: str, result: Vector | Kind, *arguments: Vector | Kind) -> Instruction:
    """A kernel function for one LLVM intrinsic of that name and type."""
    return Instruction(name, result, arguments)


@dataclass(frozen=True, slots=True)
class Constant:
    """A function of kernel code without arguments that gives a vector; see `constant`."""

    vector: Vector
    lanes: tuple[int, ...]
    in_memory: bool


def constant(vector: Vector, values: Sequence[int], in_memory: bool = False) -> Constant:
    """A kernel function without arguments that gives the vector with these lanes.

    in_memory: load it from memory that LLVM does not know to be constant, once where the function
    is called. Inside a loop LLVM would rather load a constant each time than keep a register.
    """
    return Constant(vector, tuple(int(value) for value in values), in_memory)


@dataclass(frozen=True, slots=True)
class Record:
    """The type of records in memory, for `record_at`."""

    dtype: np.dtype[Any]


def record_type(dtype: np.dtype[Any]) -> Record:
    """The type of records in memory, by their NumPy dtype."""
    return Record(dtype)


class Function:
    """A function of kernel code. Python may call it, too: it is compiled for the arguments."""

    def __init__(self, function: Callable[..., Any], inlined: bool) -> None:
        self.py_func = function
        self.inlined = inlined
        self.__name__, self.__doc__ = function.__name__, function.__doc__
        self._part: Any = None
        self._callable: Any = None

    @property
    def part(self) -> Any:
        """Numba's object for it, as a part of other kernel code."""
        if self._part is None:
            self._part = lowering().part(self.py_func, self.inlined)
        return self._part

    def __call__(self, *arguments: Any) -> Any:
        if self._callable is None:
            self._callable = lowering().callable_function(self.py_func)
        return self._callable(*arguments)


def inlined(function: Callable[..., Any]) -> Any:
    """A function of kernel code that is inlined where it is called, so that constant arguments
    unroll its loops.

    Call it from kernel code: `njit` itself compiles for what LLVM finds out about the CPU, which on
    ARM may lack the instruction.
    """
    return Function(function, inlined=True)


def kernel(function: Callable[..., Any]) -> Any:
    """A function of kernel code that is called."""
    return Function(function, inlined=False)
