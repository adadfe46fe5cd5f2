"""A safetensors file, mapped into memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import safetensors

from ternops.shown import in_line


class Mapped(NamedTuple):
    """A tensor of the file: its safetensors dtype, shape, first byte in the file, and bytes."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    bytes: npt.NDArray[np.uint8]


def map_file(path: Path) -> tuple[dict[str, Any], dict[str, Mapped]]:
    """The header and the tensors; nothing after the header is read.

    Raises ValueError, without the file's name, for what is no such file or is cut off.
    """
    try:
        # This checks header, offsets and length; what follows needs only their places.
        with safetensors.safe_open(path, framework="numpy"):
            pass
    except (safetensors.SafetensorError, OSError) as error:
        if path.is_file() and not path.stat().st_size:
            raise ValueError("no intact safetensors file: it is empty") from None
        raise ValueError(f"no intact safetensors file: {in_line(error)}") from None
    data = np.asarray(np.memmap(path, np.uint8, "r"))
    first = 8 + int.from_bytes(data[:8].tobytes(), "little")
    header = json.loads(data[8:first].tobytes())
    header["__metadata__"] = header.get("__metadata__") or {}
    tensors = {}
    for name in header.keys() - {"__metadata__"}:
        dtype, shape = header[name]["dtype"], tuple(header[name]["shape"])
        start, stop = (first + offset for offset in header[name]["data_offsets"])
        tensors[name] = Mapped(dtype, shape, start, data[start:stop])
    return header, tensors
