"""Which tile each kernel of a block encoding has: the literal defaults, and their names.

Needs no Numba, so that whoever only lists or picks kernels need not import it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ternops.encodings import ENCODINGS
from ternops.encodings.blocks import Blocks, GemvTile
from ternops.isa.tier import FAMILIES, BatchTile, Tier

#: The shape classes whose kernels have such tiles.
KINDS = ("one", "stream", "few")
Tile = GemvTile | BatchTile


class Choice(NamedTuple):
    """The tile of an encoding for a shape class."""

    encoding: str
    kind: str
    tile: Tile


def default_tile(encoding: Blocks, kind: str, tier: Tier, family: str = "") -> Tile:
    """What the literal tables say."""
    if kind == "one":
        return tier.pick(encoding.tiles, family)
    if kind == "stream":
        return tier.pick({**encoding.tiles, **encoding.stream_tiles}, family)
    rows = tier.pick({"generic": tier.batch.rows, **encoding.batch_rows}, family)
    return tier.batch._replace(rows=rows)


def default_tiles(tier: Tier) -> Iterator[Choice]:
    """Every default of a tier, of all families of CPUs, each kernel once."""
    seen = set()
    for family in FAMILIES:
        for name, encoding in ENCODINGS.items():
            if isinstance(encoding, Blocks):
                for kind in KINDS:
                    tile = default_tile(encoding, kind, tier, family)
                    kernel = kernel_name(encoding, tile, tier)
                    if kernel not in seen:
                        seen.add(kernel)
                        yield Choice(name, kind, tile)


def kernel_name(encoding: Blocks, tile: Tile, tier: Tier) -> str:
    """What the compiled kernel is found by: it tells tiles apart, wherever they come from."""
    if isinstance(tile, BatchTile):
        prefix, plain = "batch", {"few": "batch"}
    else:
        prefix, plain = "gemv", {"one": "gemv", "stream": "stream"}
    for kind, short in plain.items():
        if default_tile(encoding, kind, tier) == tile:
            return f"{short}_{encoding.name}"
    return f"{prefix}_{encoding.name}_{tile}"
