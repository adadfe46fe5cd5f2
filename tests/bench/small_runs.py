"""What tests of bench.run share: a small layout, a small task, and rows of any kind."""

import math
from dataclasses import replace

from bench.core.results import ENGINES, MEASURED, Row
from bench.suites.run.plan import Task
from ternops.decoder import Config

SMALL = Config(
    hidden=64, ffn=96, layers=2, heads=2, kv_heads=2, head_dim=32, vocabulary=128, context=1024
)
TASK = Task("125M", 0, dict.fromkeys(ENGINES, 2), (), (1, 2), 3, 2, True)
GIGABYTE = 10**9


def row(**fields):
    """A row of the kind that is asked for."""
    usual = {"size": "700M", "engine": "base3", "test": "tg32", "threads": 2, "kind": MEASURED}
    return Row(**{**usual, "seconds": (0.5, 0.25, 0.25, 1.0), **fields})


def same(left, right):
    """Equal, NaN to NaN."""
    return replace(left, joules=0.0) == replace(right, joules=0.0) and (
        left.joules == right.joules or (math.isnan(left.joules) and math.isnan(right.joules))
    )
