"""From a path to the weights of a decoder."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ternops.decoder.formats.checkpoint import Checkpoint
from ternops.decoder.formats.companion_files import check_companions
from ternops.decoder.formats.gguf import Gguf
from ternops.decoder.formats.gguf_container import MAGIC, is_later_part
from ternops.decoder.formats.hub import WEIGHTS
from ternops.decoder.formats.hugging_face import HuggingFace
from ternops.decoder.formats.packed import PackedFile
from ternops.decoder.formats.part_file import PartFile, find_part
from ternops.decoder.formats.paths import locate, missing_config, no_model
from ternops.decoder.formats.placeholders import check_fetched
from ternops.decoder.formats.scales import in_groups
from ternops.decoder.formats.stack_file import open_packed
from ternops.decoder.formats.ternary_floats import check_method
from ternops.decoder.parts import Matrix, moved, rows_of
from ternops.decoder.weights import HalfMatrix, Layer, Weights
from ternops.encodings import PANELS
from ternops.matrix import TernaryMatrix, pack
from ternops.memory import Arena
from ternops.ranks.split import Span, split_of

#: Float linear layers as the files have them, two bytes a weight.
HALF = "half"

#: Numbers of the table of rotations that is made before a weight is read: a million positions of
#: heads of 256 dimensions. A file of little more than one head may ask for terabytes.
_MOST_ROTATIONS = 2**28

#: The checkpoint that comes with the package.
TINY = Path(__file__).parents[2] / "checkpoints" / "tiny"


def open_checkpoint(
    path: str | os.PathLike[str] | None = None, *, quantize: str | None = None, rank: int = 0
) -> Checkpoint:
    """Open a Hugging Face folder, a GGUF file or what `python -m ternops quantize` wrote.

    path: a folder, which may hold one GGUF file in place of safetensors, or the parts that
    `quantize --shards` wrote, the folder of a repository
    in the hub's cache, or a file (default: the tiny checkpoint of this package); or the name of a
    model of the hub, such as "owner/name", "owner/name:Q2_0" for one of its GGUF files or
    "owner/name@revision", which is downloaded into that cache.
    quantize: "absmean" rounds float matrices that no config declares and that are no product of
    trits and scales, of a matrix, its rows or groups of their inputs, to trits and one scale a
    matrix, "absmean-128" (256, 64, 32) to one for so many inputs; without, reading one is a
    ValueError.
    rank: of a folder of parts, that of the process that reads it (`ternops.ranks`).
    Raises FileNotFoundError and ValueError, naming the file and what is wrong with it, and
    ModuleNotFoundError without the gguf package where it is needed.
    """
    check_method(quantize)
    found = _open(path, quantize, rank)
    config = found.config
    if config.context * config.rotated > _MOST_ROTATIONS:
        raise ValueError(
            f"config: a context of {config.context} and {config.rotated} rotated dimensions a "
            f"head, expected at most {_MOST_ROTATIONS} together"
        )
    return found


def _open(path: str | os.PathLike[str] | None, quantize: str | None, rank: int) -> Checkpoint:
    where = TINY if path is None else locate(path)
    if where.is_file():
        return _open_file(where, quantize)
    if where.is_dir():
        check_companions(where)
        if gguf := _gguf_file(where):
            return Gguf(gguf, quantize)
        if not (where / "config.json").is_file():
            if part := find_part(where, rank):
                return _open_file(part, quantize)
            reason = missing_config(where)
            raise FileNotFoundError(f"model: {str(where)!r} has no config.json{reason}")
    return HuggingFace(where, quantize)


def _open_file(path: Path, quantize: str | None) -> Checkpoint:
    check_fetched(path)
    with open(path, "rb") as file:
        is_gguf = file.read(len(MAGIC)) == MAGIC
    if is_gguf or path.suffix == ".gguf":
        return Gguf(path, quantize)
    try:
        return open_packed(path)
    except ValueError as error:
        raise ValueError(no_model(path) or str(error)) from None


def _gguf_file(folder: Path) -> Path | None:
    """The GGUF file, or the first part of one, that a folder holds in place of config.json and
    safetensors."""
    index = folder / "model.safetensors.index.json"
    if (folder / "config.json").is_file() and (
        index.is_file() or any(WEIGHTS.fullmatch(file.name) for file in folder.iterdir())
    ):
        return None
    files = sorted(file for file in folder.glob("*.[gG][gG][uU][fF]") if file.is_file())
    files = [file for file in files if not is_later_part(file)]
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise ValueError(f"model: {str(folder)!r} holds {names}, expected the path of one")
    return files[0] if files else None


def load_weights(
    checkpoint: Checkpoint,
    kind: str = "auto",
    progress: Callable[[int, int], None] | None = None,
    *part: Any,
) -> Weights:
    """Read a checkpoint.

    kind: how linear layers that are ternary are held: an encoding, "auto" for the best one for all
    of them together, or "fp16" of the quantised values, for the baseline; or "half" for a model
    that is not ternary, as it is. Then ternary tables are in two bytes a weight as well.
    progress: called with the layers done and their number.
    part: what `split_of` takes beside the config, for one of several processes: it keeps no more
    than its part of any matrix.
    """
    config = checkpoint.config
    split = split_of(config, *part)
    if kind == "auto":
        kind = checkpoint.preferred_encoding()
    if isinstance(checkpoint, PartFile):
        checkpoint.take(split)
    layers, arena = [], Arena()
    for index in range(*split.layers):
        shapes = config.linear_shapes(index)
        linear = {name: _linear(checkpoint, index, name, kind) for name in shapes}
        if not split.is_whole:
            linear = {
                name: _part(checkpoint, each, split.rows(name), arena)
                for name, each in linear.items()
            }
        norms = {name: checkpoint.norm(index, name) for name in config.norm_sizes(index)}
        biases = {name: checkpoint.bias(index, name) for name in config.bias_sizes(index)}
        vectors = {name: checkpoint.vector(index, name) for name in config.vector_shapes(index)}
        layers.append(Layer(linear, norms, biases, vectors))
        if progress:
            progress(index + 1 - split.layers.first, split.layers.size)
    _spread_groups(layers)
    embedding = _table(checkpoint.embedding(), kind)
    if config.tied:
        head = rows_of(embedding, *split.vocabulary)
    else:
        head = _own(checkpoint, _table(checkpoint.head(), kind), split.vocabulary)
    if split.stage:
        embedding = moved(_own(checkpoint, embedding, split.embedding), arena)
        head = embedding
    digest = checkpoint.digest if isinstance(checkpoint, PartFile) else ""
    return Weights(config, layers, checkpoint.final_norm(), embedding, head, digest)


def _part(checkpoint: Checkpoint, matrix: Matrix, rows: Span, arena: Arena) -> Matrix:
    """Some rows of a matrix, in memory of their own, or in a file that is mapped."""
    part = _own(checkpoint, matrix, rows)
    if isinstance(checkpoint, PackedFile):
        is_mapped = isinstance(matrix, HalfMatrix) or matrix.encoding == checkpoint.encoding
        return part if is_mapped else moved(part, arena)
    return moved(part, arena)


def _own(checkpoint: Checkpoint, matrix: Matrix, rows: Span) -> Matrix:
    """Some rows of a matrix, which are all that a part has of it."""
    return matrix if isinstance(checkpoint, PartFile) else rows_of(matrix, *rows)


def _spread_groups(layers: list[Layer]) -> None:
    """Give all matrices a scale for each of some inputs, if any has them, so that the activations
    have a step for each as well.

    Models that were trained in shards have groups in some matrices, and in others a scale a row.
    """
    matrices = [
        (layer, name, each)
        for layer in layers
        for name, each in layer.linear.items()
        if isinstance(each, TernaryMatrix)
    ]
    groups = {each.group for _, _, each in matrices if each.group}
    for layer, name, each in matrices:
        if groups and not each.group and each.encoding in PANELS:
            rows, columns = each.shape
            group = max((size for size in groups if columns % size == 0), default=0)
            if not group:
                raise ValueError(
                    f"checkpoint: {name} has {columns} inputs, expected a multiple of the "
                    f"{min(groups)} that share a scale in other matrices"
                )
            scale = in_groups(np.asarray(each.scale), columns, group)
            whole = np.broadcast_to(scale, (rows, columns // group))
            layer.linear[name] = pack(each.to_trits(), whole, each.encoding, each.levels)


def _linear(checkpoint: Checkpoint, layer: int, name: str, kind: str) -> TernaryMatrix | HalfMatrix:
    if kind == HALF:
        return checkpoint.half(layer, name)
    if kind != "fp16":
        return checkpoint.matrix(layer, name, kind)
    return HalfMatrix.from_floats(checkpoint.floats(layer, name))


def _table(matrix: TernaryMatrix | HalfMatrix, kind: str) -> TernaryMatrix | HalfMatrix:
    """An embedding or a head as it is held."""
    if kind in ("fp16", HALF) and isinstance(matrix, TernaryMatrix):
        return HalfMatrix.from_floats(matrix.to_dense())
    return matrix
