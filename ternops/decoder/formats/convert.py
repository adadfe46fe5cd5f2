"""Writing the packed model file: tensor by tensor, to be continued after an interruption."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from ternops.decoder.config import Config
from ternops.decoder.formats.checkpoint import Checkpoint
from ternops.decoder.formats.gguf_container import parts_of
from ternops.decoder.formats.loading import open_checkpoint
from ternops.decoder.formats.packed import PackedFile
from ternops.decoder.formats.packed_header import DIGEST, FORMAT, VERSION, whole_lines
from ternops.decoder.formats.packed_writing import (
    Tensor,
    append_tensor,
    filled,
    float_tensors,
    header_of,
    header_room,
    matrix_tensors,
    table_tensors,
)
from ternops.decoder.formats.paths import locate
from ternops.decoder.formats.pooling import Pooling
from ternops.decoder.formats.sampling import to_json
from ternops.decoder.parts import rows_of
from ternops.decoder.sampling import Sampling
from ternops.encodings import ENCODINGS, TERNARY
from ternops.encodings.common import SLACK
from ternops.files import GrowingFile, behind_links, is_node, replaced
from ternops.memory import CACHE_LINE
from ternops.ranks.split import Split, split_of
from ternops.spelling import expected_one

#: What metadata have for a digest that is not known yet.
NO_DIGEST = "0" * 16


@dataclasses.dataclass(frozen=True)
class Output:
    """A file to write: what of a model it holds, and what its header says, a digest aside."""

    target: Path
    split: Split
    metadata: dict[str, str]


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
    whole = Output(target, split_of(checkpoint.config), metadata_of(checkpoint, encoding))
    write_outputs(checkpoint, source, [whole], encoding, progress, say, quantize)


def write_outputs(
    checkpoint: Checkpoint,
    source: Path,
    outputs: Sequence[Output],
    encoding: str,
    progress: Callable[[int, int], None] | None,
    say: Callable[[str], None],
    quantize: str | None,
) -> None:
    """Write files that hold a checkpoint together, reading it once; the rest as `convert`.

    Those whose metadata have a `DIGEST` get that of all of them.
    """
    config = checkpoint.config
    tokenizer = tokenizer_of(checkpoint, say)
    steps = _steps(config)
    rooms = [header_room(each.metadata, config) for each in outputs]
    needed = sum(_data_bytes(config, encoding, each.split) for each in outputs)
    targets = [each.target for each in outputs]
    _check_space(targets, sum(rooms) + len(tokenizer) + needed)
    files = _stamps(source, targets)
    with ExitStack() as stack:
        written = []
        for each, room in zip(outputs, rooms, strict=True):
            plan = {"files": files, "metadata": each.metadata, "room": room, "quantize": quantize}
            written.append(stack.enter_context(GrowingFile(each.target, plan, room)))
        done = min(len(each.records) for each in written)
        over = next((each.partial for each in written if each.started_over), None)
        if over is not None:
            say(f"{over} is of other files or other settings: starting over")
        elif done:
            say(f"going on with {written[0].partial}: {done} of {len(steps)} steps are done")
        for at in range(done, len(steps)):
            if progress:
                progress(at, len(steps))
            # Where an interruption came between two files, some have this step already.
            entries: dict[int, list[Any]] = {
                number: [] for number, each in enumerate(written) if len(each.records) == at
            }
            splits = {number: outputs[number].split for number in entries}
            for number, tensor in _tensors(checkpoint, steps[at], encoding, tokenizer, splits):
                entries[number].append(append_tensor(written[number], *tensor))
            for number, found in entries.items():
                written[number].finish_step(found)
        if _stamps(source, targets) != files:
            raise ValueError(f"{str(source)!r} was changed while it was read")
        digest = _digest([each.metadata for each in outputs], [each.records for each in written])
        for file, output, room in zip(written, outputs, rooms, strict=True):
            metadata = output.metadata
            if DIGEST in metadata:
                metadata = {**metadata, DIGEST: digest}
            file.commit(header_of(metadata, [e for step in file.records for e in step], room))
    if progress:
        progress(len(steps), len(steps))


def _digest(metadata: list[dict[str, str]], records: list[list[Any]]) -> str:
    """Of what files hold, by their checksums: as long as what stands for it before."""
    text = json.dumps([metadata, records], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[: len(NO_DIGEST)]


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


def _stamps(source: Path, targets: list[Path]) -> list[list[Any]]:
    """Name, size and time of change of each file of the source, apart from what is written."""
    if source.is_file():
        files = [source.with_name(name) for name in parts_of(source.name)]
    else:
        ends = ("", ".partial", ".journal")
        own = {each.with_name(each.name + end).resolve() for each in targets for end in ends}
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
    checkpoint: Checkpoint, step: str | int, encoding: str, tokenizer: bytes,
    splits: Mapping[int, Split],
) -> Iterator[tuple[int, Tensor]]:  # fmt: skip
    """Those of a step, each with the key of the split that it belongs to; a matrix is read once."""
    if isinstance(step, int):
        having = {key: each for key, each in splits.items() if step in range(*each.layers)}
        if having:
            yield from _layer(checkpoint, step, encoding, having)
    elif step == "tokenizer":
        for key, split in splits.items():
            if tokenizer and split.leads:
                yield key, ("tokenizer", "U8", np.frombuffer(tokenizer, np.uint8))
    elif step == "norm":
        norm = filled(checkpoint.final_norm())
        for key in splits:
            yield key, ("norm", "F32", norm)
    else:
        table = checkpoint.embedding() if step == "embedding" else checkpoint.head()
        for key, split in splits.items():
            rows = split.embedding if step == "embedding" else split.vocabulary
            for tensor in table_tensors(step, rows_of(table, *rows)):
                yield key, tensor


def _layer(
    checkpoint: Checkpoint, layer: int, encoding: str, splits: Mapping[int, Split]
) -> Iterator[tuple[int, Tensor]]:
    for name in checkpoint.config.linear_shapes(layer):
        matrix = checkpoint.matrix(layer, name, encoding)
        for key, split in splits.items():
            own = matrix if split.is_whole else rows_of(matrix, *split.rows(name))
            for tensor in matrix_tensors(f"layers.{layer}.{name}", own, encoding):
                yield key, tensor
    for tensor in float_tensors(checkpoint, layer):
        for key in splits:
            yield key, tensor


def _data_bytes(config: Config, encoding: str, split: Split) -> int:
    """About as many bytes as the tensors will take, but for scales of groups."""
    layout = ENCODINGS[encoding]
    total = 0
    for layer in range(*split.layers):
        for name, (rows, columns) in config.linear_shapes(layer).items():
            own = rows if split.is_whole else split.rows(name).size
            total += whole_lines(layout.nbytes(own, columns) + SLACK) + CACHE_LINE
        total += sum(whole_lines(4 * size) for size in config.float_sizes(layer))
    rows = split.embedding.size + (0 if config.tied else split.vocabulary.size)
    return total + rows * whole_lines(2 * config.hidden)


def _check_space(targets: list[Path], needed: int) -> None:
    """Raises OSError where the folder, of which all are, has no room."""
    folder = targets[0].parent
    free = shutil.disk_usage(folder).free
    for each in targets:
        partial = each.with_name(f"{each.name}.partial")
        if partial.exists():
            free += partial.stat().st_size
    if needed > free:
        name = targets[0] if len(targets) == 1 else folder
        raise OSError(f"{str(name)!r} needs {needed:,} bytes, {free:,} are free there")
