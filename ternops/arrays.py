"""What users pass as an array, as a plain NumPy array in this machine's byte order."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def as_array(name: str, value: Any) -> npt.NDArray[Any]:
    """`numpy.asarray`, with other byte orders turned round and bfloat16 as float32 (both exact).

    Raises TypeError, naming the argument, for a masked array: its mask would be lost.
    """
    parts = value if isinstance(value, list | tuple) else (value,)
    if any(isinstance(each, np.ma.MaskedArray) for each in parts):
        raise TypeError(
            f"{name} is a masked array, expected a plain one: {name}.filled(0) leaves out what is "
            "masked, as numpy.ma.dot does"
        )
    array = np.asarray(value)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    elif array.dtype.name == "bfloat16":  # of ml_dtypes, as JAX and TensorFlow have it
        array = array.astype(np.float32)
    return array


def is_array_like(value: Any) -> bool:
    """Whether NumPy's operators would take it for an operand of theirs, and not leave the product
    to its own `__matmul__` or `__rmatmul__`, as they do for scipy's sparse arrays."""
    kind = type(value)
    if isinstance(value, np.ndarray | np.generic):
        return True
    if getattr(kind, "__array_ufunc__", False) is None:
        return False
    return hasattr(kind, "__array__") or not hasattr(kind, "__rmatmul__")
