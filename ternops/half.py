"""HalfMatrix: two bytes a weight, as they are: the head, the baseline, what a delta belongs to."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ternops.kernels.call import Operand
from ternops.kernels.fp16 import LINE_BYTES
from ternops.memory import aligned_copy, aligned_empty

LINE = LINE_BYTES // 2  #: weights of a cache line; rows are padded to a multiple of it


def bf16_floats(bits: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """bfloat16, for which NumPy has no name, as float32, exactly; any shape."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


class HalfMatrix:
    """A float16 or bfloat16 matrix, its rows padded with zeros to whole cache lines.

    bits: uint16 (rows, padded columns).
    """

    def __init__(self, bits: npt.NDArray[np.uint16], columns: int, is_bf16: bool) -> None:
        self.bits = aligned_copy(bits)
        self.columns = columns
        self.is_bf16 = is_bf16

    @classmethod
    def from_bits(cls, bits: npt.NDArray[np.uint16], is_bf16: bool) -> HalfMatrix:
        """From uint16 (rows, columns), copied."""
        rows, columns = bits.shape
        padded = aligned_empty((rows, -(-columns // LINE) * LINE), np.uint16)
        padded[:, :columns] = bits
        padded[:, columns:] = 0
        return cls(padded, columns, is_bf16)

    @classmethod
    def from_floats(cls, values: npt.NDArray[Any]) -> HalfMatrix:
        """From float32 (rows, columns), rounded to float16; ValueError beyond its range."""
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if not np.isfinite(half).all():
            raise ValueError("checkpoint: a weight exceeds float16, expected at most 65504")
        return cls.from_bits(half.view(np.uint16), is_bf16=False)

    def __reduce__(self) -> Any:
        # By value: what is unpickled lies anywhere, and kernels read whole cache lines.
        return HalfMatrix, (self.bits, self.columns, self.is_bf16)

    @property
    def shape(self) -> tuple[int, int]:
        return self.bits.shape[0], self.columns

    @property
    def nbytes(self) -> int:
        return self.bits.nbytes

    @property
    def operand(self) -> Operand:
        """The same for kernels."""
        name = "bf16" if self.is_bf16 else "fp16"
        return Operand(name, self.bits.ctypes.data, self.nbytes, *self.shape, scale_step=0)

    def to_dense(self, rows: slice = slice(None)) -> npt.NDArray[np.float32]:
        """float32 (rows, columns) of these rows, exactly."""
        bits = self.bits[rows, : self.columns]
        if self.is_bf16:
            return bf16_floats(bits)
        return bits.view(np.float16).astype(np.float32)
