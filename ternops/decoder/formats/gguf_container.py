"""The container of a GGUF file: its metadata and the places of its tensors, checked while read.

The format is that of ggml-org/ggml, docs/gguf.md. It is read here in one bounded pass: the reader
of the `gguf` package trusts every length, knows only some types, and takes seconds for the hundred
thousands of strings of a tokenizer.
"""

from __future__ import annotations

import itertools
import mmap
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np

from ternops.decoder.formats.placeholders import check_fetched
from ternops.shown import shown

MAGIC = b"GGUF"
#: The name of a part of a file that llama.cpp's gguf-split cut.
_SPLIT = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)

_VERSIONS = (2, 3)
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


class Part:
    """One file. entries: name, number of the type, shape and place in the file of each tensor."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metadata: dict[str, Any] = {}
        try:
            self._read(_Cursor(path))
        except _Damage as damage:
            raise self.error(str(damage)) from None

    def error(self, reason: str) -> ValueError:
        """With the file's name."""
        return ValueError(f"model: {str(self.path)!r}: {reason}")

    def check_place(self, at: int, count: int) -> None:
        """Whether it is the part that its name says, of as many."""
        place = self.metadata.get("split.no", 0), self.metadata.get("split.count", 0) or 1
        if place != (at, count):
            raise self.error(
                f"split.no and split.count are {shown(place[0])} and "
                f"{shown(place[1])}, expected {at} and {count}"
            )

    def of_type(self, number: int) -> list[tuple[tuple[int, ...], int, int]]:
        """The tensors of a type as `layout_of` takes them."""
        ends = [*sorted({start for *_, start in self.entries}), len(self.data)]
        after = dict(itertools.pairwise(ends))
        return [
            (shape, after[start] - start, self.alignment)
            for _, each, shape, start in self.entries
            if each == number
        ]

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
        self.alignment = self.metadata.get("general.alignment", 32)
        step = self.alignment
        if not isinstance(step, int) or step < 1 or step & (step - 1):
            raise _Damage(f"general.alignment is {shown(step)}, expected a power of two")
        start = -(-cursor.position // step) * step
        self.data = cursor.data
        self.entries: list[tuple[str, int, tuple[int, ...], int]] = []
        for name, number, shape, offset in entries:
            if offset % step:
                raise _Damage(f"{name}: offset {offset}, expected a multiple of {step}")
            if start + offset >= len(self.data):
                raise _Damage(
                    f"{name}: begins at byte {start + offset} of {len(self.data)} (truncated?)"
                )
            self.entries.append((name, number, shape, start + offset))


def is_later_part(path: Path) -> bool:
    """Whether it is a part, but not the first, of a file that was split, as its name says."""
    match = _SPLIT.fullmatch(path.name)
    return match is not None and int(match["number"]) > 1


def parts_of(name: str) -> list[str]:
    """The names of all parts of the file whose first part, or whole, has this name."""
    match = _SPLIT.fullmatch(name)
    if match is None:
        return [name]
    count = int(match["count"])
    return [f"{match['stem']}-{at:05}-of-{count:05}.gguf" for at in range(1, count + 1)]


def other_parts(path: Path, metadata: dict[str, Any]) -> list[Path]:
    """The files that follow the first one of a file that was split."""
    count = metadata.get("split.count", 0)
    if count in (0, 1):
        return []
    match = _SPLIT.fullmatch(path.name)
    if not isinstance(count, int) or match is None or int(match["count"]) != count:
        raise ValueError(
            f"model: {str(path)!r}: split.count is {shown(count)}, expected a name that "
            "ends with -00001-of-, that number and .gguf"
        )
    names = parts_of(path.name)
    if path.name != names[0]:
        raise ValueError(f"model: {str(path)!r} is a part, expected the path of {shown(names[0])}")
    paths = [path.with_name(name) for name in names[1:]]
    for each in paths:
        if not each.is_file():
            raise FileNotFoundError(f"model: {str(path)!r}: its part {each.name!r} is missing")
        check_fetched(each)
    return paths


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
            raise _Damage(f"{field} is {shown(name)}, expected printable characters")
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
