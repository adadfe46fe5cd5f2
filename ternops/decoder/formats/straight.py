"""Blocks of neighbouring two-bit codes as the panels of two_bit, without trits in between: a file
of Q2_0 is open in little more than the time of reading it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ternops.decoder.formats.codes import Bytes, Code3, neighbours
from ternops.decoder.formats.gguf_blocks import LAYOUTS
from ternops.decoder.formats.gguf_types import Kind
from ternops.decoder.formats.scales import fewest_scales
from ternops.encodings.common import SLACK
from ternops.encodings.panels import ROWS
from ternops.encodings.two_bit import TWO_BIT
from ternops.kernels.regroup import REGROUP, regroup
from ternops.matrix import TernaryMatrix
from ternops.memory import Arena
from ternops.packed import Packed
from ternops.team import TEAM
from ternops.threads import get_num_threads

_BLOCK = 256  # weights of a block of two_bit
#: A byte of four zeros.
_ZEROS = 0b01_01_01_01


def two_bit_panels(
    kind: Kind, data: Bytes, shape: tuple[int, int], arena: Arena
) -> TernaryMatrix | None:
    """A matrix with a scale a group of inputs, of a tensor's bytes, packed as two_bit.

    None for what is not of that kind, or damaged: `gguf_blocks.decode` tells what is wrong with it.
    """
    layout, (rows, columns) = LAYOUTS.get(kind.name), shape
    if layout is None or layout.trits is not neighbours or not fits(rows, columns):
        return None
    blocks = data.reshape(rows, columns // kind.weights, kind.size)
    packed = arena.empty(rows * columns // 4 + SLACK, np.uint8)
    packed[-SLACK:] = 0
    halves = np.empty(blocks.shape[:2], np.float16)
    try:
        pack_panels(blocks[:, :, layout.codes], packed[:-SLACK], halves)
    except Code3:
        return None
    used = np.isfinite(halves) & (halves > 0)
    if not used.all() and (blocks[:, :, layout.codes][~used] != _ZEROS).any():
        return None
    scale = fewest_scales(halves.astype(np.float32), used, columns)
    if scale.ndim < 2:
        return None
    return TernaryMatrix(Packed(packed, rows, columns, scale.astype(np.float16), TWO_BIT.name))


def fits(rows: int, columns: int) -> bool:
    """Whether whole panels and blocks take a matrix."""
    return rows % ROWS == 0 and columns % _BLOCK == 0


def pack_panels(codes: Bytes, packed: Bytes, scales: npt.NDArray[np.float16]) -> None:
    """Fill `packed`, rows * columns / 4 bytes, with the panels of a matrix that `fits`.

    codes: uint8 (rows, blocks, a block's bytes), each with four neighbouring weights, the lowest
    bits first; scales: gets the float16 in the two bytes before those. Raises Code3 with the last
    row that has one.
    """
    rows, blocks, size = codes.shape
    threads = get_num_threads()
    flaws = np.zeros(threads, np.int64)
    record: Any = np.zeros((), REGROUP)
    for name, value in {
        "codes": codes.ctypes.data, "row_stride": codes.strides[0], "size": size,
        "stride": codes.strides[1], "rows": rows, "blocks": blocks * size * 4 // _BLOCK,
        "out": packed.ctypes.data, "scales": scales.ctypes.data, "flaws": flaws.ctypes.data,
    }.items():  # fmt: skip
        record[name] = value
    TEAM.run(regroup, record, threads)
    if flaws.any():
        raise Code3(int(flaws.max()) - 1)
