"""Products with a scale a group of columns by a record, each of whose arrays is where a test has
it: what `ternops.matmul` does not offer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ternops.encodings import PANELS
from ternops.encodings.common import SLACK
from ternops.encodings.panels import turn_scales
from ternops.kernels.call import Call, Operand
from ternops.kernels.linear import linear
from ternops.kernels.operands import OPERANDS
from ternops.memory import aligned_copy
from ternops.team import TEAM

Array = npt.NDArray[Any]


def call(
    encoding: str, weights: Array, scale: Array, x: Array, threads: int = 1,
    place: Callable[[Array], Array] = aligned_copy, **options: Any,
) -> Array:  # fmt: skip
    """x (m, k), int8 or float32, times the weights (n, k) with their scales (n, groups).

    place: copies an array to where it shall be; what has whole lines must begin at one. options:
    of `Call.of`.
    """
    rows, columns = weights.shape
    packed = place(PANELS[encoding].pack(weights)[:-SLACK])
    factors, tokens = place(turn_scales(scale)), place(x)
    operand = Operand(
        encoding, packed.ctypes.data, packed.nbytes, rows, columns,
        factors.ctypes.data, factors.itemsize, columns // scale.shape[1],
    )  # fmt: skip
    product = Call.of(operand, len(x), x.dtype != np.int8, **options)
    out, record = place(np.full((len(x), rows), np.nan, np.float32)), np.zeros((), OPERANDS)
    sizes = (
        product.placed_bytes, product.offsets_bytes, product.offsets_bytes,
        threads * product.scratch_bytes,
    )  # fmt: skip
    placed, offsets, steps, scratch = (place(np.full(size, 0x5A, np.uint8)) for size in sizes)
    product.write_apart(
        record.data.cast("B"), tokens.ctypes.data, out.ctypes.data, placed.ctypes.data,
        offsets.ctypes.data, steps.ctypes.data, scratch.ctypes.data,
    )  # fmt: skip
    TEAM.run(linear, record, threads)
    return out
