"""Tiles of the kernels: the literal defaults, their names, and what to try.

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
from ternops.encodings.encoding import Encoding
from ternops.encodings.panels import Panels
from ternops.isa.tier import FAMILIES, BatchTile, GemmTile, Tier

#: The shape class of products with many tokens, whose GEMM every encoding has.
MANY = "many"
#: The shape classes whose kernels have tiles; those but MANY are of block encodings alone.
KINDS = ("one", "stream", "few", MANY)
Tile = GemvTile | BatchTile | GemmTile


class Choice(NamedTuple):
    """The tile of an encoding for a shape class."""

    encoding: str
    kind: str
    tile: Tile


def kinds_of(encoding: Encoding) -> tuple[str, ...]:
    """The shape classes in which an encoding has a choice of tiles."""
    if isinstance(encoding, Panels):
        return ()
    return KINDS if isinstance(encoding, Blocks) else (MANY,)


def default_tile(encoding: Encoding, kind: str, tier: Tier, family: str = "") -> Tile:
    """What the literal tables say."""
    if kind == MANY:
        return tier.gemm
    assert isinstance(encoding, Blocks)
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
            for kind in kinds_of(encoding):
                tile = default_tile(encoding, kind, tier, family)
                kernel = kernel_name(encoding, tile, tier)
                if kernel not in seen:
                    seen.add(kernel)
                    yield Choice(name, kind, tile)


def kernel_name(encoding: Encoding, tile: Tile, tier: Tier) -> str:
    """What the compiled kernel is found by: it tells tiles apart, wherever they come from."""
    if isinstance(tile, GemmTile):
        prefix, plain = "gemm", {MANY: "gemm"}
    elif isinstance(tile, BatchTile):
        prefix, plain = "batch", {"few": "batch"}
    else:
        prefix, plain = "gemv", {"one": "gemv", "stream": "stream"}
    for kind, short in plain.items():
        if _compiled(default_tile(encoding, kind, tier)) == _compiled(tile):
            return f"{short}_{encoding.name}"
    return f"{prefix}_{encoding.name}_{tile}"


def _compiled(tile: Tile) -> Tile:
    """A tile as kernels know it."""
    return tile._replace(block_bytes=0) if isinstance(tile, GemmTile) else tile


#: Streams and fields apart, the likeliest first.
_SHAPES = (
    (4, 4), (4, 2), (2, 4), (3, 4), (8, 2), (6, 2), (4, 1), (3, 2), (2, 2), (6, 1), (8, 1), (2, 8),
    (1, 4), (1, 2), (1, 1), (2, 1), (3, 1), (4, 8), (1, 8),
)  # fmt: skip
#: Bytes that all streams together are prefetched ahead, the likeliest first.
AHEADS = (8192, 4096, 16384, 32768)
#: Bytes of weights that the streams of a thread share before they go on, or all.
PANEL = 3 << 18
#: Lines of a stream before the next stream's, where streams share panels.
RUNS = (4, 1)
#: Rows and tokens of a batch, the likeliest first.
_BATCHES = ((2, 8), (4, 4), (1, 8), (2, 4), (3, 4), (1, 4), (3, 8), (4, 8))
#: Rows and tokens of a GEMM's sums; a power of two of rows, and those that fit the registers.
_GEMMS = ((8, 3), (2, 12), (4, 2), (2, 4), (1, 8), (4, 4), (2, 8), (8, 2))
#: Bytes of the tokens that a panel is used for.
_BLOCKS = (1 << 19, 1 << 18, 3 << 18, 9 << 17, 3 << 19, 1 << 60)


@cache
def candidates(name: str, kind: str, tier: Tier) -> tuple[Tile, ...]:
    """All tiles of an encoding for a shape class, the defaults first, then the likeliest.

    Their sums leave a third of the registers to codes and constants.
    """
    encoding = ENCODINGS[name]
    tiles = [default_tile(encoding, kind, tier, family) for family in FAMILIES]
    if kind == MANY:
        return tuple(dict.fromkeys((*tiles, *_gemm_tiles(tier))))
    assert isinstance(encoding, Blocks)
    most_sums = tier.registers * 2 // 3
    if kind == "few":
        for rows, tokens in _BATCHES:
            if rows * tokens <= most_sums:
                tiles.append(tier.batch._replace(rows=rows, tokens=tokens))
        return tuple(dict.fromkeys(tiles))
    widths = (False, True) if encoding.has_narrow and tier.narrow_dot else (False,)
    most_apart = _most_apart(encoding, tier)
    panels = [(0, 1)]
    if kind == "stream":
        panels += [(PANEL, run) for run in (RUNS if tier.close is None else (1,))]
    for (panel, run), ahead, is_narrow, (rows, apart) in product(panels, AHEADS, widths, _SHAPES):
        if panel and (rows == 1 or ahead not in AHEADS[:2]):
            continue
        if apart <= most_apart and rows * apart <= most_sums:
            tiles.append(GemvTile(rows, apart, is_narrow, ahead // rows // 64 * 64, panel, run))
    return tuple(dict.fromkeys(tiles))


def _gemm_tiles(tier: Tier) -> Iterator[GemmTile]:
    """The default's panel with other sums, its sums with other panels, and blocks of tokens."""
    own, half = tier.gemm, tier.gemm.depth // 128 * 64
    forms = [own, own._replace(panel_rows=2 * own.panel_rows), own._replace(depth=half)]
    if not tier.has_tiles:
        most, even = own.rows * own.tokens, 1 if tier.dot_pairs is None else 2
        forms += [
            own._replace(rows=rows, tokens=tokens) for rows, tokens in _GEMMS
            if 3 * most // 4 <= rows * tokens <= most and rows % even == tokens % even == 0
        ]  # fmt: skip
    for form, block_bytes in product(forms, (own.block_bytes, *_BLOCKS)):
        yield form._replace(block_bytes=block_bytes)


def _most_apart(encoding: Blocks, tier: Tier) -> int:
    """The most fields apart that the tables have: more may not fit what dots add up in."""
    tables = {**encoding.tiles, **encoding.stream_tiles}, encoding.tiles
    return max(tier.pick(table, family).apart for table in tables for family in FAMILIES)
