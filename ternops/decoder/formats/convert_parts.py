"""Writing a packed model as one file for each process that decodes it (`part_file`)."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ternops.decoder.formats.convert import NO_DIGEST, Output, metadata_of, write_outputs
from ternops.decoder.formats.loading import open_checkpoint
from ternops.decoder.formats.packed_header import DIGEST
from ternops.decoder.formats.part_file import MAX_PARTS, PART_FORMAT, Part, part_name
from ternops.decoder.formats.paths import locate
from ternops.decoder.parts import check_shared_out
from ternops.encodings import ENCODINGS, TERNARY
from ternops.ranks.split import Layout, parse_layout, split_of, stage_bounds
from ternops.spelling import expected_one

#: What `GrowingFile` has beside a file.
_BESIDE = (".partial", ".journal")


def convert_parts(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    shards: int,
    encoding: str,
    layout: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] = lambda line: None,
    quantize: str | None = None,
) -> Layout:
    """Write a checkpoint to as many files as processes are to decode it; how they share it out.

    target: their folder, a new one, or one that holds nothing but such parts; each of them appears
    whole or not at all, and takes part in no model that is not whole: the parts of another run have
    another digest. layout: as "tp=2,pp=2", by default every layer is shared out. The rest as
    `convert`, which is also what is raised, and ValueError for a model that processes cannot share
    out, or not so many.
    """
    source, folder = locate(source), Path(target)
    if encoding not in TERNARY:
        raise ValueError(expected_one("encoding", encoding, TERNARY))
    if not 2 <= shards <= MAX_PARTS:
        raise ValueError(f"shards: {shards}, expected 2 to {MAX_PARTS}, the number of processes")
    stages = 1 if layout is None else parse_layout(layout, shards).pp
    checkpoint = open_checkpoint(source, quantize=quantize)
    config = checkpoint.config
    check_shared_out(config)
    layer = config.linear_weights / config.layers * ENCODINGS[encoding].bits / 8
    # Of the head an int8 copy is scanned, a byte a weight.
    bounds = stage_bounds(config, stages, layer, config.vocabulary * config.hidden)
    parts = [Part(rank, shards, tuple(bounds)) for rank in range(shards)]
    splits = [split_of(config, *part) for part in parts]
    _check_folder(source, folder, {part_name(*part[:2]) for part in parts})
    metadata = {**metadata_of(checkpoint, encoding), "format": PART_FORMAT, DIGEST: NO_DIGEST}
    outputs = [
        Output(folder / part_name(*part[:2]), split, {**metadata, "part": part.to_json()})
        for part, split in zip(parts, splits, strict=True)
    ]
    folder.mkdir(exist_ok=True)
    try:
        write_outputs(checkpoint, source, outputs, encoding, progress, say, quantize)
    except BaseException:
        with suppress(OSError):  # where nothing is in it
            folder.rmdir()
        raise
    return parts[0].layout


def _check_folder(source: Path, folder: Path, names: set[str]) -> None:
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{str(folder)!r} is no folder, expected one for {len(names)} parts")
    if not folder.is_dir():
        if not folder.parent.is_dir():
            raise FileNotFoundError(f"{str(folder)!r}: there is no folder {str(folder.parent)!r}")
        return
    if source.resolve() == folder.resolve():
        raise ValueError(f"{str(folder)!r} is what is to be read, expected another folder")
    own = names | {name + end for name in names for end in _BESIDE}
    others = sorted({each.name for each in folder.iterdir()} - own)
    if others:
        raise ValueError(
            f"{str(folder)!r} holds {others[0]!r}, expected a new folder, or one with the "
            f"{len(names)} parts alone"
        )
