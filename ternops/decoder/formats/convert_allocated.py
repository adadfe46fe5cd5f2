"""Writing a packed model file whose matrices have encodings of their own (`ternops.allocation`)."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ternops.allocation import Allocation, allocate
from ternops.decoder.calibration import Key, float_matrix
from ternops.decoder.formats.checkpoint import Checkpoint
from ternops.decoder.formats.convert import (
    check_target,
    metadata_of,
    tokenizer_of,
)
from ternops.decoder.formats.packed_writing import matrix_tensors
from ternops.decoder.formats.whole_file import plain_tensors, write_whole
from ternops.encodings.base3 import BASE3
from ternops.files import behind_links, replaced

#: Of the file: what has another encoding says so.
USUAL = BASE3.name


def allocate_model(
    checkpoint: Checkpoint,
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    bits: float,
    activations: Mapping[Key, npt.NDArray[Any]] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Allocation:
    """Choose an encoding for each linear layer, with a mean of at most `bits` a weight, and write
    them as `PackedFile` reads them; the file appears whole or not at all.

    activations: what comes into each layer (`ternops.decoder.calibration`). The whole model is
    in memory as floats meanwhile. Raises ValueError and OSError as `convert`.
    """
    path, config = behind_links(target), checkpoint.config
    check_target(Path(source), path)
    keys = {
        f"layers.{at}.{name}": (at, name)
        for at in range(config.layers)
        for name in config.linear_shapes(at)
    }
    given = None
    if activations is not None:
        given = {name: activations[key] for name, key in keys.items()}
    dense = {name: float_matrix(checkpoint, *key) for name, key in keys.items()}
    found = allocate(dense, bits, given)
    metadata = metadata_of(checkpoint, USUAL)
    tokenizer = tokenizer_of(checkpoint, say)
    packed = (matrix_tensors(name, matrix, USUAL) for name, matrix in found.pack().items())
    tensors = itertools.chain(plain_tensors(checkpoint, config, tokenizer), *packed)
    with replaced(path) as temporary:
        write_whole(temporary, metadata, tensors, 24 * config.layers + 8)
    return found


def shares(found: Allocation) -> dict[str, float]:
    """Of the weights, how many each encoding has."""
    sizes: dict[str, int] = {}
    for each in found.chosen.values():
        name = each.option.encoding
        sizes[name] = sizes.get(name, 0) + each.values.size
    return {name: float(np.divide(size, sum(sizes.values()))) for name, size in sizes.items()}
