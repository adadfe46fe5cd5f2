"""The file of one StackMatrix: safetensors, whose blocks are read one by one."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from ternops.checksum import of_arrays
from ternops.encodings.common import SLACK
from ternops.encodings.one_bit import ONE_BIT
from ternops.files import replaced
from ternops.kernels.stacked import MAX_RANK
from ternops.matrix import TernaryMatrix
from ternops.packed import TERMS_LIMIT, Packed
from ternops.shown import in_line, shown
from ternops.stacks.blocks import MAX_BLOCKS, PackedBlock

Array = npt.NDArray[Any]

_FORMAT, _VERSION = "ternops stack", "1"
_PARTS = ("signs", "left", "right")


def write(
    path: str | os.PathLike[str],
    blocks: tuple[PackedBlock, ...],
    shape: tuple[int, int],
    transposed: bool,
) -> None:
    """Write a file, whole or not at all; raises OSError for what cannot be written."""
    parts = [(b.signs._packed.bytes, b.left, b.right) for b in blocks]
    tensors = {
        f"{at}.{name}": np.ascontiguousarray(array)
        for at, block in enumerate(parts)
        for name, array in zip(_PARTS, block, strict=True)
    }
    metadata = {
        "format": _FORMAT,
        "version": _VERSION,
        "rows": str(shape[0]),
        "columns": str(shape[1]),
        "rank": str(len(blocks[0].right)),
        "transposed": str(int(transposed)),
        "crc32": " ".join(of_arrays(block) for block in parts),
    }
    with replaced(path) as temporary:
        temporary.write_bytes(safetensors.numpy.save(tensors, metadata))


def read(
    path: str | os.PathLike[str], nbytes: int | None
) -> tuple[tuple[PackedBlock, ...], tuple[int, int], bool]:
    """What `write` was given, or the first blocks of it that nbytes have room for.

    Raises FileNotFoundError if it does not exist, ValueError, naming what is wrong, if it is cut
    off, damaged, or not such a file, and where no block fits.
    """
    name = os.fspath(path)
    if not os.path.isfile(name):
        raise FileNotFoundError(f"path: {name!r} is not a file")
    try:
        with safetensors.safe_open(name, framework="numpy") as file:
            shape, rank, transposed, checksums = _header(file.metadata() or {})
            size = _block_bytes(shape, rank)
            count = len(checksums)
            if nbytes is not None:
                count = min(count, max(0, nbytes) // size)
            blocks = [_block(file, at, shape, rank, checksums[at]) for at in range(count)]
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise ValueError(f"path: {name!r} is no intact file of a stack: {in_line(error)}") from None
    if not blocks:
        raise ValueError(f"nbytes={nbytes}: expected {size} at least, which one block takes")
    return tuple(blocks), shape, transposed


def _header(metadata: dict[str, str]) -> tuple[tuple[int, int], int, bool, list[str]]:
    if (metadata.get("format"), metadata.get("version")) != (_FORMAT, _VERSION):
        raise ValueError(
            f"format {shown(metadata.get('format'))} version {shown(metadata.get('version'))}, "
            f"expected {_FORMAT!r} version {_VERSION!r}"
        )
    rows, columns, rank = (int(metadata[name]) for name in ("rows", "columns", "rank"))
    if min(rows, columns) < 0 or columns >= TERMS_LIMIT or rows >= 2**48:
        raise ValueError(f"shape ({rows}, {columns})")
    checksums = metadata["crc32"].split()
    if not 1 <= rank <= MAX_RANK or not 1 <= len(checksums) <= MAX_BLOCKS:
        raise ValueError(f"{len(checksums)} blocks of rank {rank}")
    if metadata["transposed"] not in ("0", "1"):
        raise ValueError(f"transposed {shown(metadata['transposed'])}, expected '0' or '1'")
    return (rows, columns), rank, metadata["transposed"] == "1", checksums


def _block_bytes(shape: tuple[int, int], rank: int) -> int:
    return ONE_BIT.nbytes(*shape) + SLACK + 2 * rank * sum(shape)


def _block(file: Any, at: int, shape: tuple[int, int], rank: int, checksum: str) -> PackedBlock:
    rows, columns = shape
    size = ONE_BIT.nbytes(rows, columns) + SLACK
    shapes = ((size,), (rows, rank), (rank, columns))
    parts = []
    for name, expected, dtype in zip(_PARTS, shapes, ("U8", "F16", "F16"), strict=True):
        found = file.get_slice(f"{at}.{name}")
        if (found.get_dtype(), tuple(found.get_shape())) != (dtype, expected):
            raise ValueError(
                f"{at}.{name} is {found.get_dtype()} {found.get_shape()}, expected {dtype} "
                f"{expected}"
            )
        parts.append(file.get_tensor(f"{at}.{name}"))
    signs, left, right = parts
    if of_arrays((signs, left, right)) != checksum:
        raise ValueError(f"block {at} was damaged after it was written")
    if not (np.isfinite(left).all() and np.isfinite(right).all()):
        raise ValueError(f"block {at} holds NaN or infinity")
    packed = Packed(signs, rows, columns, None, ONE_BIT.name)
    return PackedBlock(TernaryMatrix(packed), left, right)
