"""The file of a delta: what fine-tuning changed, one bit a weight, in safetensors.

The metadata are "format", "version", "architecture", "base" (`ternops.decoder.deltas.fingerprint`
of the model that it was made for) and "crc32", a hexadecimal checksum of all that. The tensors are

    layers.0.q.signs         U8   the signs of tuned - base, as one_bit packs them; so k, v, o,
                             gate, up, down; of a delta net qkv, z and out
    layers.0.q.alpha         F32  (1,), what they are multiplied by

Norms, biases, embedding and head are the base's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy

from ternops.checksum import of_content
from ternops.decoder.config import Config
from ternops.decoder.deltas import Delta
from ternops.decoder.formats.safetensors_file import Mapped, map_file
from ternops.encodings.common import SLACK
from ternops.encodings.one_bit import ONE_BIT
from ternops.files import replaced
from ternops.matrix import TernaryMatrix
from ternops.memory import Arena
from ternops.packed import Packed
from ternops.shown import shown

FORMAT, VERSION = "ternops delta", "1"


def write_delta(path: str | os.PathLike[str], config: Config, delta: Delta) -> None:
    """Write a file, whole or not at all; raises OSError for what cannot be written."""
    tensors: dict[str, npt.NDArray[Any]] = {}
    for number, name, (rows, columns) in _places(config):
        packed = delta.layers[number][name]._packed
        tensors[f"layers.{number}.{name}.signs"] = packed.bytes[: ONE_BIT.nbytes(rows, columns)]
        tensors[f"layers.{number}.{name}.alpha"] = np.full(1, packed.scale, np.float32)
    metadata = {
        "format": FORMAT, "version": VERSION, "architecture": config.architecture,
        "base": delta.base,
    }  # fmt: skip
    metadata["crc32"] = of_content(metadata, tensors)
    with replaced(path) as temporary:
        safetensors.numpy.save_file(tensors, temporary, metadata)


def read_delta(path: str | os.PathLike[str], config: Config) -> Delta:
    """What `write_delta` was given, for a model of this config.

    Raises FileNotFoundError if it does not exist, ValueError, naming the file and what is wrong, if
    it is cut off, damaged, not such a file, or made for a model of other shapes.
    """
    where = Path(path)
    if not where.is_file():
        raise FileNotFoundError(f"delta: {os.fspath(path)!r} is not a file")
    try:
        header, tensors = map_file(where)
        return _restore(header["__metadata__"], tensors, config)
    except ValueError as error:
        raise ValueError(f"delta: {os.fspath(path)!r}: {error}") from None


def _restore(metadata: dict[str, str], tensors: dict[str, Mapped], config: Config) -> Delta:
    found = metadata.get("format"), metadata.get("version")
    if found != (FORMAT, VERSION):
        raise ValueError(
            f"format {shown(found[0])} version {shown(found[1])}, expected {FORMAT!r} version "
            f"{VERSION!r}, as python -m ternops delta writes it"
        )
    for key in ("architecture", "base", "crc32"):
        if key not in metadata:
            raise ValueError(f"{key} is missing from the metadata")
    if metadata["architecture"] != config.architecture:
        raise ValueError(
            f"architecture {shown(metadata['architecture'])}, expected {config.architecture!r}, "
            "that of the base"
        )
    arrays = {}
    for number, name, (rows, columns) in _places(config):
        size = ONE_BIT.nbytes(rows, columns)
        for part, dtype, shape in (("signs", "U8", (size,)), ("alpha", "F32", (1,))):
            key = f"layers.{number}.{name}.{part}"
            arrays[key] = _array(tensors, key, dtype, shape)
    if len(tensors) > len(arrays):
        raise ValueError(
            f"tensor {shown(min(tensors.keys() - arrays.keys()))} has no place in the base"
        )
    if metadata["crc32"] != of_content(metadata, arrays):
        raise ValueError("its checksum does not match: it was damaged after it was written")
    layers: list[dict[str, TernaryMatrix]] = [{} for _ in range(config.layers)]
    arena = Arena()
    for number, name, (rows, columns) in _places(config):
        key = f"layers.{number}.{name}"
        alpha = arrays[f"{key}.alpha"].reshape(())
        if not np.isfinite(alpha):
            raise ValueError(f"{key}.alpha is {alpha}, expected a finite number")
        signs = arrays[f"{key}.signs"]
        packed = arena.empty(len(signs) + SLACK, np.uint8)
        packed[: len(signs)], packed[len(signs) :] = signs, 0
        content = Packed(packed, rows, columns, alpha.copy(), ONE_BIT.name)
        layers[number][name] = TernaryMatrix(content)
    return Delta(layers, metadata["base"])


def _places(config: Config) -> Iterator[tuple[int, str, tuple[int, int]]]:
    """Each linear layer: number, name and shape."""
    for number in range(config.layers):
        for name, shape in config.linear_shapes(number).items():
            yield number, name, shape


def _array(
    tensors: dict[str, Mapped], name: str, dtype: str, shape: tuple[int, ...]
) -> npt.NDArray[Any]:
    tensor = tensors.get(name)
    if tensor is None:
        raise ValueError(f"tensor {name} is missing, of a model of other layers or shapes")
    if (tensor.dtype, tensor.shape) != (dtype, shape):
        raise ValueError(
            f"{name} is {tensor.dtype} {tensor.shape}, expected {dtype} {shape} for the base's "
            "shapes"
        )
    if dtype == "U8":
        return tensor.bytes
    return np.frombuffer(tensor.bytes.tobytes(), np.float32)
