"""The file of compiled kernels: what they were compiled from and for, and object code.

Bytes: MAGIC; the length of the header, 4 bytes, and its CRC-32, 4 bytes, both with the least
significant byte first; the header, JSON, which is {"digest", "platform", "cpu", "features",
"kernels": {key: [symbol, offset, size, CRC-32]}}; object code, each kernel's from its offset on,
which counts from the header's end. Nothing in it is executed before its CRC was compared.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAGIC = b"ternops kernels 1\n"
_NUMBER = 4


@dataclass(frozen=True)
class Origin:
    """What a file's kernels come from: the digest of the sources, and what LLVM was told.

    platform: the architecture and the system. features: as LLVM takes them, "+avx2".
    """

    digest: str
    platform: str
    cpu: str
    features: tuple[str, ...]


@dataclass(frozen=True)
class Objects:
    """An open file's header. kernels: key -> symbol, offset in the file, size, CRC-32."""

    path: Path
    origin: Origin
    kernels: dict[str, tuple[str, int, int, int]]

    def read(self, key: str) -> tuple[bytes, str] | None:
        """The object code and entry symbol of a kernel; None if it has none, or is damaged."""
        if key not in self.kernels:
            return None
        symbol, offset, size, crc = self.kernels[key]
        try:
            with open(self.path, "rb") as file:
                if offset + size > os.fstat(file.fileno()).st_size:
                    return None
                file.seek(offset)
                code = file.read(size)
        except OSError:
            return None
        return (code, symbol) if len(code) == size and zlib.crc32(code) == crc else None


def open_objects(path: Path) -> Objects | None:
    """The header of a file; None if there is none, or it is damaged in whatever way."""
    try:
        with open(path, "rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                return None
            length, crc = (int.from_bytes(file.read(_NUMBER), "little") for _ in range(2))
            if length > os.fstat(file.fileno()).st_size:  # whose room would be made first
                return None
            header = file.read(length)
            if len(header) != length or zlib.crc32(header) != crc:
                return None
            start = file.tell()
        found = json.loads(header)
        origin = Origin(found["digest"], found["platform"], found["cpu"], tuple(found["features"]))
        kernels = {
            key: (symbol, start + offset, size, crc)
            for key, (symbol, offset, size, crc) in found["kernels"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return None
    return Objects(path, origin, kernels)


def as_bytes(origin: Origin, kernels: Iterable[tuple[str, bytes, str]]) -> bytes:
    """A file of kernels: the key, object code and entry symbol of each."""
    places, codes, offset = {}, [], 0
    for key, code, symbol in kernels:
        places[key] = (symbol, offset, len(code), zlib.crc32(code))
        codes.append(code)
        offset += len(code)
    found: dict[str, Any] = {
        "digest": origin.digest, "platform": origin.platform, "cpu": origin.cpu,
        "features": origin.features, "kernels": places,
    }  # fmt: skip
    header = json.dumps(found).encode()
    numbers = (len(header), zlib.crc32(header))
    return b"".join(
        (MAGIC, *(each.to_bytes(_NUMBER, "little") for each in numbers), header, *codes)
    )
