"""What a token costs whatever the sizes: Python, the first bytes of every matrix, of every head.

Measured with decoders that have next to no weights, whose data lie where the weights of a larger
one would have driven them: between two tokens memory is read, which fills the caches before that.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ternops.decoder import Config, Model
from ternops.decoder.records import PARTS
from ternops.decoder.session import Session
from ternops.decoder.weights import random_weights

_KIND = "two_bit"
_TOKENS, _POSITIONS = 16, 8
_ONE = Config(
    hidden=64, ffn=64, layers=1, heads=1, kv_heads=1, head_dim=64, vocabulary=64, context=64
)
_LAYERS = replace(_ONE, layers=16)
_HEADS = replace(_ONE, layers=4, heads=16, kv_heads=16, head_dim=96)
_BARRIERS = 5  # of a layer, for one token; the pass has two more
_ATTENTION = PARTS.index("attention")
_MIN_COST = 1e-9  # as good as none: a profile's figures are above 0


class Costs(NamedTuple):
    """Seconds of a token, of a layer and of a head, as time goes by for all threads."""

    token: float
    layer: float
    head: float


def fixed_costs(threads: int, barrier: float, evict: Callable[[], object]) -> Costs:
    """What is left of a token without weights.

    evict: called before each. barrier: seconds of one, which are counted apart.
    """
    one, layers, heads = (
        _medians(Session(Model(random_weights(config, _KIND), threads)), evict)
        for config in (_ONE, _LAYERS, _HEADS)
    )
    head = heads[_ATTENTION] / (_HEADS.layers * _HEADS.heads)  # threads share them
    met = barrier if threads > 1 else 0.0
    layer = (layers[-1] - one[-1]) / (_LAYERS.layers - 1) - head - _BARRIERS * met
    token = one[-1] - layer - head - (_BARRIERS + 2) * met
    return Costs(*(max(_MIN_COST, each) for each in (token, layer, head)))


def _medians(session: Session, evict: Callable[[], object]) -> npt.NDArray[np.float64]:
    """Seconds of a token by PARTS, and as a whole."""
    parts = session.profile()
    taken = np.empty((_TOKENS + 1, len(PARTS) + 1))
    for values in taken:
        session.position = min(session.position, _POSITIONS)
        evict()
        parts[:] = 0
        start = time.perf_counter()
        session.step(1)
        values[-1] = time.perf_counter() - start
        values[:-1] = 1e-9 * parts
    return np.asarray(np.median(taken[1:], axis=0))
