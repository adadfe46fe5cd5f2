"""The stacked model file: residual blocks in the order in which they matter (`ternops.stacks`).

It is a packed model file (`packed`) of format "ternops stack model" but for its linear layers; its
metadata have no "encoding". A block of a matrix is three tensors, filled up with zeros to whole
cache lines and one more:

    layers.0.q.blocks.0.signs   U8   as one_bit packs them, without its SLACK
    layers.0.q.blocks.0.left    F16  (outputs, k), row by row
    layers.0.q.blocks.0.right   F16  (k, inputs), row by row

They are the end of the file. Their order is what memory is spent on: the first block of each
matrix, then always the one that says most for its bytes. So a model that has room for some of them
is the file up to there, and a few numbers.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt
import safetensors

from ternops.decoder.formats.packed import PackedFile
from ternops.decoder.formats.packed_header import VERSION, whole_lines
from ternops.decoder.formats.part_file import PART_FORMAT, PartFile
from ternops.decoder.stacked import BlockBytes, ResidentStack
from ternops.encodings.one_bit import ONE_BIT
from ternops.kernels.stacked import MAX_RANK, SLACK_BYTES

#: The version is that of packed files, whose config it has.
STACK_FORMAT, STACK_VERSION = "ternops stack model", VERSION
PARTS = ("signs", "left", "right")
_SIGNS = re.compile(r"layers\.(\d{1,9})\.(\w+)\.blocks\.(\d{1,9})\.signs")


class Place(NamedTuple):
    """A block in the order of the file: which it is, and where its bytes end."""

    layer: int
    name: str
    number: int
    end: int


def room_of(nbytes: int) -> int:
    """Of a part of a block in the file: with what kernels may read behind it."""
    return whole_lines(nbytes) + SLACK_BYTES


class StackFile(PackedFile):
    """A file that ``python -m ternops stack`` wrote, mapped into memory.

    As `PackedFile`: what does not count is not even read, and `limit` says how much counts.
    """

    _versions: ClassVar = ((STACK_FORMAT, STACK_VERSION),)

    def _check_encoding(self) -> None:
        self.rank = int(self._text("rank"))
        if not 1 <= self.rank <= MAX_RANK:
            raise ValueError(f"rank {self.rank}, expected 1 to {MAX_RANK}")
        self._stacks: dict[tuple[int, str], ResidentStack] = {}
        self._places = sorted(self._find_places(), key=lambda place: place.end)
        self.encoding = ONE_BIT.name

    def _find_places(self) -> Iterator[Place]:
        for tensor, mapped in self._tensors.of.items():
            if match := _SIGNS.fullmatch(tensor):
                prefix = tensor.removesuffix(PARTS[0])
                ends = [self._end(prefix + part) for part in PARTS]
                yield Place(int(match[1]), match[2], int(match[3]), max(mapped.start, *ends))

    def _end(self, name: str) -> int:
        if name not in self._tensors.of:
            raise ValueError(f"tensor {name} is missing")
        return self._tensors.of[name].start + self._tensors.of[name].bytes.nbytes

    def _check_tensors(self) -> None:
        super()._check_tensors()
        found: dict[tuple[int, str], int] = {}
        for at, place in enumerate(self._places):
            key = place[:2]
            first = at < len(self._stacks)
            if (
                key not in self._stacks
                or found.get(key, 0) != place.number
                or first == (key in found)
            ):
                raise ValueError(
                    f"layers.{place.layer}.{place.name}.blocks.{place.number} is out of order"
                )
            found[key] = place.number + 1

    def _check_linear(self, layer: int, name: str) -> None:
        rows, columns = self.config.linear_shapes(layer)[name]
        sizes = (ONE_BIT.nbytes(rows, columns), rows * self.rank, self.rank * columns)
        blocks: list[BlockBytes] = []
        while not blocks or f"layers.{layer}.{name}.blocks.{len(blocks)}.signs" in self._tensors.of:
            prefix = f"layers.{layer}.{name}.blocks.{len(blocks)}"
            parts: list[npt.NDArray[Any]] = []
            for part, dtype, size in zip(PARTS, ("U8", "F16", "F16"), sizes, strict=True):
                width = 1 if dtype == "U8" else 2
                shape = (room_of(width * size) // width,)
                array = self._tensors.array(f"{prefix}.{part}", dtype, shape)
                parts.append(array[:size] if dtype == "U8" else array[:size].view(np.float16))
            blocks.append(BlockBytes(*parts))
        self._stacks[layer, name] = ResidentStack(blocks, rows, columns)

    def half(self, layer: int, name: str) -> ResidentStack:
        stack = self._stacks[layer, name]
        for block in stack.blocks[: stack.count]:
            if not (np.isfinite(block.left).all() and np.isfinite(block.right).all()):
                raise ValueError(f"checkpoint: {name} in layer {layer} holds NaN or infinity")
        return stack

    def trits(self, layer: int, name: str) -> NoReturn:
        raise ValueError(
            f"model: {str(self._path)!r} is a stack of residual blocks, which has no other form: "
            "expected weights='ternary', the default, and no conversion"
        )

    def matrix(self, layer: int, name: str, encoding: str) -> NoReturn:
        self.trits(layer, name)

    def preferred_encoding(self) -> str:
        return "half"

    @property
    def fixed_bytes(self) -> int:
        """Of all that is no block: the embedding, norms, the head."""
        return sum(
            each.bytes.nbytes
            for name, each in self._tensors.of.items()
            if ".blocks." not in name and name != "tokenizer"
        )

    @property
    def sizes(self) -> list[int]:
        """Bytes of weights with each number of blocks there can be, from the least on."""
        totals, least = [], len(self._stacks)
        total = self.fixed_bytes
        for at, place in enumerate(self._places, 1):
            total += self._stacks[place[:2]].blocks[place.number].nbytes
            if at >= least:
                totals.append(total)
        return totals

    def limit(self, nbytes: int) -> None:
        """Let as many blocks count as take, with all else, at most so many bytes.

        Raises ValueError where that is less than one block of each matrix.
        """
        sizes = self.sizes
        if nbytes < sizes[0]:
            raise ValueError(f"memory={nbytes:,}: expected {sizes[0]:,} bytes at least")
        used = len(self._stacks) + sum(size <= nbytes for size in sizes[1:])
        counts: dict[tuple[int, str], int] = {}
        for place in self._places[:used]:
            counts[place[:2]] = place.number + 1
        for key, count in counts.items():
            self._stacks[key].count = count
        self._let_go(self._places[used - 1].end)

    def _let_go(self, start: int) -> None:
        """Keep the pages behind a byte of the file out of memory until they are read again."""
        base: Any = self._tensors.of["norm"].bytes
        while not isinstance(base, mmap.mmap):
            base = base.base
        first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        if hasattr(base, "madvise") and first < len(base):
            base.madvise(mmap.MADV_DONTNEED, first)


def open_packed(path: Path) -> PackedFile:
    """A packed model file of any format; raises ValueError for anything else."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            found = (file.metadata() or {}).get("format")
    except (safetensors.SafetensorError, OSError):
        found = None  # which says what is wrong with it
    return {STACK_FORMAT: StackFile, PART_FORMAT: PartFile}.get(str(found), PackedFile)(path)


def check_stack(checkpoint: Any, name: str) -> StackFile:
    """Raise ValueError, naming the argument, for what is no stack of residual blocks."""
    if not isinstance(checkpoint, StackFile):
        raise ValueError(
            f"{name}: the model is no stack of residual blocks, expected what python -m ternops "
            "stack wrote"
        )
    return checkpoint
