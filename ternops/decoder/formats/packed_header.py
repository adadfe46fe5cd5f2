"""What the header of the packed model file says: the names of tensors, their room, the config."""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections.abc import Callable
from typing import Any

from ternops.decoder.config import Config
from ternops.memory import CACHE_LINE
from ternops.shown import shown

FORMAT, VERSION = "ternops model", "2"
#: The key of metadata with what is the same in all parts of a model and in no others.
DIGEST = "digest"
#: The architecture of a file of version 1, by its config's "sub_norms".
_VERSION_1 = {False: "llama", True: "bitnet"}
#: The fields of Config that each file has: those that there were first.
_FIRST_FIELDS = {
    "hidden", "ffn", "layers", "heads", "kv_heads", "head_dim", "vocabulary", "context",
    "activation", "architecture", "sub_norms", "tied", "rope_theta", "epsilon", "eos",
    "rope_factors",
}  # fmt: skip
#: What the JSON of a Config's field must be, by its annotation.
_KINDS: dict[str, Callable[[Any], bool]] = {
    "int": lambda value: type(value) is int,
    "float": lambda value: type(value) in (int, float),
    "str": lambda value: type(value) is str,
    "bool": lambda value: type(value) is bool,
    "tuple[int, ...]": lambda value: type(value) is list and all(map(_KINDS["int"], value)),
    "tuple[float, ...]": lambda value: type(value) is list and all(map(_KINDS["float"], value)),
}


def scale_name(dimensions: int, group: int) -> str:
    """What follows the name of a matrix in that of its scale."""
    return ("scale", "scales", f"scales{group}")[dimensions]


def bytes_name(encoding: str, usual: str) -> str:
    """The same in that of its packed bytes."""
    return "packed" if encoding == usual else encoding


def whole_lines(size: int) -> int:
    """`size` bytes, rounded up to whole cache lines."""
    return -(-size // CACHE_LINE) * CACHE_LINE


def header_checksum(header: dict[str, Any]) -> str:
    """CRC-32 of the header of a safetensors file, apart from where it stands."""
    metadata = {**header["__metadata__"], "header_crc32": ""}
    text = json.dumps({**header, "__metadata__": metadata}, sort_keys=True)
    return f"{zlib.crc32(text.encode()):08x}"


def parse_config(text: str, version: str) -> Config:
    """The fields of Config as a file of a version has them; ValueError for others."""
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"config is not JSON: {error}") from None
    fields = {field.name: str(field.type) for field in dataclasses.fields(Config)}
    if version == "1":
        fields["sub_norms"] = "bool"
        del fields["architecture"]
    later = set(fields) - _FIRST_FIELDS
    if not isinstance(raw, dict) or set(raw) | later != set(fields):
        raise ValueError(f"config has other fields than {', '.join(fields)}")
    for name, value in raw.items():
        if not _KINDS[fields[name]](value):
            raise ValueError(f"config: {name} is {shown(value)}, expected {fields[name]}")
    if not raw.get("delta_layers"):  # with them `Config` has limits
        for name in ("delta_heads", "delta_key_heads", "delta_key_dim", "delta_value_dim"):
            if raw.get(name, 0) != 0:
                raise ValueError(
                    f"config: {name} is {raw[name]} in a model without delta_layers, expected 0"
                )
    settings: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in raw.items()}
    if version == "1":
        settings["architecture"] = _VERSION_1[settings.pop("sub_norms")]
    return Config(**settings)
