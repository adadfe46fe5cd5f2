"""A stack of residual blocks as a decoder holds it: any number of its blocks count, at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ternops.decoder.weights import HalfMatrix
from ternops.encodings.common import SLACK
from ternops.encodings.one_bit import ONE_BIT
from ternops.kernels.call import Operand
from ternops.kernels.stacked import BLOCK, SLACK_BYTES, STACK, STACKED
from ternops.memory import aligned_empty
from ternops.stacks.blocks import magnitudes

Array = npt.NDArray[Any]


class BlockBytes(NamedTuple):
    """One block where it lies: signs as one_bit packs them, uint8, and float16 factors, each with
    SLACK_BYTES that may be read behind it."""

    signs: npt.NDArray[np.uint8]
    left: npt.NDArray[np.float16]
    right: npt.NDArray[np.float16]

    @property
    def nbytes(self) -> int:
        return sum(each.nbytes for each in self)


class ResidentStack(HalfMatrix):
    """A matrix whose value is the sum of its first `count` blocks, `ternops.stacks` says of what.

    The others need not be in memory: blocks of a mapped file are read when they first count.
    `count` may be set to 1 and more, but not while a pass runs.
    """

    def __init__(self, blocks: Sequence[BlockBytes], rows: int, columns: int) -> None:
        self.blocks, self.rows, self.columns = tuple(blocks), rows, columns
        self._table = np.zeros(len(self.blocks), BLOCK)
        for row, block in zip(self._table, self.blocks, strict=True):
            for name, array in block._asdict().items():
                row[name] = array.ctypes.data
        self._record: Any = np.zeros(1, STACKED)
        self._record["rank"] = self.blocks[0].right.size // columns
        self._record["table"] = self._table.ctypes.data
        self.count = len(self.blocks)

    @classmethod
    def of(cls, blocks: Sequence[tuple[Array, Array, Array]]) -> ResidentStack:
        """From int8 signs (rows, columns) and float16 factors, copied."""
        rows, columns = blocks[0][0].shape
        found = [
            BlockBytes(with_slack(packed_signs(signs)), with_slack(left), with_slack(right))
            for signs, left, right in blocks
        ]
        return cls(found, rows, columns)

    @property
    def count(self) -> int:
        """How many blocks count."""
        return int(self._record["count"][0])

    @count.setter
    def count(self, value: int) -> None:
        assert 1 <= value <= len(self.blocks)
        self._record["count"] = value

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows, self.columns

    @property
    def nbytes(self) -> int:
        """Of the blocks that count."""
        return sum(each.nbytes for each in self.blocks[: self.count])

    @property
    def operand(self) -> Operand:
        return Operand(STACK, self._record.ctypes.data, self.nbytes, *self.shape, scale_step=0)

    def to_dense(self, rows: slice = slice(None)) -> npt.NDArray[np.float32]:
        total = np.zeros(self.shape, np.float32)
        for block in self.blocks[: self.count]:
            signs = ONE_BIT.unpack(block.signs, self.rows, self.columns)
            left, right = block.left.reshape(self.rows, -1), block.right.reshape(-1, self.columns)
            total += signs * magnitudes(left, right)
        return total[rows]

    def __reduce__(self) -> Any:
        # By value, what counts alone.
        blocks = [tuple(map(np.array, each)) for each in self.blocks[: self.count]]
        return _from_state, (blocks, *self.shape)


def _from_state(blocks: Sequence[Any], rows: int, columns: int) -> ResidentStack:
    copies = [BlockBytes._make(map(with_slack, each)) for each in blocks]
    return ResidentStack(copies, rows, columns)


def packed_signs(signs: npt.NDArray[np.int8]) -> npt.NDArray[np.uint8]:
    """As one_bit packs them, without what comes behind."""
    return ONE_BIT.pack(signs)[:-SLACK]


def with_slack(array: Array) -> Array:
    """A flat copy that SLACK_BYTES of zeros come behind."""
    room = aligned_empty(array.nbytes + SLACK_BYTES, np.uint8)
    room[array.nbytes :] = 0
    target: Array = room[: array.nbytes].view(array.dtype)
    target[:] = array.reshape(-1)
    return target
