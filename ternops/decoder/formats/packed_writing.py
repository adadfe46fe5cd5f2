"""Writing what a packed model file holds: its header and tensors, by the names of
`ternops.decoder.formats.packed`."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ternops.decoder.config import Config
from ternops.decoder.formats.checkpoint import Checkpoint
from ternops.decoder.formats.packed import TABLES
from ternops.decoder.formats.packed_header import (
    bytes_name,
    header_checksum,
    scale_name,
    whole_lines,
)
from ternops.decoder.weights import HalfMatrix
from ternops.encodings import ENCODINGS
from ternops.matrix import TernaryMatrix

#: More than the header's entry of any tensor, with its checksum, can take.
_ENTRY = 200
_CHECKSUM = 9
#: Name, safetensors dtype, array.
Tensor = tuple[str, str, npt.NDArray[Any]]


class Growing(Protocol):
    """A file that is written from its beginning to its end."""

    size: int

    def append(self, data: Any) -> None: ...


def float_tensors(checkpoint: Checkpoint, layer: int) -> Iterator[Tensor]:
    """All of a layer that is no matrix of a linear layer."""
    config = checkpoint.config
    for name in config.norm_sizes(layer):
        yield f"layers.{layer}.{name}.norm", "F32", filled(checkpoint.norm(layer, name))
    for name in config.bias_sizes(layer):
        yield f"layers.{layer}.{name}.bias", "F32", filled(checkpoint.bias(layer, name))
    for name in config.vector_shapes(layer):
        vector = checkpoint.vector(layer, name).reshape(-1)
        yield f"layers.{layer}.{name}.vector", "F32", filled(vector)


def matrix_tensors(name: str, matrix: HalfMatrix | TernaryMatrix, usual: str) -> Iterator[Tensor]:
    """A matrix; usual: the encoding that the file, or that kind of its matrices, has."""
    if isinstance(matrix, HalfMatrix):
        yield name, "BF16" if matrix.is_bf16 else "F16", matrix.bits
        return
    packed = matrix._packed
    scale = np.asarray(packed.scale)
    yield f"{name}.{bytes_name(packed.encoding, usual)}", "U8", filled(packed.bytes)
    if packed.levels != ENCODINGS[packed.encoding].values:
        levels = np.array(packed.levels, np.int8)
        missing = whole_lines(levels.size) - levels.size
        yield f"{name}.levels", "I8", np.pad(levels, (0, missing), "edge")
    dtype = "F16" if scale.dtype == np.float16 else "F32"
    yield f"{name}.{scale_name(scale.ndim, packed.group)}", dtype, filled(scale.reshape(-1))


def table_tensors(name: str, matrix: HalfMatrix | TernaryMatrix) -> Iterator[Tensor]:
    """An embedding or a head."""
    return matrix_tensors(name, matrix, TABLES)


def filled(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A one-dimensional array, filled up with zeros to whole cache lines."""
    missing = (whole_lines(array.nbytes) - array.nbytes) // array.itemsize
    return np.pad(array, (0, missing)) if missing else array


def append_tensor(file: Growing, name: str, dtype: str, array: npt.NDArray[Any]) -> list[Any]:
    """Write a tensor; returns its entry for the header."""
    data = np.ascontiguousarray(array)
    start = file.size
    file.append(data.data)
    return [name, dtype, data.shape, start, file.size, zlib.crc32(data.data)]


def header_of(metadata: dict[str, str], entries: list[Any], room: int) -> bytes:
    """Length and JSON, filled up with spaces to `room` bytes."""
    checksums = " ".join(f"{entry[-1]:08x}" for entry in entries)
    header: dict[str, Any] = {"__metadata__": {**metadata, "crc32": checksums}}
    for name, dtype, shape, start, stop, _ in entries:
        offsets = [start - room, stop - room]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
    header["__metadata__"]["header_crc32"] = header_checksum(header)
    size = room - 8
    text = json.dumps(header, separators=(",", ":")).encode()
    assert len(text) <= size
    return size.to_bytes(8, "little") + text.ljust(size)


def header_room(metadata: dict[str, str], config: Config) -> int:
    """Bytes that suffice for the header, before it is known; tensors start after them."""
    tensors = 6 + sum(
        3 * len(config.linear_shapes(layer)) + len(config.norm_sizes(layer))
        + len(config.bias_sizes(layer)) + len(config.vector_shapes(layer))
        for layer in range(config.layers)
    )  # fmt: skip
    fixed = len(json.dumps({"__metadata__": {**metadata, "crc32": "", "header_crc32": "0" * 8}}))
    return whole_lines(8 + fixed + tensors * (_ENTRY + _CHECKSUM))
