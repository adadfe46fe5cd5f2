"""Writing a file in the format of packed ones in one go, its header at the end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ternops.decoder.config import Config
from ternops.decoder.formats.checkpoint import Checkpoint
from ternops.decoder.formats.packed_header import whole_lines
from ternops.decoder.formats.packed_writing import (
    Tensor,
    append_tensor,
    filled,
    float_tensors,
    header_of,
    table_tensors,
)
from ternops.decoder.weights import HalfMatrix
from ternops.matrix import TernaryMatrix

#: More than the header's entry of any tensor, with its checksum, can take.
_ENTRY = 240


class _Sink:
    """What is written behind some room for the header."""

    def __init__(self, raw: Any, room: int) -> None:
        self._raw, self.size = raw, room
        raw.write(bytes(room))

    def append(self, data: Any) -> None:
        self._raw.write(data)
        self.size += memoryview(data).nbytes


def write_whole(path: Path, metadata: dict[str, str], tensors: Iterable[Tensor], most: int) -> None:
    """Write metadata and tensors, of which there are at most so many."""
    room = whole_lines(2 * len(str(metadata)) + most * _ENTRY)
    with open(path, "wb") as raw:
        file = _Sink(raw, room)
        entries = [append_tensor(file, *each) for each in tensors]
        raw.seek(0)
        raw.write(header_of(metadata, entries, room))


def plain_tensors(checkpoint: Checkpoint, config: Config, tokenizer: bytes) -> Iterator[Tensor]:
    """All of a model but its linear layers."""
    if tokenizer:
        yield "tokenizer", "U8", np.frombuffer(tokenizer, np.uint8)
    yield from table_tensors("embedding", _floats(checkpoint.embedding()))
    if not config.tied:
        yield from table_tensors("head", _floats(checkpoint.head()))
    yield "norm", "F32", filled(checkpoint.final_norm())
    for layer in range(config.layers):
        yield from float_tensors(checkpoint, layer)


def _floats(table: HalfMatrix | TernaryMatrix) -> HalfMatrix:
    """As a decoder will hold it: a model has trits in all of its matrices, or in none."""
    return table if isinstance(table, HalfMatrix) else HalfMatrix.from_floats(table.to_dense())
