"""Tiles: the bits do not depend on them, and no kernel is taken for another's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

import ternops
from ternops.ahead.jobs import every
from ternops.encodings import ENCODINGS, PANELS
from ternops.encodings.blocks import GemvTile
from ternops.isa import detect
from ternops.isa.tier import FAMILIES, BatchTile, GemmTile, family_of
from ternops.kernels import fp16, int8, reference, tiles, tuning
from ternops.kernels.grouped import panel_tile
from ternops.kernels.plan import KINDS, make_plan
from ternops.simd import RowsKernel
from tests.helpers import cases
from tests.helpers.internals import eager_threads, forced_tile
from tests.helpers.marks import apart

#: Fewer rows than streams, as many, one more, what an odd step leaves over, and groups of them.
ROWS = (1, 2, 3, 5, 7, 8, 9, 12, 15, 16, 17, 23, 31, 33, 65, 130, 257)
COLUMNS = (1, 63, 641, 1024)


def exact(
    encoding: str, tile: tiles.Tile, tokens: tuple[int, ...] = (1,),
    many_rows: tuple[int, ...] = ROWS, many_columns: tuple[int, ...] = COLUMNS,
) -> None:  # fmt: skip
    """Products of odd shapes on one and more threads, compared with the oracle."""
    for rows in many_rows:
        for columns in many_columns:
            weights = cases.trits(rows, columns, encoding=encoding)
            x = cases.activations(max(tokens), columns)
            x[0, ::3] = -128
            expected = reference.matmul_int32(x, weights)
            matrix = ternops.pack(weights, encoding=encoding)
            with forced_tile(tile), eager_threads():
                for m in tokens:
                    for threads in (1, 2, 3):
                        found = ternops.matmul(x[:m], matrix.T, threads=threads)
                        where = f"{tile}, {rows} x {columns}, {m} tokens, {threads} threads"
                        assert cases.same_bits(found, expected[:m]), where


#: Encodings that have a choice of tiles.
TILED = [name for name in cases.ENCODINGS if tiles.kinds_of(ENCODINGS[name])]


def most_apart(encoding: str) -> int:
    """The most fields apart that the tier has room for."""
    return max(tile.apart for tile in tiles.candidates(encoding, "stream", detect.TIER))


#: Every number of streams; both widths of vectors, and fields apart or not. Each is compiled.
STREAMS = (
    GemvTile(1, 1), GemvTile(3, 2), GemvTile(4, 1, True, 64), GemvTile(6, 1), GemvTile(8, 2),
    GemvTile(4, 1, panel=8192), GemvTile(3, 1, panel=64),
)  # fmt: skip
#: What `make test` has of them: each with one encoding, the others' are left to `make test-tiers`.
#: Those with fields apart, which differ by the fields, are of two.
OF_ENCODING = {"two_bit": (0, 4, 5), "base3": (1, 3, 4), "one_bit": (1, 2, 6)}


@pytest.mark.parametrize(
    ("encoding", "tile"),
    [
        pytest.param(
            name,
            tile,
            marks=[] if at in OF_ENCODING[name] else pytest.mark.tiers,
            id=f"{name}-{at}",
        )
        for name in cases.BLOCKS
        for at, tile in enumerate(STREAMS)
    ],
)
def test_streams_give_the_same_bits(encoding, tile):
    """Of odd shapes, whose rows the streams do not share out evenly."""
    if tile.is_narrow and not ENCODINGS[encoding].has_narrow:
        pytest.skip(f"{encoding} has no narrow vectors")
    exact(encoding, tile._replace(apart=min(tile.apart, most_apart(encoding))))


@pytest.mark.parametrize("encoding", cases.BLOCKS)
def test_every_default_gives_the_same_bits(encoding):
    """Those of other families of CPUs as well."""
    for choice in tiles.default_tiles(detect.TIER):
        if choice.encoding == encoding:
            exact(encoding, choice.tile, (2, 9) if choice.kind == "few" else (1,))


@pytest.mark.parametrize("is_narrow", [False, True])
@pytest.mark.parametrize("encoding", cases.BLOCKS)
def test_rows_too_long_for_fields_apart(encoding, is_narrow):
    """On both sides of the length from which the sums of fields in place would overflow."""
    fields = ENCODINGS[encoding].fields
    if is_narrow and not ENCODINGS[encoding].has_narrow:
        pytest.skip(f"{encoding} has no narrow vectors")
    if most_apart(encoding) == 1:
        pytest.skip(f"{encoding} has no fields apart on {detect.TIER.name}")
    width = 32 if is_narrow else detect.TIER.vector_bytes
    longest = 21845 * min(width, detect.TIER.vector_bytes) * fields
    tile = GemvTile(2, 2, is_narrow)
    for columns in (longest - 1, longest + fields * 64 + 1):
        weights = np.ones((2, columns), np.int8)
        weights[1, ::2] = ENCODINGS[encoding].values[0]
        x = np.full((1, columns), -128, np.int8)
        expected = reference.matmul_int32(x, weights)
        with forced_tile(tile):
            found = ternops.matmul(x, ternops.pack(weights, encoding=encoding).T)
        assert cases.same_bits(found, expected), (encoding, columns)


def gemm_forms(encoding: str) -> list[tiles.Tile]:
    """Of the candidates for many tokens one a kernel, with the smallest block of tokens."""
    found = tiles.candidates(encoding, tiles.MANY, detect.TIER)
    record = ENCODINGS[encoding]
    small = [tile._replace(block_bytes=min(each.block_bytes for each in found)) for tile in found]
    return list({tiles.kernel_name(record, tile, detect.TIER): tile for tile in small}.values())


def exact_gemm(encoding: str, tile: tiles.Tile) -> None:
    """Panels that are full and not, of one depth and of several; blocks of tokens likewise."""
    exact(encoding, tile, (1, 13, 101), (1, 17, 33, 49, 130), (1, 641))
    exact(encoding, tile, (35,), (50,), (tile.depth + 321,))


@pytest.mark.parametrize("encoding", TILED)
def test_blocks_of_tokens_give_the_same_bits(encoding):
    """Of every size that tuning may choose, down to the least; one compiled kernel has them all."""
    found = tiles.candidates(encoding, tiles.MANY, detect.TIER)
    default = tiles.default_tile(ENCODINGS[encoding], tiles.MANY, detect.TIER)
    names = {tiles.kernel_name(ENCODINGS[encoding], default, detect.TIER)}
    blocks = {tile for tile in found if tile == default._replace(block_bytes=tile.block_bytes)}
    assert len(blocks) > 4
    for tile in (*blocks, default._replace(block_bytes=1)):
        assert tiles.kernel_name(ENCODINGS[encoding], tile, detect.TIER) in names
        exact(encoding, tile, (401,), (50,), (1024,))


@pytest.mark.timeout(2000)
@pytest.mark.tiers
@pytest.mark.slow
@pytest.mark.parametrize("encoding", TILED)
def test_every_candidate_of_the_gemm_gives_the_same_bits(encoding):
    """All sums and panels that tuning may choose."""
    forms = gemm_forms(encoding)
    assert len(forms) > 2
    for tile in forms:
        exact_gemm(encoding, tile)


@pytest.mark.timeout(2000)
@pytest.mark.parametrize("encoding", apart(cases.BLOCKS, "tiles", few=()))
def test_every_candidate_gives_the_same_bits(encoding):
    """All forms that tuning may choose; how far ahead of them is prefetched reads nothing."""
    for kind in ("one", "stream", "few"):
        found = tiles.candidates(encoding, kind, detect.TIER)
        assert tiles.default_tile(ENCODINGS[encoding], kind, detect.TIER) in found
        forms = {str(each).partition("w")[0].partition("n")[0]: each for each in found}
        for tile in forms.values():
            exact(encoding, tile, (2, 3, 9) if kind == "few" else (1,))


def test_candidates_are_right_on_their_tier():
    """No more fields apart than the tables have, whose sums fit what the tier adds up in."""
    for tier in detect.TIERS:
        for name in cases.BLOCKS:
            record = ENCODINGS[name]
            for kind in ("one", "stream"):
                found = tiles.candidates(name, kind, tier)
                most = max(
                    tiles.default_tile(record, each, tier, family).apart
                    for each in ("one", "stream") for family in FAMILIES
                )  # fmt: skip
                assert max(tile.apart for tile in found) == most
                assert len(set(found)) == len(found)
                assert record.has_narrow or not any(tile.is_narrow for tile in found)


def test_candidates_of_the_gemm_are_right_on_their_tier():
    """What the kernels take for granted of a panel, and what the registers hold."""
    for tier in detect.TIERS:
        lanes, even = tier.vector_bytes // 4, 1 if tier.dot_pairs is None else 2
        for name, encoding in ENCODINGS.items():
            found = tiles.candidates(name, tiles.MANY, tier)
            assert found[0] == tiles.default_tile(encoding, tiles.MANY, tier) == tier.gemm
            assert len(set(found)) == len(found)
            for tile in found:
                together = max(tile.rows, lanes)
                assert together % tile.rows == 0
                assert tile.panel_rows % 16 == tile.panel_rows % together == 0
                assert tile.rows % even == tile.tokens % even == 0
                assert tile.depth % 64 == 0
                assert tile.depth >= encoding.block
                assert tile.rows * tile.tokens <= tier.gemm.rows * tier.gemm.tokens
                assert tile.block_bytes > 0
                if tier.has_tiles:
                    assert tile[:2] == tier.gemm[:2]


def test_names_tell_tiles_apart():
    """Within a tier: compiled kernels are found by their names."""
    several = [
        GemvTile(rows, apart, is_narrow, ahead)
        for rows in (1, 2, 4) for apart in (1, 2, 4) for is_narrow in (False, True)
        for ahead in (1024, 2048, 4096, 8192)
    ]  # fmt: skip
    batches = [BatchTile(rows, tokens, 7) for rows in (1, 2, 4) for tokens in (4, 8)]
    for tier in detect.TIERS:
        named: dict[str, tuple[str, tiles.Tile]] = {}
        for name, record in ENCODINGS.items():
            defaults = [
                tiles.default_tile(record, kind, tier, family)
                for kind in tiles.kinds_of(record) for family in FAMILIES
            ]  # fmt: skip
            own = [*several, *batches] if name in cases.BLOCKS else []
            for tile in (*own, *defaults, *tiles.candidates(name, tiles.MANY, tier)):
                key = tiles.kernel_name(record, tile, tier)
                shape = tile[:2] if isinstance(tile, BatchTile) else tile
                if isinstance(tile, GemmTile):
                    shape = tile._replace(block_bytes=0)
                assert named.setdefault(key, (name, shape)) == (name, shape), (tier.name, key)
            if name in cases.BLOCKS:
                first = tiles.default_tile(record, "one", tier)
                assert tiles.kernel_name(record, first, tier) == f"gemv_{name}"
            assert tiles.kernel_name(record, tier.gemm, tier) == f"gemm_{name}"


def test_every_default_is_listed_once():
    """Of every family, and every one that some CPU would use."""
    for tier in detect.TIERS:
        listed = list(tiles.default_tiles(tier))
        names = [
            tiles.kernel_name(ENCODINGS[name], tile, tier) for name, _, tile in listed
        ]  # fmt: skip
        assert len(set(names)) == len(names)
        for record in ENCODINGS.values():
            for kind in tiles.kinds_of(record):
                for family in FAMILIES:
                    tile = tiles.default_tile(record, kind, tier, family)
                    assert tiles.kernel_name(record, tile, tier) in names


def test_the_output_heads_kernels_are_named_by_their_streams():
    """Every family's are there for whoever compiles ahead, and this process's is one of them."""
    tables: list[tuple[str, Callable[[str], RowsKernel], dict[str, Any], RowsKernel]] = [
        ("gemv_i8", int8.gemv_i8_for, int8.STREAMS, int8.gemv_i8),
        ("gemv_fp16", partial(fp16.gemv_for, "fp16"), fp16.STREAMS, fp16.gemv_fp16),
        ("gemv_bf16", partial(fp16.gemv_for, "bf16"), fp16.STREAMS, fp16.gemv_bf16),
    ]
    ahead = {job.name for job in every().values() if isinstance(job, RowsKernel)}
    for name, kernel_for, table, here in tables:
        streams = {kernel_for(family).name: detect.TIER.pick(table, family) for family in FAMILIES}
        assert len(set(streams.values())) == len(streams)
        assert streams[name] == detect.TIER.pick(table)
        assert here.name in streams
        assert set(streams) <= ahead


@pytest.mark.parametrize("encoding", cases.BLOCKS)
def test_a_plan_tells_how_many_streams_its_kernel_reads(encoding):
    """As many as its tile has rows, so that their beginnings can be prefetched."""
    streams = {kind: make_plan(encoding, 320, kind).streams for kind in KINDS}
    rows = {kind: tuning.chosen_tile(encoding, kind).rows for kind in ("one", "stream")}
    assert streams == {**rows, "few": 0, "many": 0}


@pytest.mark.parametrize("encoding", PANELS)
def test_so_does_a_plan_of_panels(encoding):
    """Streams of whole panels."""
    plan = make_plan(encoding, 512, "stream", group=cases.groups_of(encoding)[0])
    assert (plan.streams, plan.unit) == (panel_tile(PANELS[encoding]).streams, 16)


def test_families():
    """By LLVM's names; what no table knows has the tier's own tiles."""
    assert [family_of(each) for each in ("znver5", "znver4", "znver3")] == ["zen", "zen4", "zen"]
    table = {"generic": 1, "avx512vnni": 2, "avx512vnni@zen": 3, "avx512vbmi@zen4": 4}
    tiers = {tier.name: tier for tier in detect.TIERS}
    assert [tiers["avx512vnni"].pick(table, each) for each in FAMILIES] == [2, 3, 3]
    assert [tiers["avx512vbmi"].pick(table, each) for each in FAMILIES] == [2, 3, 4]
    assert {family_of(each) for each in ("sapphirerapids", "generic", "apple-m1")} == {""}
    assert detect.FAMILY in FAMILIES
