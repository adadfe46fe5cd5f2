"""MLX's 2-bit matrices: codes q in uint32, and for each group of inputs w = scale * q + bias.

The layout is that of ml-explore/mlx (mlx.core.quantize, mode "affine"): code j of a row lies at
bits 2 (j % 16) of its word j / 16, low bits first. What is ternary has the bias -scale and no
code 3.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ternops.decoder.formats.codes import (
    WEIGHTS_AT_ONCE,
    Bytes,
    Code3,
    neighbours,
    used_blocks,
)
from ternops.decoder.formats.scales import GROUPS, Floats, Trits, fewest_scales
from ternops.decoder.formats.tensors import Tensors
from ternops.shown import shown

WORDS = "U32"
_BITS = 2


def group_of(settings: dict[str, Any]) -> int:
    """Inputs that share a scale, of config.json's `quantization`; ValueError for anything but
    2 bits a weight everywhere."""
    for key, expected in (("bits", (_BITS,)), ("group_size", GROUPS[::-1]),
                          ("mode", ("affine",))):  # fmt: skip
        value = settings.get(key, "affine" if key == "mode" else None)
        if value not in expected:
            raise ValueError(
                f"config: quantization: {key} is {shown(value)}, expected "
                f"{' or '.join(map(repr, expected))}"
            )
    if others := [key for key in settings if key not in ("bits", "group_size", "mode")]:
        raise ValueError(
            f"config: quantization: {shown(others[0])} is {shown(settings[others[0]])}, expected "
            "the same quantisation of all matrices"
        )
    return int(settings["group_size"])


def is_packed(tensors: Tensors, name: str) -> bool:
    """Whether a weight is in this layout; a file may have left it in floats."""
    return name in tensors and tensors.dtype(name) == WORDS


def parts(name: str) -> set[str]:
    """The tensors that a matrix has beside its weight."""
    return {f"{name.removesuffix('weight')}{each}" for each in ("scales", "biases")}


class Parts(NamedTuple):
    """A matrix as it is stored. words: uint8 (rows, bytes) of neighbouring codes of two bits;
    scales: (rows, groups)."""

    name: str
    words: Bytes
    scales: Floats

    @property
    def trits(self) -> tuple[Trits, Floats]:
        """Its trits and the fewest scales; ValueError for what is not ternary."""
        rows, columns = len(self.words), 4 * self.words.shape[1]
        group = columns // self.scales.shape[1]
        trits = np.empty((rows, columns), np.int8)
        used = np.empty(self.scales.shape, bool)
        step = max(1, WEIGHTS_AT_ONCE // columns)
        for start in range(0, rows, step):
            part = slice(start, start + step)
            codes = np.ascontiguousarray(self.words[part])
            try:
                found = neighbours(codes.reshape(len(codes), -1, group // 4))
            except Code3 as error:
                raise ValueError(
                    f"checkpoint: {self.name} holds the code 3 in row {start + error.row}, "
                    "expected only 0, 1 and 2 (no ternary weights?)"
                ) from None
            if not self.scales[part].all():  # a group of zeros, whatever its codes are
                found *= (self.scales[part] != 0)[:, :, None]
            used[part] = used_blocks(found)
            trits[part] = found.reshape(-1, columns)
        try:
            return trits, fewest_scales(self.scales, used, columns)
        except ValueError as error:
            raise ValueError(f"checkpoint: {self.name} {error}") from None


def read_mlx(tensors: Tensors, name: str, shape: tuple[int, int], group: int) -> Parts:
    """A matrix of a shape; `name` is that of its weight."""
    rows, columns = shape
    if columns % group:
        raise ValueError(
            f"checkpoint: {name} has rows of {columns}, expected a multiple of {group}"
        )
    stem = name.removesuffix("weight")
    words = tensors.raw(name, (rows, columns * _BITS // 32), (WORDS,))
    scales = tensors.floats(f"{stem}scales", (rows, columns // group))
    biases = tensors.floats(f"{stem}biases", (rows, columns // group))
    if len(bad := np.argwhere(biases != -scales)):
        row, at = bad[0]
        raise ValueError(
            f"checkpoint: {name} has the bias {biases[row, at]} and the scale {scales[row, at]} in "
            f"row {row}, expected a bias of -scale (no ternary weights?)"
        )
    return Parts(name, words.view(np.uint8), scales)
