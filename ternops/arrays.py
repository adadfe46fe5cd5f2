"""What users pass as an array, as a plain NumPy array in this machine's byte order."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def as_array(name: str, value: Any) -> npt.NDArray[Any]:
    """`numpy.asarray`, with other byte orders turned round and bfloat16 as float32 (both exact).

    An array of another library comes by its `__array__`, or by DLPack where it has that alone.
    Raises TypeError, naming the argument, for a masked array, also in lists: its mask would be
    lost. So does what cannot be converted, as memory of a GPU; rows of different lengths are a
    ValueError.
    """
    if _is_masked(value):
        raise TypeError(
            f"{name} is a masked array, expected a plain one: {name.split()[-1]}.filled(0) leaves "
            "out what is masked, as numpy.ma.dot does"
        )
    if str(getattr(value, "dtype", "")) == "torch.bfloat16":  # which NumPy has no name for
        value = value.float()
    try:
        array = _shared(value) if _has_dlpack_alone(value) else np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    # RuntimeError: a tensor that keeps a gradient; BufferError: DLPack's for what it cannot share.
    except (TypeError, RuntimeError, BufferError) as error:
        raise TypeError(f"{name}: {error}") from error
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    elif array.dtype.name == "bfloat16":  # of ml_dtypes, as JAX and TensorFlow have it
        array = array.astype(np.float32)
    return array


#: DLPack's numbers of devices whose memory this process can read: the CPU, pinned and managed.
_READABLE = (1, 3, 11, 13)


def _has_dlpack_alone(value: Any) -> bool:
    kind = type(value)
    return hasattr(kind, "__dlpack__") and not hasattr(kind, "__array__")


def _shared(value: Any) -> npt.NDArray[Any]:
    """The memory of an array of another library; TypeError where it is a device's."""
    device = int(value.__dlpack_device__()[0])
    if device not in _READABLE:
        raise TypeError(f"in memory of DLPack's device type {device}, expected 1, the CPU's")
    return np.from_dlpack(value)


def check_finite(name: str, matrix: npt.NDArray[Any]) -> None:
    """Raise ValueError, naming the argument and the place, for NaN and infinity."""
    if not np.isfinite(matrix).all():
        i, j = np.argwhere(~np.isfinite(matrix))[0]
        raise ValueError(f"{name}: {name}[{i}, {j}] is {matrix[i, j]}, expected finite numbers")


def _is_masked(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_is_masked, value))
    return isinstance(value, np.ma.MaskedArray)


def is_array_like(value: Any) -> bool:
    """Whether NumPy's operators would take it for an operand of theirs, and not leave the product
    to its own `__matmul__` or `__rmatmul__`, as they do for scipy's sparse arrays."""
    kind = type(value)
    if isinstance(value, np.ndarray | np.generic):
        return True
    if getattr(kind, "__array_ufunc__", False) is None:
        return False
    is_array = hasattr(kind, "__array__") or hasattr(kind, "__dlpack__")
    return is_array or not hasattr(kind, "__rmatmul__")


def comes_first(value: Any) -> bool:
    """Whether NumPy's operators ask its `__rmatmul__` first, array or not: of arrays that are none
    of NumPy's (torch, JAX), `__array_priority__` says so."""
    kind = type(value)
    if isinstance(value, np.ndarray | np.generic) or hasattr(kind, "__array_ufunc__"):
        return False
    return hasattr(kind, "__rmatmul__") and getattr(kind, "__array_priority__", 0) > 0
