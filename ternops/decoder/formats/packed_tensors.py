"""What the tensors of a packed model file hold, by their names: lines of floats, and matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ternops.decoder.formats.packed_header import bytes_name, scale_name, whole_lines
from ternops.decoder.formats.safetensors_file import Mapped
from ternops.decoder.weights import HalfMatrix
from ternops.encodings import ENCODINGS, PANELS, layout_of
from ternops.encodings.common import SLACK
from ternops.encodings.panels import GROUPS
from ternops.matrix import TernaryMatrix
from ternops.memory import CACHE_LINE
from ternops.packed import Packed
from ternops.packing import turn_scales

_DTYPES = {
    "U8": np.uint8, "I8": np.int8, "F32": np.float32, "F16": np.uint16, "BF16": np.uint16
}  # fmt: skip
_MISSING = Mapped("", (), 0, np.empty(0, np.uint8))


class Stored(NamedTuple):
    """A packed matrix as it lies: bytes, shape, scale, (), (rows,) or (rows, groups), and how."""

    packed: npt.NDArray[np.uint8]
    rows: int
    columns: int
    scale: npt.NDArray[Any]
    encoding: str
    levels: tuple[int, ...]

    def matrix(self, name: str) -> TernaryMatrix:
        """With its scale, which is read; name: for the error of one that is not finite."""
        if self.scale.ndim == 2:
            scale, flaws = turn_scales(self.scale)
            is_finite = not flaws & 2
        else:
            scale, is_finite = self.scale, bool(np.isfinite(self.scale).all())
        if not is_finite:
            raise ValueError(f"checkpoint: the scale of {name} is not finite")
        shape = self.rows, self.columns
        return TernaryMatrix(Packed(self.packed, *shape, scale, self.encoding, self.levels))


class PackedTensors:
    """Tensors of a mapped file by name; every method raises ValueError for one that is missing, or
    of another dtype, shape or place."""

    def __init__(self, of: dict[str, Mapped]) -> None:
        self.of = of

    def array(self, name: str, dtype: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        tensor = self.of.get(name, _MISSING)
        if tensor is _MISSING:
            raise ValueError(f"tensor {name} is missing")
        if (tensor.dtype, tensor.shape) != (dtype, shape):
            raise ValueError(f"{name} is {tensor.dtype} {tensor.shape}, expected {dtype} {shape}")
        if tensor.start % CACHE_LINE:
            raise ValueError(f"{name} starts at byte {tensor.start}, expected a multiple of 64")
        return tensor.bytes.view(_DTYPES[dtype]).reshape(shape)

    def line(self, name: str, size: int) -> npt.NDArray[np.float32]:
        """The first `size` float32 of a tensor that was filled up."""
        return self.array(name, "F32", (whole_lines(4 * size) // 4,))[:size]

    def half(self, name: str, rows: int, columns: int) -> HalfMatrix:
        dtype = "BF16" if self.of.get(name, _MISSING).dtype == "BF16" else "F16"
        shape = (rows, whole_lines(2 * columns) // 2)
        return HalfMatrix(self.array(name, dtype, shape), columns, dtype == "BF16")

    def stored(self, prefix: str, rows: int, columns: int, usual: str) -> Stored:
        """A packed matrix whose tensors' names begin so. usual: the encoding of the file."""
        encoding, levels = self._encoding(prefix, usual)
        names = {group: f"{prefix}.{scale_name(2, group)}" for group in GROUPS}
        group = next((each for each in GROUPS if names[each] in self.of), 0)
        if group and (encoding not in PANELS or columns % group):
            raise ValueError(f"{names[group]}: no such groups of {columns} {encoding} inputs")
        size = layout_of(encoding, group, levels).nbytes(rows, columns) + SLACK
        name = f"{prefix}.{bytes_name(encoding, usual)}"
        packed = self.array(name, "U8", (whole_lines(size),))[:size]
        if group:
            scale = self._groups(names[group], rows, columns // group)
        elif f"{prefix}.scales" in self.of:
            scale = self.line(f"{prefix}.scales", rows)
        else:
            scale = self.line(f"{prefix}.scale", 1).reshape(())
        return Stored(packed, rows, columns, scale, encoding, levels)

    def _encoding(self, prefix: str, usual: str) -> tuple[str, tuple[int, ...]]:
        """What packs a matrix, and the levels of its codes."""
        others = (each for each in ENCODINGS if each != usual and f"{prefix}.{each}" in self.of)
        encoding = usual if f"{prefix}.packed" in self.of else next(others, usual)
        name, record = f"{prefix}.levels", ENCODINGS[encoding]
        if name not in self.of:
            return encoding, record.values
        size = self.of[name].bytes.nbytes
        found: Sequence[int] = self.array(name, "I8", (size,)).tolist()
        levels = tuple(dict.fromkeys(found))
        try:
            return encoding, record.check_levels(levels)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None

    def _groups(self, name: str, rows: int, groups: int) -> npt.NDArray[Any]:
        """A scale a group, (rows, groups), in float16 or float32."""
        dtype = "F16" if self.of[name].dtype == "F16" else "F32"
        kind = np.dtype(np.float16 if dtype == "F16" else np.float32)
        size = rows * groups
        line = self.array(name, dtype, (whole_lines(kind.itemsize * size) // kind.itemsize,))
        return line[:size].view(kind).reshape(rows, groups)
