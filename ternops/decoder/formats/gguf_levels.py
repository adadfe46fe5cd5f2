"""Blocks of more than three levels in GGUF files, as values, scales and levels.

The layouts are those of ggml-org/llama.cpp (ggml-common.h, ggml-quants.c). Four-bit codes: the low
halves of a block's bytes come first, then the high ones. A scale may be negative, or 0: Q4_0's has
the sign that makes its largest weight -8, and only one of 8 and -8 is a level. Q8_0's have no -128:
its writers round to what is at most 127 times the scale.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ternops.decoder.formats.codes import Bytes
from ternops.decoder.formats.gguf_types import Kind
from ternops.decoder.formats.scales import Floats
from ternops.encodings.eight_bit import EIGHT_BIT
from ternops.encodings.nibble import NIBBLE
from ternops.packing import E2M1 as SIGNED_NIBBLES
from ternops.packing import INT8 as INTEGERS
from ternops.packing import NIBBLES, Codes
from ternops.quantizers.floats import E2M1
from ternops.quantizers.fp8 import E4M3
from ternops.quantizers.fp8 import decode as decode_fp8
from ternops.quantizers.integers import INT4, INT8
from ternops.quantizers.method import Levels

Values = npt.NDArray[np.int8]

#: IQ4_NL's own (kvalues_iq4nl).
IQ4_NL_LEVELS: Levels = (
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
)  # fmt: skip
#: Of the codes of E2M1 times 2: a sign bit, then the magnitude.
_E2M1_CODES = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)


class Layout(NamedTuple):
    """How a type holds levels.

    codes: what each code stands for; None for int8 as they are. scales: bytes of a block's scales,
    which come first. read: float32 of them, one for each `group` weights. form: what kernels that
    pack know the codes as.
    """

    levels: Levels
    codes: tuple[int, ...] | None
    scales: int
    group: int
    read: Callable[[Bytes], Floats]
    form: int

    @property
    def encoding(self) -> str:
        """What holds such levels."""
        return EIGHT_BIT.name if self.codes is None else NIBBLE.name

    @property
    def packed(self) -> Codes:
        """The same for kernels that pack."""
        scale = 0 if self.read is _halves else None
        return Codes(self.form, codes=self.scales, scale=scale, apart=self.group // 2)


def _halves(data: Bytes) -> Floats:
    return np.ascontiguousarray(data).view("<f2").astype(np.float32)


def _powers(data: Bytes) -> Floats:
    """E8M0, half of it: 2^(e - 128), and NaN of 255."""
    powers = np.ldexp(np.float32(1), data.astype(np.int32) - 128).astype(np.float32)
    return np.where(data == 255, np.float32(np.nan), powers)


def _unsigned_e4m3(data: Bytes) -> Floats:
    """E4M3 without a sign, half of it; 0 of the code of NaN, as llama.cpp has it."""
    known = np.where(data & 0x7F == 0x7F, 0, data & 0x7F).astype(np.uint8)
    return decode_fp8(known, E4M3) / np.float32(2)


#: By the name of the type.
LAYOUTS = {
    "Q4_0": Layout(INT4, INT4, 2, 32, _halves, NIBBLES),
    "Q8_0": Layout(INT8, None, 2, 32, _halves, INTEGERS),
    "IQ4_NL": Layout(IQ4_NL_LEVELS, IQ4_NL_LEVELS, 2, 32, _halves, NIBBLES),
    "MXFP4": Layout(E2M1, _E2M1_CODES, 1, 32, _powers, SIGNED_NIBBLES),
    "NVFP4": Layout(E2M1, _E2M1_CODES, 4, 16, _unsigned_e4m3, SIGNED_NIBBLES),
}
#: Why the others of llama.cpp's simple types are not read.
REFUSED = {
    "Q4_1": "has a minimum beside the scale of each block",
    "Q5_0": "has 32 levels",
    "Q5_1": "has 32 levels",
}


def check_kind(kind: Kind) -> Layout:
    """Raises ValueError for a type that has no such levels, naming those that do."""
    if kind.name in LAYOUTS:
        return LAYOUTS[kind.name]
    reason = REFUSED.get(kind.name, "is no type of levels")
    raise ValueError(f"{kind.name} {reason}, expected {', '.join(LAYOUTS)}")


def decode(kind: Kind, data: Bytes, shape: tuple[int, int]) -> tuple[Values, Floats, Levels]:
    """Values of the shape, scales (rows, groups), and the levels, of a tensor's bytes.

    A weight is its value times its scale, exactly what llama.cpp has. Raises ValueError for another
    type, and, naming the row, for scales that are not finite and for a value that is no level.
    """
    layout, (rows, columns) = check_kind(kind), shape
    scales = scales_of(kind, data, shape)
    if not np.isfinite(scales).all():
        row, group = np.argwhere(~np.isfinite(scales))[0]
        raise ValueError(f"holds the scale {scales[row, group]} in row {row}, expected finite ones")
    codes = data.reshape(rows, columns // kind.weights, kind.size)[:, :, layout.scales :]
    if layout.codes is None:
        values = codes.view(np.int8).reshape(shape).copy()
        if values.min() < layout.levels[0]:
            row = np.argwhere(values < layout.levels[0])[0, 0]
            raise ValueError(f"holds -128 in row {row}, expected -127 to 127 in {kind.name}")
        return values, scales, layout.levels
    table = np.array(layout.codes, np.int8)
    # Of each group its bytes, as many as half its weights: the low halves, then the high ones.
    halves = codes.reshape(rows, -1, 1, layout.group // 2) >> np.array([[0], [4]], np.uint8)
    return table[halves & 15].reshape(shape), scales, layout.levels


def scales_of(kind: Kind, data: Bytes, shape: tuple[int, int]) -> Floats:
    """The scales (rows, groups) of a tensor's bytes, finite or not."""
    layout, (rows, columns) = check_kind(kind), shape
    blocks = data.reshape(rows, columns // kind.weights, kind.size)
    return layout.read(blocks[:, :, : layout.scales]).reshape(rows, columns // layout.group)
