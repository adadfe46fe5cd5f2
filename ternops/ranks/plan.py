"""Which layout processes take that are told none: by what gathering a vector takes between them.

Sharing out every layer makes a token as many times faster as there are processes, less what four
gathers a layer take; a pipeline makes no token faster, and hands a vector on once a stage. So the
processes share out every layer as long as gathers take less time than the weights; where they do
not, those of one machine do, in a stage each; and where even these do not, each is a stage.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

from ternops.cost.shares import GATHERS
from ternops.decoder.config import Config
from ternops.ranks.split import Layout

#: Bytes a second that a thread reads weights with: about those of a core of today's machines. By
#: half or twice as much the choice is another one only where both are nearly as good.
READ_PER_THREAD = 10e9


class Choice(NamedTuple):
    """The stages of a pipeline, and why, in a line."""

    stages: int
    reason: str


def choose(
    config: Config, hosts: list[str], layer_bytes: float, threads: int,
    gather_s: Callable[[int], float],
) -> Choice:  # fmt: skip
    """The layout of as many processes as there are hosts, one name each.

    layer_bytes: of weights that a token reads of a layer. threads: of a process. gather_s: what a
    vector takes to be gathered by the processes of each stage, where there are so many stages.
    """
    reason = ""
    for stages in _candidates(hosts, config.layers):
        width = len(hosts) // stages
        if width == 1:
            return Choice(stages, f"layout {Layout(1, stages)}: {reason}")
        gathers = GATHERS * gather_s(stages)
        weights = layer_bytes / width / (READ_PER_THREAD * threads)
        reason = (
            f"gathering takes {1e6 * gathers:.0f} us a layer where {width} share it out, the rest "
            f"about {1e6 * weights:.0f}"
        )
        if gathers < weights:
            break
    return Choice(stages, f"layout {Layout(width, stages)}: {reason}")


def _candidates(hosts: list[str], layers: int) -> Iterator[int]:
    """Stages, few first: one; one a machine; one a process."""
    yield 1
    runs = 1 + sum(a != b for a, b in itertools.pairwise(hosts))
    width, rest = divmod(len(hosts), runs)
    even = not rest and all(len(set(hosts[at : at + width])) == 1
                            for at in range(0, len(hosts), width))  # fmt: skip
    if even and 1 < runs < len(hosts) and runs <= layers:
        yield runs
    if len(hosts) <= layers:
        yield len(hosts)
