"""Embeddings and heads whose weights are ternary: packed, with a scale a group of inputs."""

from __future__ import annotations

import numpy as np

from ternops.decoder.formats.scales import GROUPS, Floats, Trits, in_groups
from ternops.decoder.formats.ternary_floats import exact_product_of
from ternops.decoder.weights import HalfMatrix
from ternops.encodings.two_bit import TWO_BIT
from ternops.matrix import TernaryMatrix, pack
from ternops.memory import Arena


def packed_table(trits: Trits, scale: Floats, arena: Arena) -> TernaryMatrix | None:
    """A table as the decoder looks rows up and multiplies; None for columns that no group divides.

    scale: of any shape of `fewest_scales`.
    """
    rows, columns = trits.shape
    group = (
        columns // scale.shape[1]
        if scale.ndim == 2
        else next((each for each in GROUPS if columns % each == 0), 0)
    )
    if not group:
        return None
    whole = np.broadcast_to(in_groups(scale, columns, group), (rows, columns // group))
    return pack(trits, whole, TWO_BIT.name).moved(arena)


def ternary_table(table: HalfMatrix, arena: Arena) -> TernaryMatrix | None:
    """A table of floats that are trits times scales already, packed; None for any other one.

    Models whose weights alone are ternary come as such floats, embedding and head included.
    """
    exact = exact_product_of(table.shape, table.to_dense)
    return packed_table(*exact, arena) if exact else None
