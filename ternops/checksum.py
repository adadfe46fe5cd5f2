"""CRC-32 of what files hold, as hexadecimal digits."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt


def of_arrays(arrays: Iterable[npt.NDArray[Any]], start: int = 0) -> str:
    """Of the bytes of arrays, one after another; start: the checksum of what comes before."""
    for array in arrays:
        start = zlib.crc32(np.ascontiguousarray(array).data, start)
    return f"{start:08x}"


def of_content(metadata: Mapping[str, str], tensors: Mapping[str, npt.NDArray[Any]]) -> str:
    """Of metadata, but for the checksum itself, and tensors in the order of their names."""
    fields = "\n".join(f"{k}={v}" for k, v in sorted(metadata.items()) if k != "crc32")
    start = zlib.crc32(fields.encode("utf-8", "replace"))
    return of_arrays((tensors[name] for name in sorted(tensors)), start)
