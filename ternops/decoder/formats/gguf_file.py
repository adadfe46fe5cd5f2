"""The container of a GGUF file: its metadata and where its tensors lie, checked while read.

The format is that of ggml-org/ggml, docs/gguf.md. It is read here in one bounded pass: the reader
of the `gguf` package trusts every length, knows no I2_S, and takes seconds for the hundred
thousands of strings of a tokenizer. That package knows the types and their sizes.
"""

from __future__ import annotations

import mmap
import reprlib
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

MAGIC = b"GGUF"
#: bitnet.cpp's type of ternary tensors, which llama.cpp and its `gguf` package do not know.
I2_S = 36

_VERSIONS = (2, 3)
_ALL = slice(None)
_MAX_DIMENSIONS = 4
#: The most bytes of a key and of a tensor's name.
_MAX_KEY, _MAX_NAME = 65535, 64
_STRING, _BOOL, _ARRAY = 8, 7, 9
#: The numbers among the types of values, as `struct` and NumPy call them; all little-endian.
_NUMBERS = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", _BOOL: "<B",
    10: "<Q", 11: "<q", 12: "<d",
}  # fmt: skip
#: The fewest bytes of an entry: an empty name, a type and a byte; or a type, an offset, no sizes.
_MIN_VALUE, _MIN_TENSOR = 8 + 4 + 1, 8 + 4 + 4 + 8


@dataclass(frozen=True)
class Tensor:
    """kind: ggml's number of the type; shape: rows first; data: uint8, mapped from the file."""

    kind: int
    shape: tuple[int, ...]
    data: npt.NDArray[np.uint8]

    @property
    def kind_name(self) -> str:
        from gguf import GGMLQuantizationType

        return "I2_S" if self.kind == I2_S else GGMLQuantizationType(self.kind).name


class GgufFile:
    """metadata: values by key, strings as str, arrays of numbers as NumPy arrays, arrays of
    strings as lists; tensors: by name.

    Raises ValueError, naming the file and the field, for whatever is not intact, and
    ModuleNotFoundError without the gguf package.
    """

    def __init__(self, path: Path) -> None:
        self.metadata: dict[str, Any] = {}
        self.tensors: dict[str, Tensor] = {}
        try:
            self._read(_Cursor(path))
        except _Damage as damage:
            raise ValueError(f"model: {str(path)!r}: {damage}") from None

    def tensor(self, name: str, shape: tuple[int, ...], accepted: tuple[str, ...]) -> Tensor:
        """Raises ValueError where it is missing, of another shape or of none of these types."""
        if name not in self.tensors:
            raise ValueError(f"checkpoint: tensor {name} is missing")
        tensor = self.tensors[name]
        if tensor.shape != shape:
            raise ValueError(f"checkpoint: {name} has shape {tensor.shape}, expected {shape}")
        if tensor.kind_name not in accepted:
            expected = ", ".join(accepted)
            raise ValueError(
                f"checkpoint: {name} has type {tensor.kind_name}, expected one of {expected}"
            )
        return tensor

    def floats(self, name: str, part: slice = _ALL) -> npt.NDArray[np.float32]:
        """Some rows of a matrix, or a vector as one row, as float32, exactly, all finite."""
        from gguf import GGMLQuantizationType, dequantize

        tensor = self.tensors[name]
        data = tensor.data.reshape(tensor.shape[0] if len(tensor.shape) > 1 else 1, -1)[part]
        if tensor.kind == GGMLQuantizationType.BF16:
            values = (data.view("<u2").astype(np.uint32) << 16).view(np.float32)
        else:
            values = dequantize(data, GGMLQuantizationType(tensor.kind))
        if not np.isfinite(values).all():
            raise ValueError(f"checkpoint: {name} holds NaN or infinity, expected finite numbers")
        return values

    def _read(self, cursor: _Cursor) -> None:
        _check_version(cursor)
        tensors = cursor.count("tensor count", _MIN_TENSOR)
        values = cursor.count("metadata count", _MIN_VALUE)
        for index in range(values):
            key = cursor.name(f"key {index}", _MAX_KEY)
            if key in self.metadata:
                raise _Damage(f"key {key} occurs twice")
            self.metadata[key] = _value(cursor, key)
        entries = [_tensor_entry(cursor, index) for index in range(tensors)]
        alignment = self.metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            raise _Damage(
                f"general.alignment is {reprlib.repr(alignment)}, expected a power of two"
            )
        start = -(-cursor.position // alignment) * alignment
        for name, kind, shape, offset in entries:
            if name in self.tensors:
                raise _Damage(f"tensor {name} occurs twice")
            if offset % alignment:
                raise _Damage(f"{name}: offset {offset}, expected a multiple of {alignment}")
            size = _tensor_bytes(name, kind, shape)
            if start + offset + size > len(cursor.data):
                raise _Damage(
                    f"{name}: ends at byte {start + offset + size} of {len(cursor.data)}"
                    " (truncated?)"
                )
            data = np.frombuffer(cursor.data, np.uint8, size, start + offset)
            self.tensors[name] = Tensor(kind, shape, data)


class _Damage(Exception):
    """What is wrong, without the file's name."""


class _Cursor:
    """Reads a mapped file onwards, never beyond its end."""

    def __init__(self, path: Path) -> None:
        if path.stat().st_size < len(MAGIC):
            raise _Damage("is no GGUF file: shorter than its magic number")
        with open(path, "rb") as file:
            # NumPy arrays on the map keep it alive after the file is closed.
            self.data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.position = 0

    def take(self, size: int, field: str) -> int:
        """Move on by `size` bytes; returns where they begin."""
        start = self.position
        if size > len(self.data) - start:
            raise _Damage(f"{field}: {size} bytes at byte {start} of {len(self.data)} (truncated?)")
        self.position = start + size
        return start

    def number(self, form: str, field: str) -> Any:
        """One number of a `struct` format."""
        start = self.take(struct.calcsize(form), field)
        return struct.unpack_from(form, self.data, start)[0]

    def count(self, field: str, least: int) -> int:
        """How many entries of at least `least` bytes follow."""
        count: int = self.number("<Q", field)
        if count > (len(self.data) - self.position) // least:
            raise _Damage(f"{field} is {count}, more than the file has room for")
        return count

    def name(self, field: str, most: int) -> str:
        """A string of limited length that can be shown in one line."""
        name = self.string(field, most)
        if not name.isprintable():
            raise _Damage(f"{field} is {reprlib.repr(name)}, expected printable characters")
        return name

    def string(self, field: str, most: int | None = None) -> str:
        size = self.number("<Q", f"length of {field}")
        if most is not None and size > most:
            raise _Damage(f"length of {field} is {size}, expected at most {most}")
        start = self.take(size, field)
        try:
            return self.data[start : start + size].decode()
        except UnicodeDecodeError:
            raise _Damage(f"{field} is not UTF-8") from None


def _check_version(cursor: _Cursor) -> None:
    start = cursor.take(len(MAGIC), "magic number")
    magic = cursor.data[start : cursor.position]
    if magic != MAGIC:
        raise _Damage(f"is no GGUF file: begins with {magic!r}, expected {MAGIC!r}")
    version = cursor.number("<I", "version")
    if version not in _VERSIONS:
        # A version is a small number: its bytes are swapped in a big-endian file.
        note = " (big-endian?)" if version and version % 65536 == 0 else ""
        raise _Damage(f"version is {version}{note}, expected 2 or 3, little-endian")


def _value(cursor: _Cursor, key: str) -> Any:
    kind = cursor.number("<I", f"type of {key}")
    if kind == _ARRAY:
        return _array(cursor, key)
    if kind == _STRING:
        return cursor.string(key)
    if kind not in _NUMBERS:
        raise _Damage(f"{key} has the type {kind}, expected 0 to 12")
    value = cursor.number(_NUMBERS[kind], key)
    if kind != _BOOL:
        return value
    if value > 1:
        raise _Damage(f"{key} is {value}, expected a bool of 0 or 1")
    return bool(value)


def _array(cursor: _Cursor, key: str) -> Any:
    kind = cursor.number("<I", f"type of {key}")
    if kind == _STRING:
        count = cursor.count(f"length of {key}", 8)
        return [cursor.string(key) for _ in range(count)]
    if kind not in _NUMBERS:
        raise _Damage(f"{key} is an array of the type {kind}, expected numbers or strings")
    dtype = np.dtype(_NUMBERS[kind])
    count = cursor.count(f"length of {key}", dtype.itemsize)
    start = cursor.take(count * dtype.itemsize, key)
    return np.frombuffer(cursor.data, dtype, count, start)


def _tensor_entry(cursor: _Cursor, index: int) -> tuple[str, int, tuple[int, ...], int]:
    """(name, type, shape with the rows first, offset)."""
    name = cursor.name(f"name of tensor {index}", _MAX_NAME)
    dimensions = cursor.number("<I", f"dimensions of {name}")
    if dimensions > _MAX_DIMENSIONS:
        raise _Damage(f"{name} has {dimensions} dimensions, expected at most {_MAX_DIMENSIONS}")
    sizes = [cursor.number("<Q", f"size of {name}") for _ in range(dimensions)]
    if 0 in sizes:
        raise _Damage(f"{name} has the sizes {sizes}, expected none to be 0")
    kind = cursor.number("<I", f"type of {name}")
    return name, kind, tuple(reversed(sizes)), cursor.number("<Q", f"offset of {name}")


def _tensor_bytes(name: str, kind: int, shape: tuple[int, ...]) -> int:
    """How many bytes a tensor takes; Python's integers do not overflow."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    count = 1
    for size in shape:
        count *= size
    if kind == I2_S:
        if count % 128:
            raise _Damage(f"{name} has {count} weights, expected a multiple of 128 (I2_S)")
        return count // 4 + 32
    sizes = {each.value: size for each, size in GGML_QUANT_SIZES.items()}
    if kind not in sizes:
        known = ", ".join(sorted({each.name for each in GGMLQuantizationType} | {"I2_S"}))
        raise _Damage(f"{name} has the type {kind}, expected one of {known}")
    block, size = sizes[kind]
    columns = shape[-1] if shape else 1
    if columns % block:
        raise _Damage(f"{name} has rows of {columns}, expected a multiple of {block}")
    return count // block * size
