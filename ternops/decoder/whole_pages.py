"""The whole of what several processes have a part of each, for the file of a session: keys and
values of all layers and heads, and what tells a model from others.

The first process asks for it, or hands it out, and each other one sends or takes its part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ternops.decoder.config import Config
from ternops.decoder.deltas import fingerprint, first_row
from ternops.decoder.weights import Weights
from ternops.ranks.group import CONTENT, RESTORE, ROWS, Group, uninterrupted
from ternops.ranks.split import Split

Bytes = npt.NDArray[np.uint8]


class WholePages:
    """Pages of keys and values with all layers and heads, as one process alone has them.

    head_bytes: of a head's keys and values in a layer. nbytes: of a page.
    """

    def __init__(self, group: Group, config: Config, head_bytes: int) -> None:
        self._group, self._config = group, config
        self._shape = config.layers, config.kv_heads, head_bytes
        self.nbytes = config.layers * config.kv_heads * head_bytes

    def gather(self, own: Bytes, addresses: Sequence[int]) -> Bytes:
        """All of pages (pages, bytes) of which this process has its own part, by what they are
        called in orders."""
        whole = np.zeros((len(own), *self._shape), np.uint8)
        with uninterrupted():
            self._group.send(CONTENT, np.array(addresses, np.int64))
            for rank, split in enumerate(self._group.every(self._config)):
                part = self._part(whole, split)
                found = own.reshape(part.shape) if rank == 0 else np.empty(part.shape, np.uint8)
                if rank:
                    self._group.take_from(rank, found)
                part[:] = found
        return whole.reshape(len(own), self.nbytes)

    def scatter(self, whole: Bytes, addresses: Sequence[int]) -> Bytes:
        """Have every process put its part of pages (pages, bytes) into its own; the part of this
        one."""
        table = whole.reshape(len(whole), *self._shape)
        first, *others = (
            np.ascontiguousarray(self._part(table, split))
            for split in self._group.every(self._config)
        )
        with uninterrupted():
            self._group.send(RESTORE, np.array(addresses, np.int64))
            for rank, part in enumerate(others, 1):
                self._group.give_to(rank, part)
        return first.reshape(len(whole), first[0].size if len(whole) else 0)

    @staticmethod
    def _part(table: npt.NDArray[Any], split: Split) -> npt.NDArray[Any]:
        """Of (pages, layers, heads, bytes) what a process has."""
        layers, keys = split.layers, split.keys
        return table[:, layers.first : layers.last, keys.first : keys.last]


def fingerprint_of_parts(group: Group, weights: Weights) -> str:
    """As `deltas.fingerprint_of` tells a model from others. weights: those of this process."""
    rows: dict[tuple[int, str], npt.NDArray[Any]] = {}
    with uninterrupted():
        group.send(ROWS, np.empty(0, np.int64))
        for rank, split in enumerate(group.every(weights.config)):
            names = list(_first_rows(weights.config, split))
            if rank == 0:
                found = _rows_here(weights, split)
            else:
                found = np.empty(sum(size for *_, size in names), np.float16)
                group.take_from(rank, found)
            for layer, name, size in names:
                rows[layer, name], found = found[:size], found[size:]
    return fingerprint(weights.config, rows)


def give_rows(group: Group, weights: Weights) -> None:
    """This process's part of that, for the first one."""
    group.give_to(0, _rows_here(weights, group.every(weights.config)[group.rank]))


def give_pages(group: Group, pages: Sequence[Bytes]) -> None:
    """This process's part of what `WholePages.gather` gathers."""
    group.give_to(0, np.concatenate([np.empty(0, np.uint8), *pages]))


def take_pages(group: Group, pages: Sequence[Bytes]) -> None:
    """This process's part of what `WholePages.scatter` hands out."""
    found = np.empty(sum(each.size for each in pages), np.uint8)
    group.take_from(0, found)
    for page in pages:
        page[:], found = found[: page.size], found[page.size :]


def _first_rows(config: Config, split: Split) -> Iterator[tuple[int, str, int]]:
    """Layer, name and columns of the matrices whose first row a process has."""
    for layer in range(*split.layers):
        for name, (_, columns) in config.linear_shapes(layer).items():
            span = split.rows(name)
            if span.first == 0 and span.size:
                yield layer, name, columns


def _rows_here(weights: Weights, split: Split) -> npt.NDArray[np.float16]:
    with np.errstate(over="ignore"):
        found = [
            first_row(weights.layers[layer - split.layers.first].linear[name]).astype(np.float16)
            for layer, name, _ in _first_rows(weights.config, split)
        ]
    return np.concatenate([np.empty(0, np.float16), *(each.reshape(-1) for each in found)])
