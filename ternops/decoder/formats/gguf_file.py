"""The tensors of a GGUF file, or of all the parts that one was split into."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ternops.decoder.formats import gguf_levels
from ternops.decoder.formats.gguf_blocks import TERNARY, decode
from ternops.decoder.formats.gguf_container import Part, other_parts
from ternops.decoder.formats.gguf_types import Q2_0, Kind, kind_of, layout_of, tensor_bytes
from ternops.decoder.formats.scales import products
from ternops.half import HalfMatrix, bf16_floats
from ternops.memory import aligned_empty

_ALL = slice(None)
_MAX_FP16 = 65504
_WEIGHTS_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Tensor:
    """kind: its type; shape: rows first; data: uint8, mapped from the file."""

    kind: Kind
    shape: tuple[int, ...]
    data: npt.NDArray[np.uint8]


class GgufFile:
    """metadata: values by key, strings as str, arrays of numbers as NumPy arrays, arrays of
    strings as lists; tensors: by name, of all parts of a file that was split.

    Raises ValueError, naming the file and the field, for whatever is not intact,
    FileNotFoundError for a missing part, and ModuleNotFoundError without the gguf package.
    """

    def __init__(self, path: Path) -> None:
        first = Part(path)
        self.metadata = first.metadata
        parts = [first, *(Part(each) for each in other_parts(path, first.metadata))]
        for at, part in enumerate(parts):
            part.check_place(at, len(parts))
        self.tensors = _tensors(parts)
        expected = self.metadata.get("split.tensors.count", len(self.tensors))
        if len(parts) > 1 and expected != len(self.tensors):
            raise ValueError(
                f"model: {str(path)!r}: its {len(parts)} parts hold {len(self.tensors)} tensors, "
                f"expected the {expected} of split.tensors.count"
            )

    def tensor(self, name: str, shape: tuple[int, ...], accepted: tuple[str, ...]) -> Tensor:
        """Raises ValueError where it is missing, of another shape or of none of these types."""
        if name not in self.tensors:
            raise ValueError(f"checkpoint: tensor {name} is missing")
        tensor = self.tensors[name]
        if tensor.shape != shape:
            raise ValueError(f"checkpoint: {name} has shape {tensor.shape}, expected {shape}")
        if tensor.kind.name not in accepted:
            expected = ", ".join(accepted)
            raise ValueError(
                f"checkpoint: {name} has type {tensor.kind.name}, expected one of {expected}"
            )
        return tensor

    def floats(self, name: str, part: slice = _ALL) -> npt.NDArray[np.float32]:
        """Some rows of a matrix, or a vector as one row, as float32, exactly, all finite."""
        from gguf import GGMLQuantizationType, dequantize

        tensor = self.tensors[name]
        data = tensor.data.reshape(tensor.shape[0] if len(tensor.shape) > 1 else 1, -1)[part]
        if tensor.kind.name in TERNARY:
            return products(*self.trits(name, part))
        if tensor.kind.name == "BF16":
            values = bf16_floats(data.view("<u2"))
        else:
            values = dequantize(data, GGMLQuantizationType[tensor.kind.name])
        if not np.isfinite(values).all():
            raise ValueError(f"checkpoint: {name} holds NaN or infinity, expected finite numbers")
        return values

    def half(
        self, name: str, order: npt.NDArray[np.intp] | None = None, factor: np.float32 | None = None
    ) -> HalfMatrix:
        """A matrix, its rows in an order, in two bytes a weight: bfloat16 and float16 as they are,
        what else there is, or is multiplied by a factor, rounded to float16."""
        tensor = self.tensors[name]
        rows, columns = tensor.shape
        is_bf16 = tensor.kind.name == "BF16" and factor is None
        step = max(1, _WEIGHTS_AT_ONCE // columns)
        whole = None
        for start in range(0, rows, step):
            values = self.floats(name, slice(start, start + step))
            values = values if factor is None else values * factor
            if is_bf16:
                part = HalfMatrix.from_bits((values.view(np.uint32) >> 16).astype(np.uint16), True)
            else:
                if np.abs(values).max() > _MAX_FP16:
                    raise ValueError(f"checkpoint: {name} exceeds float16, expected at most 65504")
                part = HalfMatrix.from_floats(values)
            if whole is None:
                whole = aligned_empty((rows, part.bits.shape[1]), np.uint16)
            whole[start : start + step] = part.bits
        assert whole is not None  # a tensor has rows
        return HalfMatrix(whole if order is None else whole[order], columns, is_bf16)

    def trits(
        self, name: str, part: slice = _ALL
    ) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
        """Trits and scales (`gguf_blocks.decode`) of some rows of a matrix of a ternary type; all
        rows of one of I2_S."""
        tensor = self.tensors[name]
        rows, columns = tensor.shape
        data, first = tensor.data, 0
        if part != _ALL:
            first, last, _ = part.indices(rows)
            rows = last - first
            data = data.reshape(tensor.shape[0], -1)[part]
        try:
            return decode(tensor.kind, data, (rows, columns), first)
        except ValueError as error:
            raise ValueError(f"checkpoint: {name} {error}") from None

    def levels(self, name: str) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
        """Values and scales of a matrix of levels (`gguf_levels.decode`)."""
        tensor = self.tensors[name]
        rows, columns = tensor.shape
        try:
            values, scales, _ = gguf_levels.decode(tensor.kind, tensor.data, (rows, columns))
        except ValueError as error:
            raise ValueError(f"checkpoint: {name} {error}") from None
        return values, scales


def _tensors(parts: list[Part]) -> dict[str, Tensor]:
    """The tensors of all parts by name."""
    alike = [each for part in parts for each in part.of_type(Q2_0)]
    found: dict[str, Tensor] = {}
    try:
        q2_0 = layout_of(alike) if alike else None
    except ValueError as error:
        raise parts[0].error(str(error)) from None
    for part in parts:
        for name, number, shape, start in part.entries:
            if name in found:
                raise part.error(f"tensor {name} occurs twice")
            try:
                kind = (q2_0 if number == Q2_0 else None) or kind_of(number)
                size = tensor_bytes(kind, shape)
            except ValueError as error:
                raise part.error(f"{name} {error}") from None
            if start + size > len(part.data):
                raise part.error(
                    f"{name}: ends at byte {start + size} of {len(part.data)} (truncated?)"
                )
            data = np.frombuffer(part.data, np.uint8, size, start)
            found[name] = Tensor(kind, shape, data)
    return found
