"""The tensors of safetensors files, mapped into memory and read by name."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ternops.decoder.formats.json_files import read_object
from ternops.decoder.formats.paths import missing_weights
from ternops.decoder.formats.placeholders import check_fetched
from ternops.decoder.formats.safetensors_file import map_file
from ternops.decoder.weights import HalfMatrix
from ternops.half import bf16_floats

FLOATS = ("BF16", "F16", "F32")
PACKED = "U8"
_BLOCK = 1 << 22  # elements
_LONGEST_NAME = 255  # of a file
_DTYPES = {
    "BF16": np.uint16, "F16": np.float16, "F32": np.float32, "U8": np.uint8, "U32": np.uint32,
}  # fmt: skip


class _Tensor(NamedTuple):
    dtype: str
    shape: tuple[int, ...]
    values: npt.NDArray[Any]


class Tensors:
    """The tensors of a Hugging Face folder. A tensor is read when it is used.

    Like transformers it takes all that the shards hold, also what their index leaves out.
    Raises FileNotFoundError and ValueError, naming the file or the tensor and what is wrong.
    """

    def __init__(self, folder: Path) -> None:
        self._tensors: dict[str, _Tensor] = {}
        others: dict[str, _Tensor] = {}
        for path, names in _files(folder).items():
            found = dict(_map(path))
            for name in names:
                if name not in found:
                    raise ValueError(f"checkpoint: tensor {name!r} is missing from {path.name!r}")
            self._tensors |= {name: found[name] for name in names}
            others.update(found)
        self._tensors = others | self._tensors

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def dtype(self, name: str) -> str:
        """The tensor's safetensors dtype."""
        return self._get(name).dtype

    def shape(self, name: str) -> tuple[int, ...]:
        """The tensor's shape; ValueError if it is missing."""
        return self._get(name).shape

    def _get(self, name: str) -> _Tensor:
        if name not in self._tensors:
            raise ValueError(f"checkpoint: tensor {name} is missing")
        return self._tensors[name]

    def raw(
        self, name: str, shape: tuple[int, ...], dtypes: tuple[str, ...] = FLOATS
    ) -> npt.NDArray[Any]:
        """The values as stored, bfloat16 as uint16."""
        dtype, found, array = self._get(name)
        if dtype not in dtypes:
            expected = ", ".join(dtypes)
            expected = f"one of {expected}" if len(dtypes) > 1 else expected
            raise ValueError(f"checkpoint: {name} has dtype {dtype}, expected {expected}")
        if found != shape:
            raise ValueError(f"checkpoint: {name} has shape {found}, expected {shape}")
        return array

    def floats(self, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """The tensor as float32 (exact for each dtype that is accepted), all finite."""
        array = self._finite(name, shape)
        if self.dtype(name) == "BF16":
            return bf16_floats(array)
        return array.astype(np.float32)

    def _finite(self, name: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """A float tensor as stored."""
        array = self.raw(name, shape)
        is_finite = _is_finite_bf16 if self.dtype(name) == "BF16" else np.isfinite
        if not all(is_finite(block).all() for block in _blocks(array)):
            raise ValueError(f"checkpoint: {name} holds NaN or infinity, expected finite numbers")
        return array

    def number(self, name: str) -> np.float32:
        """The one element of a float tensor of shape (1,) or (), positive."""
        shape = () if self._get(name).shape == () else (1,)
        value = self.floats(name, shape).reshape(())[()]
        if not value > 0:
            raise ValueError(f"checkpoint: {name} is {value}, expected a positive number")
        return np.float32(value)

    def half(self, name: str, shape: tuple[int, ...]) -> HalfMatrix:
        """The tensor in two bytes a weight: bfloat16 and float16 as they are, float32 rounded."""
        values, dtype = self._finite(name, shape), self.dtype(name)
        if dtype != "F32":
            return HalfMatrix.from_bits(values.view(np.uint16), is_bf16=dtype == "BF16")
        try:
            return HalfMatrix.from_floats(values)
        except ValueError as error:
            raise ValueError(f"{error} ({name})") from None

    def are_equal(self, one: str, other: str) -> bool:
        """Whether two tensors have the same dtype, shape and bytes."""
        a, b = self._get(one), self._get(other)
        if (a.dtype, a.shape) != (b.dtype, b.shape):
            return False
        pairs = zip(_blocks(a.values), _blocks(b.values), strict=True)
        return all(x.tobytes() == y.tobytes() for x, y in pairs)


def _blocks(array: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    """All elements in blocks, so that results of one block are small in memory."""
    flat = array.reshape(-1)
    return (flat[i : i + _BLOCK] for i in range(0, len(flat), _BLOCK))


def _is_finite_bf16(bits: npt.NDArray[np.uint16]) -> npt.NDArray[np.bool_]:
    exponents = np.uint16(0x7F80)
    return (bits & exponents) != exponents


def _files(folder: Path) -> dict[Path, list[str]]:
    """The safetensors files of a folder and the tensors that an index says to be in each."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        if index.is_file():
            warnings.warn(
                f"model: {str(folder)!r} holds {single.name} and {index.name}: the first is read, "
                "as transformers does",
                stacklevel=2,
            )
        return {single: []}
    if not index.is_file():
        reason = missing_weights(folder)
        raise FileNotFoundError(f"model: {str(folder)!r} has no model.safetensors{reason}")
    shards = read_object(index).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise ValueError(f"model: {str(index)!r} has no weight_map, expected a shard index")
    for name in shards.values():
        # A shard is in the folder of its index: a path in its name could point anywhere.
        if not isinstance(name, str) or Path(name).name != name or _bytes(name) > _LONGEST_NAME:
            raise ValueError(f"model: shard {str(name)[:99]!r}, expected a plain file name")
        if not (folder / name).is_file():
            raise FileNotFoundError(f"model: shard {name!r} is missing from {str(folder)!r}")
    names = sorted(set(shards.values()))
    return {folder / name: [key for key in shards if shards[key] == name] for name in names}


def _bytes(name: str) -> int:
    return len(name.encode("utf-8", "replace"))


def _map(path: Path) -> Iterator[tuple[str, _Tensor]]:
    """The tensors of a file by their names; nothing is read yet."""
    check_fetched(path)
    try:
        _, tensors = map_file(path)
    except ValueError as error:
        raise ValueError(f"model: {str(path)!r} is {error}") from None
    for name, (dtype, shape, _, raw) in tensors.items():
        kind = _DTYPES.get(dtype, np.uint8)  # NumPy has no bfloat16
        values = np.frombuffer(raw, kind) if len(raw) else np.empty(0, kind)
        values = values.reshape(shape) if dtype in _DTYPES else values
        yield name, _Tensor(dtype, shape, values)
