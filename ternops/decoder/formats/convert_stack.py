"""Writing the stacked model file: decomposing every matrix, and the order of the blocks."""

from __future__ import annotations

import heapq
import itertools
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ternops.decoder.calibration import Key, float_matrix
from ternops.decoder.formats.checkpoint import Checkpoint
from ternops.decoder.formats.convert import (
    check_target,
    metadata_of,
    tokenizer_of,
)
from ternops.decoder.formats.packed_writing import Tensor
from ternops.decoder.formats.stack_file import PARTS, STACK_FORMAT, STACK_VERSION, room_of
from ternops.decoder.formats.whole_file import plain_tensors, write_whole
from ternops.decoder.stacked import packed_signs
from ternops.files import behind_links, replaced
from ternops.stacks.blocks import Block
from ternops.stacks.decompose import activity, decompose
from ternops.stacks.matrix import BLOCKS, RANK, check_counts

Array = npt.NDArray[Any]


class Sized(NamedTuple):
    """A block of a matrix: its bytes, and the share of the matrix's squared sum that it takes off
    what is left."""

    nbytes: int
    gain: float


def stack_model(
    checkpoint: Checkpoint,
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    blocks: int = BLOCKS,
    rank: int = RANK,
    activations: Mapping[Key, Array] | None = None,
    progress: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Decompose the linear layers of a checkpoint, and write them as `StackFile` reads them.

    activations: what comes into each layer (`ternops.decoder.calibration`), by which columns then
    count. The file appears whole or not at all; blocks lie in a folder beside it until their order
    is known. progress: called with the matrices done and their number.
    Raises ValueError and OSError as `ternops.decoder.formats.convert.convert`.
    """
    check_counts(blocks, rank)
    path, config = behind_links(target), checkpoint.config
    check_target(Path(source), path)
    metadata = {
        **metadata_of(checkpoint, ""), "format": STACK_FORMAT, "version": STACK_VERSION,
        "rank": str(rank),
    }  # fmt: skip
    del metadata["encoding"]
    tokenizer = tokenizer_of(checkpoint, say)
    keys = [(at, name) for at in range(config.layers) for name in config.linear_shapes(at)]
    found: dict[Key, list[Sized]] = {}
    with (
        replaced(path) as temporary,
        tempfile.TemporaryDirectory(prefix=f"{path.name}.", dir=temporary.parent) as folder,
    ):
        for done, key in enumerate(keys):
            if progress:
                progress(done, len(keys))
            given = None if activations is None else activations[key]
            found[key] = list(
                _decomposed(float_matrix(checkpoint, *key), blocks, rank, given, _stem(folder, key))
            )
        of_blocks = (_block_tensors(_stem(folder, key), key, at) for key, at in order_of(found))
        plain = plain_tensors(checkpoint, config, tokenizer)
        tensors = itertools.chain(plain, *of_blocks)
        write_whole(temporary, metadata, tensors, len(keys) * (3 * blocks + 4) + 8)
    if progress:
        progress(len(keys), len(keys))


def order_of(found: Mapping[Key, list[Sized]]) -> Iterator[tuple[Key, int]]:
    """The first block of each matrix, then always the one that gains most for its bytes."""
    for key in found:
        yield key, 0

    def entry(key: Key, number: int) -> tuple[float, Key, int]:
        block = found[key][number]
        return -block.gain / block.nbytes, key, number

    heap = [entry(key, 1) for key, blocks in found.items() if len(blocks) > 1]
    heapq.heapify(heap)
    while heap:
        _, key, number = heapq.heappop(heap)
        yield key, number
        if number + 1 < len(found[key]):
            heapq.heappush(heap, entry(key, number + 1))


def _decomposed(
    weight: Array, blocks: int, rank: int, given: Array | None, stem: str
) -> Iterator[Sized]:
    """Write each block of a matrix, and say what it is worth."""
    scale = activity(given, weight.shape[1])
    rest = weight * scale
    total = max(_squares(rest), np.finfo(np.float64).tiny)
    before = _squares(rest)
    for number, block in enumerate(decompose(weight, blocks, rank, given)):
        rest -= block.dense * scale
        after = _squares(rest)
        parts: dict[str, Any] = _parts(block)
        np.savez(f"{stem}.{number}.npz", **parts)
        nbytes = sum(each.nbytes for each in parts.values())
        yield Sized(nbytes, (before - after) / total)
        before = after


def _squares(array: Array) -> float:
    return float(np.square(array, dtype=np.float64).sum())


def _parts(block: Block) -> dict[str, Array]:
    arrays = packed_signs(block.signs), block.left.reshape(-1), block.right.reshape(-1)
    return dict(zip(PARTS, arrays, strict=True))


def _stem(folder: str, key: Key) -> str:
    return os.path.join(folder, f"{key[0]}.{key[1]}")


def _block_tensors(stem: str, key: Key, number: int) -> Iterator[Tensor]:
    with np.load(f"{stem}.{number}.npz", allow_pickle=False) as parts:
        for part in PARTS:
            array = parts[part]
            missing = (room_of(array.nbytes) - array.nbytes) // array.itemsize
            name = f"layers.{key[0]}.{key[1]}.blocks.{number}.{part}"
            dtype = "U8" if array.itemsize == 1 else "F16"
            yield name, dtype, np.pad(array, (0, missing))
