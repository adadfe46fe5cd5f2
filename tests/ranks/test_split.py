"""Who has which rows and heads."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from ternops.decoder.parts import part_of
from ternops.ranks.split import UNIT, split_of, stage_bounds
from tests.helpers.small_models import LAYOUTS, SIZES, mixed_weights, small_config, small_model

COUNTS = (1, 2, 3, 4)
PLAIN = [name for name in LAYOUTS if not name.startswith("qwen3.5")]


def splits(config, ranks):
    return [split_of(config, rank, ranks) for rank in range(ranks)]


@pytest.mark.parametrize(("size", "layout", "ranks"), list(itertools.product(SIZES, PLAIN, COUNTS)))
def test_each_row_is_computed(size, layout, ranks):
    """Rows that are gathered belong to one process each; those of q, k and v hold its heads."""
    config = small_config(size, layout, vocabulary=700)
    every = splits(config, ranks)
    for name, count in (
        ("queries", config.heads), ("hidden", config.hidden), ("ffn", config.ffn),
        ("vocabulary", config.vocabulary),
    ):  # fmt: skip
        spans = [getattr(each, name) for each in every]
        assert [number for span in spans for number in range(*span)] == list(range(count))
    for each in every:
        for head in range(*each.queries):
            assert each.keys.first <= head // config.group < each.keys.last
            rows = range(*each.query_rows)
            assert {head * config.head_dim, (head + 1) * config.head_dim - 1} <= set(rows)
        for head in range(*each.keys):
            rows = range(*each.key_rows)
            assert {head * config.head_dim, (head + 1) * config.head_dim - 1} <= set(rows)
        for name, (rows, _) in config.linear_shapes().items():
            span = each.rows(name)
            assert span.first % UNIT == 0
            assert span.last % UNIT == 0 or span.last == rows


def test_parts_are_even():
    """Of a model whose sizes are those of BitNet 2B4T, in two: a hundredth more than half of it."""
    config = small_config(
        "hidden 200", "bitnet", hidden=2560, ffn=6912, heads=20, kv_heads=5, head_dim=128
    )
    shapes = config.linear_shapes()
    whole = sum(rows * columns for rows, columns in shapes.values())
    for each in splits(config, 2):
        part = sum(each.rows(name).size * columns for name, (_, columns) in shapes.items())
        assert part <= 0.51 * whole


def test_more_processes_than_rows():
    """One that would have nothing is too many; one that has no heads is not."""
    config = small_config("hidden 24", "llama", vocabulary=300)
    assert splits(config, 5)[0].queries.size == 0
    with pytest.raises(ValueError, match=r"^ranks: 6 of them, expected at most 5, the 64s of rows"):
        split_of(config, 0, 6)


@pytest.mark.parametrize("ranks", COUNTS)
def test_parts_hold_their_rows(ranks):
    """Weight for weight, in every layout of packed bytes, without a copy."""
    config = small_config("hidden 128", "qwen3", vocabulary=300)
    for weights in (mixed_weights(config), small_model(config, "tl1").weights):
        for split in splits(config, ranks):
            part = part_of(weights, split)
            for layer, whole in zip(part.layers, weights.layers, strict=True):
                for name, matrix in layer.linear.items():
                    first, last = split.rows(name)
                    expected = whole.linear[name].to_dense()[first:last]
                    assert np.array_equal(matrix.to_dense(), expected)
            first, last = split.vocabulary
            assert np.array_equal(part.head.to_dense(), weights.head.to_dense()[first:last])


def test_stages_read_as_many_bytes():
    """The first one has the head as well; each has a layer."""
    config = small_config("hidden 24", "llama", layers=30)
    assert stage_bounds(config, 2, 10.0, 0.0) == [0, 15, 30]
    assert stage_bounds(config, 3, 10.0, 60.0) == [0, 6, 18, 30]
    assert stage_bounds(config, 3, 10.0, 1e6) == [0, 1, 2, 30]
    assert stage_bounds(config, 30, 10.0, 1e6) == list(range(31))
    with pytest.raises(ValueError, match=r"^layout: pp=31, expected 1 to the model's 30 layers$"):
        stage_bounds(config, 31, 10.0, 0.0)


@pytest.mark.parametrize("ranks", [2, 4, 6])
def test_each_layer_is_in_one_stage(ranks):
    """And the embedding and the head in the first."""
    config = small_config("hidden 128", "qwen3", vocabulary=300, layers=5)
    weights, bounds = small_model(config).weights, (0, 2, 5)
    for rank in range(ranks):
        split = split_of(config, rank, ranks, bounds)
        assert (split.stage, split.rank) == divmod(rank, ranks // 2)
        part = part_of(weights, split)
        assert len(part.layers) == (2, 3)[split.stage]
        assert part.layers[0].norms is weights.layers[(0, 2)[split.stage]].norms
        assert part.embedding.shape[0] == (300, 0)[split.stage]
        assert (part.head.shape[0] == 0) == (split.stage == 1)
