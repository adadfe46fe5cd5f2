"""Embeddings and heads whose weights are ternary: packed, with a scale a group of inputs."""

from __future__ import annotations

import numpy as np

from ternops.decoder.formats.scales import GROUPS, Floats, Trits, in_groups
from ternops.decoder.formats.ternary_floats import exact_product_of
from ternops.decoder.weights import HalfMatrix
from ternops.encodings.two_bit import TWO_BIT
from ternops.matrix import TernaryMatrix, pack
from ternops.memory import Arena


def table_scale(scale: Floats, rows: int, columns: int) -> Floats | None:
    """A scale of any shape of `fewest_scales` as one a group of inputs, (rows, groups); None for
    columns that no group divides."""
    group = (
        columns // scale.shape[1]
        if scale.ndim == 2
        else next((each for each in GROUPS if columns % each == 0), 0)
    )
    if not group:
        return None
    return np.broadcast_to(in_groups(scale, columns, group), (rows, columns // group))


def packed_table(trits: Trits, scale: Floats, arena: Arena) -> TernaryMatrix | None:
    """A table as the decoder looks rows up and multiplies; None for columns that no group divides.

    scale: of any shape of `fewest_scales`.
    """
    whole = table_scale(scale, *trits.shape)
    return None if whole is None else pack(trits, whole, TWO_BIT.name).moved(arena)


def ternary_table(table: HalfMatrix, arena: Arena) -> TernaryMatrix | None:
    """A table of floats that are trits times scales already, packed; None for any other one.

    Models whose weights alone are ternary come as such floats, embedding and head included.
    """
    exact = exact_product_of(table.shape, table.to_dense)
    return packed_table(*exact, arena) if exact else None
