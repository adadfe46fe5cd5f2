"""Writing a packed model file whose matrices have encodings of their own (`ternops.allocation`)."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ternops.allocation import Allocation, allocate, stored_here
from ternops.decoder.calibration import Key, float_matrix
from ternops.decoder.formats.checkpoint import Checkpoint
from ternops.decoder.formats.convert import (
    check_target,
    metadata_of,
    packed_tensors,
    tokenizer_of,
)
from ternops.decoder.formats.whole_file import plain_tensors, write_whole
from ternops.encodings.base3 import BASE3
from ternops.files import behind_links, replaced

#: Of the file: it has the values of all options.
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

    activations: what comes into each layer (`ternops.decoder.calibration`). The choice is among
    encodings whose values are trits: a decoder holds all of them in one, so that the file is as
    small as was asked for, and the model in memory as large as with base3. The whole model is in
    memory as floats meanwhile. Raises ValueError and OSError as `convert`.
    """
    path, config = behind_links(target), checkpoint.config
    check_target(Path(source), path)
    keys = {
        f"layers.{at}.{name}": (at, name)
        for at in range(config.layers)
        for name in config.linear_shapes(at)
    }
    options = [
        each
        for each in stored_here()
        if all(set(levels) <= set(BASE3.values) for levels in each.balances.values())
    ]
    given = None
    if activations is not None:
        given = {name: activations[key] for name, key in keys.items()}
    dense = {name: float_matrix(checkpoint, *key) for name, key in keys.items()}
    found = allocate(dense, bits, given, options=options)
    others = {
        name: each.option.encoding
        for name, each in found.chosen.items()
        if each.option.encoding != USUAL
    }
    metadata = {**metadata_of(checkpoint, USUAL), "encodings": json.dumps(others)}
    tokenizer = tokenizer_of(checkpoint, say)
    packed = (packed_tensors(name, matrix) for name, matrix in found.pack().items())
    tensors = itertools.chain(plain_tensors(checkpoint, config, tokenizer), *packed)
    with replaced(path) as temporary:
        write_whole(temporary, metadata, tensors, 16 * config.layers + 8)
    return found


def shares(found: Allocation) -> dict[str, float]:
    """Of the weights, how many each encoding has."""
    sizes: dict[str, int] = {}
    for each in found.chosen.values():
        name = each.option.encoding
        sizes[name] = sizes.get(name, 0) + each.values.size
    return {name: float(np.divide(size, sum(sizes.values()))) for name, size in sizes.items()}
