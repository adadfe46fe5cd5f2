"""The file of one matrix: safetensors with a checksum."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from ternops.checksum import of_content
from ternops.encodings import ENCODINGS, layout_of
from ternops.encodings.common import SLACK
from ternops.encodings.panels import Panels
from ternops.files import replaced
from ternops.packed import Packed, check_columns, check_group, check_scale, group_of
from ternops.shown import in_line, shown

Array = npt.NDArray[Any]
Matrix = TypeVar("Matrix")

_FORMAT = "ternops"
_VERSION = "1"


def write(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Array],
    fields: Mapping[str, str],
    shape: tuple[int, int],
    transposed: bool,
) -> None:
    """Write a file, whole or not at all; raises OSError for what cannot be written.

    tensors: "packed", uint8, and "scale", if there is one. fields: "encoding", and others that it
    has. shape: of the packed rows.
    """
    metadata = {
        "format": _FORMAT,
        "version": _VERSION,
        "rows": str(shape[0]),
        "columns": str(shape[1]),
        "transposed": str(int(transposed)),
        **fields,
    }
    metadata["crc32"] = of_content(metadata, tensors)
    with replaced(path) as temporary:
        temporary.write_bytes(safetensors.numpy.save(dict(tensors), metadata))


class Content(NamedTuple):
    """What `write` was given; metadata has the fields."""

    tensors: Mapping[str, Array]
    metadata: Mapping[str, str]
    shape: tuple[int, int]
    transposed: bool


def read(path: str | os.PathLike[str], restore: Callable[[Content], Matrix]) -> Matrix:
    """What `restore` makes of an intact file; it raises KeyError and ValueError for another one.

    Raises FileNotFoundError if it does not exist, ValueError, naming what is wrong, if it is cut
    off, damaged, or not such a file.
    """
    name = os.fspath(path)
    if not os.path.isfile(name):
        raise FileNotFoundError(f"path: {name!r} is not a file")
    try:
        with safetensors.safe_open(name, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT or metadata.get("version") != _VERSION:
                raise ValueError(
                    f"format {shown(metadata.get('format'))} version "
                    f"{shown(metadata.get('version'))}, "
                    f"expected {_FORMAT!r} version {_VERSION!r}"
                )
            tensors = {
                name: file.get_tensor(name)
                for name, kinds in (("packed", ("U8",)), ("scale", ("F32", "F16")))
                if name in file.keys() and _has_dtype(file, name, kinds)  # noqa: SIM118
            }
        return restore(_check_content(metadata, tensors))
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise ValueError(f"path: {name!r} is no intact ternops file: {in_line(error)}") from None


def _check_content(metadata: dict[str, str], tensors: dict[str, Array]) -> Content:
    rows, columns = int(metadata["rows"]), int(metadata["columns"])
    if min(rows, columns) < 0 or max(rows, columns) >= 2**48:
        raise ValueError(f"shape ({rows}, {columns})")
    if metadata["transposed"] not in ("0", "1"):
        raise ValueError(f"transposed {shown(metadata['transposed'])}, expected '0' or '1'")
    if metadata["crc32"] != of_content(metadata, tensors):
        raise ValueError("its checksum does not match: it was damaged after it was written")
    return Content(tensors, metadata, (rows, columns), metadata["transposed"] == "1")


def fields_of(packed: Packed) -> tuple[dict[str, Array], dict[str, str]]:
    """The tensors and the fields of packed levels."""
    tensors = {"packed": packed.bytes}
    if (scale := packed.scale) is not None:
        tensors["scale"] = scale
    fields = {"encoding": packed.encoding}
    if packed.levels != ENCODINGS[packed.encoding].values:
        fields["levels"] = " ".join(map(str, packed.levels))
    return tensors, fields


def packed_of(content: Content) -> Packed:
    """The packed levels of a file."""
    tensors, metadata, (rows, columns), _ = content
    encoding = metadata["encoding"]
    if encoding not in ENCODINGS:
        raise ValueError(f"encoding {encoding!r}, expected one of {', '.join(ENCODINGS)}")
    packed, scale = tensors["packed"], tensors.get("scale")
    record = ENCODINGS[encoding]
    levels = record.values
    if "levels" in metadata:
        levels = record.check_levels([*map(int, metadata["levels"].split())])
    check_columns("shape", columns, levels)
    factors = check_scale(scale, rows, columns)
    group = check_group(group_of(factors, columns) or None, encoding, columns)
    layout = layout_of(encoding, group, levels)
    expected = layout.nbytes(rows, columns) + SLACK
    if packed.dtype != np.uint8 or packed.shape != (expected,):
        raise ValueError(f"packed: {packed.dtype} {packed.shape}, expected uint8 ({expected},)")
    if isinstance(layout, Panels):
        layout.check_codes(packed, rows, columns, len(levels))
    else:
        layout.check(packed, rows, columns)
    return Packed(packed, rows, columns, factors, encoding, levels)


def _has_dtype(file: Any, name: str, kinds: tuple[str, ...]) -> bool:
    found = file.get_slice(name).get_dtype()
    if found not in kinds:
        raise ValueError(f"{name}: dtype {found}, expected {' or '.join(kinds)}")
    return True
