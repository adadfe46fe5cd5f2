"""Powers of two: as levels (DenseShift), and as scales (BCT)."""

from __future__ import annotations

import numpy as np

from ternops.quantizers.floats import powers
from ternops.quantizers.integers import INT4, INT8, absmax
from ternops.quantizers.method import Array, Levels, Method, absmax_of

_GROUP = 64


def _shifts(count: int) -> Levels:
    """+-2^p for p < count, without zero."""
    return tuple(sorted(sign * 2**p for p in range(count) for sign in (-1, 1)))


def shift(groups: Array, levels: Levels) -> Array:
    """The least power of two that clips nothing: 2^ceil(log2(max|w| / highest level))."""
    least = absmax_of(groups) / levels[-1]
    fraction, power = np.frexp(least)  # a fraction from 0.5 to 1
    least_power = np.ldexp(1.0, power - (fraction == 0.5))
    return np.where((least > 0) & np.isfinite(least), least_power, least)


#: Two and three bits are the paper's. Its four go up to 2^7, which no int8 has: p <= 6 here.
DENSESHIFT = Method(
    name="denseshift",
    paper="Li et al., DenseShift, arXiv 2208.09708, section 3.1",
    levels={14: _shifts(7), 8: _shifts(4), 4: _shifts(2)},
    scale=absmax,
)
BCT = Method(
    name="bct",
    paper="Dong et al., Blockwise Compression of Transformer-based Models without Retraining, "
    "arXiv 2304.01483, section 3",
    levels={16: INT4, 255: INT8},
    group=_GROUP,
    scale=shift,
    store=powers,
)
