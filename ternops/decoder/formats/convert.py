"""Writing the packed model file: tensor by tensor, to be continued after an interruption."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ternops.decoder.config import Config
from ternops.decoder.formats.checkpoint import Checkpoint
from ternops.decoder.formats.gguf_container import parts_of
from ternops.decoder.formats.loading import open_checkpoint
from ternops.decoder.formats.packed import TABLES, PackedFile
from ternops.decoder.formats.packed_header import (
    FORMAT,
    VERSION,
    bytes_name,
    header_checksum,
    scale_name,
    whole_lines,
)
from ternops.decoder.formats.paths import locate
from ternops.decoder.formats.pooling import Pooling
from ternops.decoder.formats.sampling import to_json
from ternops.decoder.sampling import Sampling
from ternops.decoder.weights import HalfMatrix
from ternops.encodings import ENCODINGS, TERNARY
from ternops.encodings.common import SLACK
from ternops.files import GrowingFile, behind_links, is_node, replaced
from ternops.matrix import TernaryMatrix
from ternops.memory import CACHE_LINE
from ternops.spelling import expected_one

#: More than the header's entry of any tensor, with its checksum, can take.
_ENTRY = 200
_CHECKSUM = 9


class Growing(Protocol):
    """A file that is written from its beginning to its end."""

    size: int

    def append(self, data: Any) -> None: ...


#: Name, safetensors dtype, array.
Tensor = tuple[str, str, npt.NDArray[Any]]


def convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    encoding: str = "base3",
    progress: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] = lambda line: None,
    quantize: str | None = None,
) -> None:
    """Write all of a checkpoint to one packed file (`ternops.decoder.formats.packed`).

    source, quantize: as `open_checkpoint` takes them. target: the file, which appears whole or not
    at all; what was written before an interruption is used by the next call with the same source
    files (names, sizes, times of change) and settings. No more than one tensor is in memory. A pipe
    or a character device gets the bytes at the end, from a temporary file; a symbolic link stays.
    progress: called with the steps done and their number; say: with a line about resuming.
    Raises FileNotFoundError and ValueError for bad arguments and damaged sources, which leave
    nothing behind, OSError for a full disk and the like.
    """
    source, target = locate(source), behind_links(target)
    if encoding not in TERNARY:
        raise ValueError(expected_one("encoding", encoding, TERNARY))
    checkpoint = open_checkpoint(source, quantize=quantize)
    check_target(source, target)
    if is_node(target):
        with replaced(target) as temporary:
            convert(source, temporary, encoding, progress, say, quantize=quantize)
        return
    tokenizer = tokenizer_of(checkpoint, say)
    metadata = metadata_of(checkpoint, encoding)
    steps = _steps(checkpoint.config)
    room = _header_room(metadata, checkpoint.config)
    _check_space(target, room + len(tokenizer) + _data_bytes(checkpoint.config, encoding))
    files = _stamps(source, target)
    plan = {"files": files, "metadata": metadata, "room": room, "quantize": quantize}
    with GrowingFile(target, plan, room) as file:
        done = len(file.records)
        if file.started_over:
            say(f"{file.partial} is of other files or other settings: starting over")
        elif done:
            say(f"going on with {file.partial}: {done} of {len(steps)} steps are done")
        for at in range(done, len(steps)):
            if progress:
                progress(at, len(steps))
            entries = []
            for name, dtype, array in _tensors(checkpoint, steps[at], encoding, tokenizer):
                entries.append(append_tensor(file, name, dtype, array))
            file.finish_step(entries)
        if _stamps(source, target) != files:
            raise ValueError(f"{str(source)!r} was changed while it was read")
        file.commit(header_of(metadata, [entry for step in file.records for entry in step], room))
    if progress:
        progress(len(steps), len(steps))


def check_target(source: Path, target: Path) -> None:
    if target.is_dir():
        raise ValueError(f"{str(target)!r} is a folder, expected the name of a file")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{str(target)!r}: there is no folder {str(target.parent)!r}")
    if target.suffix == ".gguf":
        raise ValueError(f"{str(target)!r} would be taken for a GGUF file, expected .safetensors")
    if not target.exists() or is_node(target):
        return
    if source.is_file():
        is_source = target.samefile(source)
    else:
        is_source = target.resolve().parent == source.resolve() and not _is_packed(target)
    if is_source:
        raise ValueError(f"{str(target)!r} is what is to be read, expected another file")


def _is_packed(path: Path) -> bool:
    try:
        PackedFile(path)
    except ValueError:
        return False
    return True


def _stamps(source: Path, target: Path) -> list[list[Any]]:
    """Name, size and time of change of each file of the source, apart from what is written."""
    if source.is_file():
        files = [source.with_name(name) for name in parts_of(source.name)]
    else:
        ours = [target.with_name(target.name + end) for end in ("", ".partial", ".journal")]
        own = {path.resolve() for path in ours}
        files = [path for path in sorted(source.iterdir()) if path.resolve() not in own]
    found = [(path.name, path.stat()) for path in files if path.is_file()]
    return [[name, stat.st_size, stat.st_mtime_ns] for name, stat in found]


def tokenizer_of(checkpoint: Checkpoint, say: Callable[[str], None]) -> bytes:
    """The tokenizer.json, filled up with spaces; empty without a tokenizer."""
    try:
        text = checkpoint.tokenizer().to_str().encode()
    except FileNotFoundError as error:
        say(f"without a tokenizer: {error}")
        return b""
    return text.ljust(whole_lines(len(text)))


def metadata_of(checkpoint: Checkpoint, encoding: str) -> dict[str, str]:
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "encoding": encoding,
        "config": json.dumps(dataclasses.asdict(checkpoint.config)),
        "special_tokens": json.dumps(checkpoint.special_tokens()),
    }
    template = checkpoint.chat_template()
    if template is not None:
        if not _is_unicode(template):
            raise ValueError("chat template: holds half a surrogate pair, expected Unicode")
        metadata["chat_template"] = template
    if (pooling := checkpoint.pooling()) != Pooling():
        metadata["pooling"] = pooling.to_json()
    if (sampling := checkpoint.sampling()) != Sampling():
        metadata["sampling"] = to_json(sampling)
    return metadata


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _steps(config: Config) -> list[str | int]:
    """What is written and kept together, in order; a number stands for a layer."""
    heads = [] if config.tied else ["head"]
    return ["tokenizer", "embedding", *heads, *range(config.layers), "norm"]


def _tensors(
    checkpoint: Checkpoint, step: str | int, encoding: str, tokenizer: bytes
) -> Iterator[Tensor]:
    if step == "tokenizer":
        if tokenizer:
            yield "tokenizer", "U8", np.frombuffer(tokenizer, np.uint8)
    elif step == "embedding":
        yield from table_tensors("embedding", checkpoint.embedding())
    elif step == "head":
        yield from table_tensors("head", checkpoint.head())
    elif step == "norm":
        yield "norm", "F32", filled(checkpoint.final_norm())
    elif isinstance(step, int):
        yield from _layer(checkpoint, step, encoding)


def _layer(checkpoint: Checkpoint, layer: int, encoding: str) -> Iterator[Tensor]:
    config = checkpoint.config
    for name in config.linear_shapes(layer):
        matrix = checkpoint.matrix(layer, name, encoding)
        yield from matrix_tensors(f"layers.{layer}.{name}", matrix, encoding)
    yield from float_tensors(checkpoint, layer)


def float_tensors(checkpoint: Checkpoint, layer: int) -> Iterator[Tensor]:
    """All of a layer that is no matrix of a linear layer."""
    config = checkpoint.config
    for name in config.norm_sizes(layer):
        yield f"layers.{layer}.{name}.norm", "F32", filled(checkpoint.norm(layer, name))
    for name in config.bias_sizes(layer):
        yield f"layers.{layer}.{name}.bias", "F32", filled(checkpoint.bias(layer, name))
    for name in config.vector_shapes(layer):
        vector = checkpoint.vector(layer, name).reshape(-1)
        yield f"layers.{layer}.{name}.vector", "F32", filled(vector)


def matrix_tensors(name: str, matrix: HalfMatrix | TernaryMatrix, usual: str) -> Iterator[Tensor]:
    """A matrix; usual: the encoding that the file, or that kind of its matrices, has."""
    if isinstance(matrix, HalfMatrix):
        yield name, "BF16" if matrix.is_bf16 else "F16", matrix.bits
        return
    packed = matrix._packed
    scale = np.asarray(packed.scale)
    yield f"{name}.{bytes_name(packed.encoding, usual)}", "U8", filled(packed.bytes)
    if packed.levels != ENCODINGS[packed.encoding].values:
        levels = np.array(packed.levels, np.int8)
        missing = whole_lines(levels.size) - levels.size
        yield f"{name}.levels", "I8", np.pad(levels, (0, missing), "edge")
    dtype = "F16" if scale.dtype == np.float16 else "F32"
    yield f"{name}.{scale_name(scale.ndim, packed.group)}", dtype, filled(scale.reshape(-1))


def table_tensors(name: str, matrix: HalfMatrix | TernaryMatrix) -> Iterator[Tensor]:
    """An embedding or a head."""
    return matrix_tensors(name, matrix, TABLES)


def filled(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A one-dimensional array, filled up with zeros to whole cache lines."""
    missing = (whole_lines(array.nbytes) - array.nbytes) // array.itemsize
    return np.pad(array, (0, missing)) if missing else array


def append_tensor(file: Growing, name: str, dtype: str, array: npt.NDArray[Any]) -> list[Any]:
    """Write a tensor; returns its entry for the header."""
    data = np.ascontiguousarray(array)
    start = file.size
    file.append(data.data)
    return [name, dtype, data.shape, start, file.size, zlib.crc32(data.data)]


def header_of(metadata: dict[str, str], entries: list[Any], room: int) -> bytes:
    """Length and JSON, filled up with spaces to `room` bytes."""
    checksums = " ".join(f"{entry[-1]:08x}" for entry in entries)
    header: dict[str, Any] = {"__metadata__": {**metadata, "crc32": checksums}}
    for name, dtype, shape, start, stop, _ in entries:
        offsets = [start - room, stop - room]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
    header["__metadata__"]["header_crc32"] = header_checksum(header)
    size = room - 8
    text = json.dumps(header, separators=(",", ":")).encode()
    assert len(text) <= size
    return size.to_bytes(8, "little") + text.ljust(size)


def _header_room(metadata: dict[str, str], config: Config) -> int:
    """Bytes that suffice for the header, before it is known; tensors start after them."""
    tensors = 6 + sum(
        3 * len(config.linear_shapes(layer)) + len(config.norm_sizes(layer))
        + len(config.bias_sizes(layer)) + len(config.vector_shapes(layer))
        for layer in range(config.layers)
    )  # fmt: skip
    fixed = len(json.dumps({"__metadata__": {**metadata, "crc32": "", "header_crc32": "0" * 8}}))
    return whole_lines(8 + fixed + tensors * (_ENTRY + _CHECKSUM))


def _data_bytes(config: Config, encoding: str) -> int:
    """About as many bytes as the tensors will take, but for scales of groups."""
    layout = ENCODINGS[encoding]
    layers = range(config.layers)
    matrices = sum(
        whole_lines(layout.nbytes(*shape) + SLACK) + CACHE_LINE
        for layer in layers
        for shape in config.linear_shapes(layer).values()
    )
    floats = sum(whole_lines(4 * size) for layer in layers for size in config.float_sizes(layer))
    half = config.vocabulary * whole_lines(2 * config.hidden)
    return matrices + floats + (1 if config.tied else 2) * half


def _check_space(target: Path, needed: int) -> None:
    free = shutil.disk_usage(target.parent).free
    partial = target.with_name(f"{target.name}.partial")
    if partial.exists():
        free += partial.stat().st_size
    if needed > free:
        raise OSError(f"{str(target)!r} needs {needed:,} bytes, {free:,} are free there")
