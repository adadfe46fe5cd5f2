"""The processes that `mpirun` has started together, and what compiled code needs of MPI."""

from __future__ import annotations

import ctypes
import os
import socket
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpi4py import MPI

# MPICH and Intel MPI, Open MPI.
_SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE")
_RANKS = ("PMI_RANK", "OMPI_COMM_WORLD_RANK")
#: What MPI is told before it begins, where the user has said nothing: MPICH would send a long
#: vector that goes round in pieces of 32 KB, each of which takes the latency of a slow link once
#: more. Which transport is left to MPI: UCX_TLS=tcp would take InfiniBand and shared memory away.
_SETTINGS = {"MPIR_CVAR_ALLGATHERV_PIPELINE_MSG_SIZE": "0"}


def _number(names: tuple[str, ...], default: int) -> int:
    found = next((os.environ[name] for name in names if name in os.environ), "")
    return int(found) if found.isdecimal() else default


def size() -> int:
    """How many processes `mpirun` has started; 1 without it."""
    return max(1, _number(_SIZES, 1))


def rank() -> int:
    """The number of this one of them; 0 leads."""
    return _number(_RANKS, 0)


def host() -> str:
    """The name of this machine."""
    return socket.gethostname()


@cache
def mpi() -> Any:
    """mpi4py's module, with which MPI begins; ModuleNotFoundError without it."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        from mpi4py import MPI
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f"mpirun has started {size()} processes, and mpi4py is not installed: "
            "pip install 'ternops[mpi]'"
        ) from None
    except RuntimeError as error:  # no library of MPI
        raise ImportError(f"mpi4py finds no MPI: {error}") from None
    if MPI.Query_thread() < MPI.THREAD_MULTIPLE:
        name = MPI.Get_library_version().splitlines()[0].strip(" \0")
        raise ImportError(f"{name}: one thread alone may call it, expected MPI_THREAD_MULTIPLE")
    return MPI


def _handle(of: Any) -> int:
    """What C has for an object of MPI, an int or a pointer, as a signed integer."""
    return ctypes.c_int64(mpi()._handleof(of)).value


class Communicator:
    """What compiled code and records need of MPI to gather among the processes of a communicator.

    Errors of MPI end all processes, with MPI's own words.
    """

    def __init__(self, communicator: MPI.Intracomm) -> None:
        found = self._mpi = mpi()
        self._communicator = communicator
        communicator.Set_errhandler(found.ERRORS_ARE_FATAL)
        library = ctypes.CDLL(found.__file__)  # its symbols, and those of the library it has loaded
        address = ctypes.cast(library.MPI_Allgatherv, ctypes.c_void_p).value
        assert address is not None
        self.rank, self.ranks = communicator.rank, communicator.size
        #: Fields of a forward pass's record.
        self.fields = {
            "gather": address, "in_place": int(found.IN_PLACE),
            "no_type": _handle(found.DATATYPE_NULL), "communicator": _handle(communicator),
        }  # fmt: skip
        self._types: dict[tuple[int, int, int], tuple[Any, ...]] = {}

    def type(self, rows: int, unit: int, length: int) -> int:
        """The datatype, its handle, of `unit` neighbouring floats in each of some rows of `length`
        floats, of which the next one begins `unit` floats behind it."""
        key = rows, unit, length
        if key not in self._types:
            column = self._mpi.FLOAT.Create_vector(rows, unit, length)
            placed = column.Create_resized(0, 4 * unit).Commit()
            self._types[key] = column, placed
        return _handle(self._types[key][-1])
