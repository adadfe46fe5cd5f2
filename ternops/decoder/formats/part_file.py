"""One of several files that are a packed model together, each with the part of one process.

It is a packed model file (`packed`) of format "ternops model part" but for the rows that its
matrices have: those that `ternops.ranks.split` shares out to the process of its number. Of the
layers it has those of the process's stage, of embedding and head no rows behind the first stage;
norms and other vectors are whole. The tokenizer is in the first part alone. Its metadata have

    part     JSON: "rank", from 0, of how many "ranks", and "bounds", the first layer of each stage
             of the pipeline and the number of layers
    digest   hexadecimal, the same in all parts of a model and in no others

The files of a folder are called part-00001-of-00004.safetensors and so on: that of rank 0 is the
first. A process needs no other than its own.
"""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import ClassVar, NamedTuple

from ternops.decoder.formats.packed import PackedFile
from ternops.decoder.formats.packed_header import DIGEST, VERSION
from ternops.decoder.parts import check_shared_out
from ternops.decoder.weights import HalfMatrix
from ternops.matrix import TernaryMatrix
from ternops.ranks.split import Layout, Split, parse_layout, split_of
from ternops.shown import shown

PART_FORMAT = "ternops model part"
_NAME = re.compile(r"part-(\d{5})-of-(\d{5})\.safetensors")
#: The most parts that names have room for.
MAX_PARTS = 99_999


class Part(NamedTuple):
    """Which part of a model: of which rank, of how many, and the stages' `bounds`."""

    rank: int
    ranks: int
    bounds: tuple[int, ...]

    @property
    def layout(self) -> Layout:
        """Of all parts."""
        stages = len(self.bounds) - 1
        return Layout(self.ranks // stages, stages)

    def to_json(self) -> str:
        """As metadata have it."""
        return json.dumps(self._asdict())

    def __str__(self) -> str:
        return f"part {self.rank + 1} of {self.ranks} ({self.layout})"


def part_name(rank: int, ranks: int) -> str:
    """The name of the file of a rank."""
    return f"part-{rank + 1:05}-of-{ranks:05}.safetensors"


def find_part(folder: Path, rank: int) -> Path | None:
    """The file of a rank in a folder of parts; None for a folder without any.

    Raises FileNotFoundError where that of the rank is missing, ValueError for parts of several
    numbers of ranks.
    """
    found = sorted(each.name for each in folder.iterdir() if _NAME.fullmatch(each.name))
    if not found:
        return None
    counts = {name.removesuffix(".safetensors").rsplit("-", 1)[1] for name in found}
    if len(counts) > 1:
        numbers = " and of ".join(str(int(each)) for each in sorted(counts))
        raise ValueError(f"model: {str(folder)!r} holds parts of {numbers}, expected those of one")
    ranks = int(counts.pop())
    if rank >= ranks:
        raise ValueError(f"model: {str(folder)!r}: {_needs(ranks)}, found a rank {rank}")
    name = part_name(rank, ranks)
    if name not in found:
        first = ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")
        raise FileNotFoundError(
            f"model: {str(folder)!r} holds {first}, and not {name}, which rank {rank} reads"
        )
    return folder / name


class PartFile(PackedFile):
    """A file that ``python -m ternops quantize --shards`` wrote, mapped into memory.

    As `PackedFile`, and the matrices have the rows of a part: they are given to who has said by
    `take` that it is theirs, so that nobody takes them for the whole.
    """

    _versions: ClassVar = ((PART_FORMAT, VERSION),)

    def _check_encoding(self) -> None:
        super()._check_encoding()
        check_shared_out(self.config)
        self.part = _parse(self._text("part"), self.config.layers)
        self.digest = self._text(DIGEST)
        self.split = split_of(self.config, *self.part)
        self._is_taken = False

    def take(self, split: Split) -> None:
        """Raises ValueError unless that is the part of this file."""
        if split.is_whole:
            self._check_taken()
        if split != self.split:
            whose = f"rank {split.stage * split.ranks + split.rank}"
            layout = Layout(split.ranks, split.stages)
            raise ValueError(
                f"model: {str(self._path)!r} is {self.part}, found {whose} of {layout.ranks} "
                f"({layout}), expected the folder of all parts, and their layout"
            )
        self._is_taken = True

    def bounds_for(self, ranks: int, layout: str | None) -> list[int]:
        """Of the stages of so many processes; ValueError for those of which it is no part.

        layout: what the user says of it.
        """
        if ranks != self.part.ranks:
            raise ValueError(f"model: {str(self._path)!r}: {_needs(self.part.ranks)}, not {ranks}")
        if layout is not None and parse_layout(layout, ranks) != self.part.layout:
            raise ValueError(
                f"layout {layout!r}: expected {str(self.part.layout)!r}, as the parts of the model "
                "are, or none"
            )
        return list(self.part.bounds)

    def matrix(self, layer: int, name: str, encoding: str) -> TernaryMatrix | HalfMatrix:
        self._check_taken()
        return super().matrix(layer, name, encoding)

    def embedding(self) -> HalfMatrix | TernaryMatrix:
        self._check_taken()
        return super().embedding()

    def head(self) -> HalfMatrix | TernaryMatrix:
        self._check_taken()
        return super().head()

    def _check_taken(self) -> None:
        if not self._is_taken:
            raise ValueError(
                f"model: {str(self._path)!r} is {self.part}: {_needs(self.part.ranks)}"
            )

    @property
    def _layers(self) -> range:
        return range(*self.split.layers)

    def _linear_shape(self, layer: int, name: str) -> tuple[int, int]:
        return self.split.rows(name).size, super()._linear_shape(layer, name)[1]

    def _table_shape(self, name: str) -> tuple[int, int]:
        rows = self.split.embedding if name == "embedding" else self.split.vocabulary
        return rows.size, self.config.hidden


def _needs(ranks: int) -> str:
    return f"expected {ranks} processes, started by mpirun -n {ranks}"


def _parse(text: str, layers: int) -> Part:
    """What `Part.to_json` wrote; ValueError for anything else."""
    try:
        found = json.loads(text)
        part = Part(found["rank"], found["ranks"], tuple(found["bounds"]))
        whole = all(type(each) is int for each in (*part[:2], *part.bounds))
        good = whole and 0 <= part.rank < part.ranks <= MAX_PARTS and _are_stages(part, layers)
    except (ValueError, KeyError, TypeError, RecursionError):
        good = False
    if not good:
        raise ValueError(f"part is {shown(text)}, expected a rank, ranks and bounds")
    return part


def _are_stages(part: Part, layers: int) -> bool:
    """Whether each stage has layers, and as many ranks as others."""
    bounds = part.bounds
    return (
        len(bounds) > 1
        and (bounds[0], bounds[-1]) == (0, layers)
        and all(a < b for a, b in itertools.pairwise(bounds))
        and part.ranks % (len(bounds) - 1) == 0
    )
