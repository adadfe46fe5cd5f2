"""SEQ, stretched elastic quantisation: levels in the middles of equal parts of -alpha to alpha."""

from __future__ import annotations

from ternops.quantizers.integers import ODD, TRITS
from ternops.quantizers.method import Array, Levels, Method, absmax_of


def stretched(groups: Array, levels: Levels) -> Array:
    """alpha = max|w|, of which the lowest positive level is a part: 2/3 of it, or 1/4.

    Trits are 0 and +-2/3 alpha: thirds of the range, rounded to their middles. Four levels are
    +-1/4 and +-3/4 alpha: quarters of it, the levels (-3, -1, 1, 3) times alpha / 4. alpha is what
    the paper's training starts from; there it is then learned.
    """
    return absmax_of(groups) * (2 / len(levels) if 0 in levels else 1 / len(levels))


SEQ = Method(
    name="seq",
    paper="Liu et al., ParetoQ, arXiv 2502.02631, section 3 (SEQ)",
    levels={4: ODD, 3: TRITS},
    scale=stretched,
)
