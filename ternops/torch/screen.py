"""The largest result of a HalfLinear for one token, most of whose weights are not read."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ternops.absmean import BITNET_ABSMAX
from ternops.decoder.head import quantize
from ternops.half import HalfMatrix
from ternops.kernels.call import Call, Operand
from ternops.kernels.largest import LARGEST, largest_bf16
from ternops.kernels.operands import OPERANDS
from ternops.kernels.row_hash import ROW_HASHES, row_hashes
from ternops.kernels.screen import ROWS, peak_floats
from ternops.memory import HoldsAddresses, aligned_empty, aligned_zeros
from ternops.team import TEAM


class Screen(HoldsAddresses):
    """An int8 copy of bfloat16 weights, and bounds of what it errs, which rule out all but a few
    results; these are computed as `HalfLinear` does, bit for bit.

    weight: (rows, columns), bfloat16, contiguous, a multiple of 64 bytes a row, at a multiple of
    64. No reference to it is kept.
    """

    def __init__(self, weight: Tensor, threads: int) -> None:
        self.rows, self.columns = weight.shape
        self._weight = weakref.ref(weight)
        self._version = _version(weight)
        self._hashes = _hashes(weight, threads)
        bits = weight.detach().view(torch.int16).numpy().view(np.uint16)
        matrix = HalfMatrix(bits, self.columns, is_bf16=True)
        self._padded = -(-self.rows // ROWS) * ROWS
        self._arrays = quantize(matrix, self._padded, threads)
        # A room is of one call at a time: several Python threads may have one each.
        self._free: list[Room] = []

    def is_of(self, weight: Tensor) -> bool:
        """Whether these are the same weights, and PyTorch has not written to them since."""
        return self._weight() is weight and _version(weight) == self._version

    def is_still_of(self, weight: Tensor, threads: int) -> bool:
        """Whether they hold the same numbers: all of them are read."""
        if weight.shape != (self.rows, self.columns):
            return False
        version = _version(weight)
        if not np.array_equal(_hashes(weight, threads), self._hashes):
            return False
        self._weight, self._version = weakref.ref(weight), version
        return True

    def largest(self, x: Tensor, weight: Tensor, threads: int) -> int:
        """The number of the largest result as bfloat16, the first one of several; of NaN the first.

        x: float32 (columns,), contiguous. weight: those that this `is_of`.
        """
        try:
            room = self._free.pop()
        except IndexError:
            room = Room(self)
        room.run(x.data_ptr(), weight.data_ptr(), threads)
        kept = np.flatnonzero(room.logits != -np.inf)
        found = torch.from_numpy(room.logits[kept]).bfloat16().float()
        self._free.append(room)
        return int(kept[int(found.argmax())]) if len(kept) else 0


class Room(HoldsAddresses):
    """The memory of one call."""

    def __init__(self, screen: Screen) -> None:
        self._codes, self._scales, self._bounds = screen._arrays
        operand = Operand(
            "int8", self._codes.ctypes.data, self._codes.nbytes, screen.rows, screen.columns,
            self._scales.ctypes.data, self._scales.itemsize,
        )  # fmt: skip
        call = Call.of(operand, 1, kind="stream", floor=BITNET_ABSMAX, out_stride=screen._padded)
        self._call, self._memory = call, aligned_zeros(call.memory_bytes(1), np.uint8)
        logits = aligned_zeros(screen._padded, np.float32)
        self._peaks = aligned_empty(peak_floats(screen._padded), np.float32)
        self._peaks[:] = -np.inf  # what follows the last block of rows is never the largest
        self._product = np.zeros(OPERANDS.itemsize, np.uint8)
        self._record: Any = np.zeros((), LARGEST)
        for name, value in {
            "product": self._product.ctypes.data, "outputs": 1, "logits": logits.ctypes.data,
            "logits_stride": screen._padded, "peaks": self._peaks.ctypes.data,
            "peak_count": len(self._peaks), "bounds": self._bounds.ctypes.data,
            "exact_stride": 2 * screen.columns, "exact_is_bf16": 1, "exact_top": 1,
        }.items():  # fmt: skip
            self._record[name] = value
        #: float32 (rows,), of the last call.
        self.logits = logits[: screen.rows]

    def run(self, x: int, exact: int, threads: int) -> None:
        """For the addresses of a token and of the weights."""
        out = int(self._record["logits"])
        self._call.write(self._product.data, x, out, self._memory.ctypes.data, 1)
        self._record["exact"] = exact
        TEAM.run_at(largest_bf16.address, self._record.ctypes.data, threads, self._call.fixed)


def _version(weight: Tensor) -> tuple[Any, ...]:
    """Of a tensor: another one once PyTorch has written to it, or has given it other memory."""
    writes = None if weight.is_inference() else weight._version
    return weight.data_ptr(), weight.dtype, weight.shape, writes


def _hashes(weight: Tensor, threads: int) -> npt.NDArray[np.int32]:
    """Of each row."""
    found = np.empty(len(weight), np.int32)
    record: Any = np.zeros((), ROW_HASHES)
    for name, value in {
        "weights": weight.data_ptr(), "rows": len(weight), "hashes": found.ctypes.data,
        "stride": weight.stride(0) * weight.itemsize,
    }.items():  # fmt: skip
        record[name] = value
    TEAM.run(row_hashes, record, threads)
    return found
