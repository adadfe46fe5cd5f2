"""Compiled functions with an address: found on disk, or compiled when they are first asked for."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from ternops.simd import kept, linker
from ternops.simd.language import lowering
from ternops.simd.lock import LOCK


def _named(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """A function of that name. It is compiled after the one that it calls: only then do constant
    bounds that a factory closes over unroll the loops (see CONTRIBUTING)."""

    def job(a, b, c, d):
        function(a, b, c, d)

    job.__name__ = job.__qualname__ = name
    return job


class Job:
    """A compiled function that other compiled code, or a team, calls by its address.

    Its kinds are the classes below: what a function's parameters must be, all of them integers.
    A decorator; or, with a name, for an `inlined` function that a factory made: the name tells it
    apart from others, and the digest of the sources from other states of itself.
    Raises TypeError for other parameters.
    """

    #: Of the machine code.
    address: int
    parameters: ClassVar[tuple[str, ...]] = ()
    returns: ClassVar[bool] = False
    #: How it is optimized (`lowering.compile_job`).
    as_one: ClassVar[bool] = True

    def __init__(self, function: Callable[..., Any], name: str | None = None) -> None:
        source = getattr(function, "py_func", function)
        code = source.__code__
        found = code.co_varnames[: code.co_argcount]
        if self.parameters and found != self.parameters:
            raise TypeError(
                f"{function.__name__}({', '.join(found)}): expected the parameters "
                f"({', '.join(self.parameters)}) of a {type(self).__name__}"
            )
        self.__doc__ = function.__doc__
        self.name = name or function.__name__
        self._arity = len(found)
        self._function = _named(function, name) if name else function
        # What a function closes over does not show in its name.
        keeps = name is not None or not source.__closure__
        self._place = kept.Place(
            f"{source.__module__}.{self.name}", Path(code.co_filename), code.co_firstlineno, keeps
        )

    def __getattr__(self, name: str) -> Any:
        """`address` is found when it is first asked for, and an attribute from then on.

        No cached_property: Python 3.11's holds a lock meanwhile, which a fork would inherit.
        """
        if name != "address":
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        with LOCK:
            if "address" not in vars(self):
                found = kept.find(self._place)
                if found is None:
                    found = self.compile()
                    kept.keep(self._place, *found)
                self.address = linker.load(*found)
        return self.address

    @property
    def key(self) -> str:
        """What tells it from all others of the package."""
        return self._place.key

    @property
    def is_there(self) -> bool:
        """Whether it need not be compiled."""
        return "address" in vars(self) or kept.find(self._place) is not None

    def compile(self) -> tuple[bytes, str]:
        """Its object code, made anew, and the symbol of its entry."""
        with LOCK:
            compiled = lowering().compile_job(
                self._function, self.name, self._arity, self.returns, self.as_one
            )
        return compiled.code, compiled.symbol

    def assembly(self) -> str:
        """The machine code as text, with LLVM's remarks on what is spilled; compiled anew."""
        with LOCK:
            text: str = lowering().assembly(self._function, self._arity, self.returns, self.as_one)
        return text


class TeamJob(Job):
    """What a team's threads run together: the addresses of a record and of the team's control
    block, this thread's number, how many take part."""

    parameters = ("record", "team", "thread", "threads")


class RowsKernel(Job):
    """A part of a product: rows or tokens [first, last) of the operands at an address."""

    parameters = ("operands", "first", "last", "thread")
    as_one = False


class LayerKernel(Job):
    """A part of one layer that all threads of a team run: its number, and theirs."""

    parameters = ("record", "layer", "thread", "threads")


class Entry(Job):
    """A compiled function of integers that Python calls, without the interpreter's lock; it gives
    an integer."""

    returns = True
    call: Callable[..., int]

    def __getattr__(self, name: str) -> Any:
        """`call` is made when it is first asked for, and an attribute from then on: no function
        of Python's stands between a product and its job."""
        if name != "call":
            return super().__getattr__(name)
        # As addresses, which are integers of 64 bits too: ctypes takes half as long for them.
        kind = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_void_p] * self._arity)
        self.call = kind(self.address)
        return self.call
