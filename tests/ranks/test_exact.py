"""What several processes decode together has the bits of one alone."""

from __future__ import annotations

import pytest

from ternops.encodings import ENCODINGS, PANELS
from tests.helpers.rank_cases import run_ranks

pytestmark = pytest.mark.mpi
#: Each trunk, in sizes of which nothing is a whole number of units.
LAYOUTS = [
    {"size": "hidden 200", "layout": "bitnet"},
    {"size": "hidden 100", "layout": "llama", "threads": 2},
    {"size": "hidden 257", "layout": "qwen2", "cache": "int8"},
    {"size": "hidden 200", "layout": "qwen3 inner", "cache": "int3"},
    {"size": "hidden 200", "layout": "gemma3", "threads": 2},
    {"size": "hidden 200", "layout": "gemma3", "cache": "fp32"},
    {"size": "hidden 24", "layout": "minicpm"},
]
SPARSE = [
    {
        "size": "hidden 257",
        "layout": "bitnet",
        "kind": "base3",
        "sparse": "always",
        "threads": 2,
        "vocabulary": 500,
    },
    {"size": "hidden 200", "layout": "bitnet", "sparse": "always", "vocabulary": 500},
]
HEADS = [
    {"layout": "llama", "vocabulary": 1500, "head": "screened"},
    {"layout": "bitnet", "vocabulary": 1500, "head": "screened", "threads": 2},
    {"layout": "llama", "vocabulary": 777, "head": "int8"},
]
TYPES = [
    {"size": "hidden 128", "layout": "llama", "kind": name, "group": group}
    for name in ENCODINGS
    for group in ((0, 64) if name in PANELS else (0,))
]
MIXED = {"size": "hidden 128", "layout": "qwen3", "kind": "mixed"}


@pytest.mark.parametrize("ranks", [2, 3, 4, 7])
def test_trunks_and_heads(ranks):
    """Caches and lists of what is not 0, too, with one thread and with two."""
    units = {2: 2, 3: 3, 4: 4, 7: 5}[ranks]
    cases = [each for each in LAYOUTS if ranks <= units or each["size"] != "hidden 24"]
    if ranks > 5:  # a vocabulary of 300 has 5 units
        cases = [{**each, "vocabulary": 500} for each in cases]
    run_ranks(ranks, cases + HEADS + SPARSE)


@pytest.mark.parametrize(("ranks", "stages"), [(2, 2), (3, 3), (4, 2), (7, 7)])
def test_pipelines(ranks, stages):
    """Stages of one process and of several, one sequence and some under way together."""
    deep = {"stages": stages, "config": {"layers": 8}}
    run_ranks(ranks, [
        {"size": "hidden 200", "layout": "bitnet", **deep},
        {"layout": "llama", "vocabulary": 1500, "head": "screened", "threads": 2, **deep},
        {"size": "hidden 128", "layout": "qwen3", "kind": "base3", "group": 64, **deep},
        {"layout": "gemma3", "stages": stages,
         "config": {"layers": 8, "windows": (7, 0, 9, 0, 0, 5, 0, 7)}},
    ])  # fmt: skip


@pytest.mark.parametrize("ranks", [2, 3])
def test_every_type_of_weights(ranks):
    """Encodings, with a scale a group of columns and without, and all in one model."""
    run_ranks(ranks, [*TYPES, MIXED, {"size": "hidden 200", "layout": "llama", "kind": "fp16"}])
