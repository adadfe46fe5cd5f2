"""What is tried, as data: shape classes, the sizes at which they are measured, and the order.

To tune another kernel: a shape class in `ternops.kernels.tiles` with its candidates, and a line in
SUBJECTS.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

from ternops.encodings import ENCODINGS, TERNARY
from ternops.encodings.blocks import Blocks, GemvTile
from ternops.isa.detect import FAMILY, TIER
from ternops.isa.tier import GemmTile
from ternops.kernels.tiles import MANY, Tile, candidates, default_tile, kinds_of


class Shape(NamedTuple):
    """Of a matrix, and how many tokens are multiplied with it."""

    rows: int
    columns: int
    tokens: int = 1


class Subject(NamedTuple):
    """A shape class. is_cached: measured on weights that caches hold, and beside no read probes.

    first: how many candidates are tried at first. all_threads_only: not on a single one besides.
    """

    kind: str
    shapes: tuple[Shape, ...]
    first: int
    is_cached: bool = False
    all_threads_only: bool = False


#: The gate and the down matrix of BitNet b1.58 2B4T: long rows and short ones, in a model's layers.
_DECODED = (Shape(6912, 2560), Shape(2560, 6912))
SUBJECTS = (
    Subject("stream", _DECODED, first=8),
    Subject("one", (Shape(1024, 2560),), first=5, is_cached=True),
    Subject("few", (Shape(2560, 6912, tokens=8),), first=4, all_threads_only=True),
    Subject(MANY, (Shape(2560, 6912, tokens=512),), first=3, is_cached=True, all_threads_only=True),
)


class Task(NamedTuple):
    """A subject of one encoding."""

    encoding: str
    subject: Subject

    @property
    def default(self) -> Tile:
        """The table's tile here."""
        return default_tile(ENCODINGS[self.encoding], self.subject.kind, TIER, FAMILY)

    def first(self) -> list[Tile]:
        """The default and the likeliest others, of each form one."""
        tiles = {_form(self.default): self.default}
        for tile in candidates(self.encoding, self.subject.kind, TIER):
            tiles.setdefault(_form(tile), tile)
        return list(tiles.values())[: self.subject.first]

    def variants(self, best: list[Tile]) -> list[Tile]:
        """Some tiles, and those that differ from them in what `first` leaves as it is."""
        forms = {_form(tile) for tile in best}
        tiles = candidates(self.encoding, self.subject.kind, TIER)
        return [*best, *(each for each in tiles if _form(each) in forms and each not in best)]


def _form(tile: Tile) -> Tile:
    """A tile apart from what is tried once its form is known."""
    if isinstance(tile, GemmTile):
        return tile._replace(block_bytes=0)
    return tile._replace(ahead=0, panel=0, run=1) if isinstance(tile, GemvTile) else tile


def tasks() -> Iterator[Task]:
    """The most rewarding first: matrices of models, in the encodings that "auto" chooses among."""

    def rank(name: str) -> int:
        return (name in TERNARY) + isinstance(ENCODINGS[name], Blocks)

    for wanted, subject in product((2, 1), SUBJECTS):
        for name, encoding in ENCODINGS.items():
            if rank(name) == wanted and subject.kind in kinds_of(encoding):
                yield Task(name, subject)
