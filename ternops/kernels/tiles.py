"""Tiles of the kernels of block encodings: the literal defaults, their names, and what to try.

Needs no Numba, so that whoever only lists or picks kernels need not import it. The bits of a
product do not depend on any of this.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import product
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


#: Streams and fields apart, the likeliest first.
_SHAPES = (
    (4, 4), (4, 2), (2, 4), (3, 4), (8, 2), (6, 2), (4, 1), (3, 2), (2, 2), (6, 1), (8, 1), (2, 8),
    (1, 4), (1, 2), (1, 1), (2, 1), (3, 1), (4, 8), (1, 8),
)  # fmt: skip
#: Bytes that all streams together are prefetched ahead, the likeliest first.
AHEADS = (8192, 4096, 16384, 32768)
#: Rows and tokens of a batch, the likeliest first.
_BATCHES = ((2, 8), (4, 4), (1, 8), (2, 4), (3, 4), (1, 4), (3, 8), (4, 8))


@cache
def candidates(name: str, kind: str, tier: Tier) -> tuple[Tile, ...]:
    """All tiles of an encoding for a shape class, the defaults first, then the likeliest.

    Their sums leave a third of the registers to codes and constants.
    """
    encoding = ENCODINGS[name]
    assert isinstance(encoding, Blocks)
    tiles = [default_tile(encoding, kind, tier, family) for family in FAMILIES]
    most_sums = tier.registers * 2 // 3
    if kind == "few":
        for rows, tokens in _BATCHES:
            if rows * tokens <= most_sums:
                tiles.append(tier.batch._replace(rows=rows, tokens=tokens))
        return tuple(dict.fromkeys(tiles))
    widths = (False, True) if encoding.has_narrow and tier.narrow_dot else (False,)
    most_apart = _most_apart(encoding, tier)
    for ahead, is_narrow, (rows, apart) in product(AHEADS, widths, _SHAPES):
        if apart <= most_apart and rows * apart <= most_sums:
            tiles.append(GemvTile(rows, apart, is_narrow, ahead // rows // 64 * 64))
    return tuple(dict.fromkeys(tiles))


def _most_apart(encoding: Blocks, tier: Tier) -> int:
    """The most fields apart that the tables have: more may not fit what dots add up in."""
    tables = {**encoding.tiles, **encoding.stream_tiles}, encoding.tiles
    return max(tier.pick(table, family).apart for table in tables for family in FAMILIES)
