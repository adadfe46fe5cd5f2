"""What ranks that each have a part of a model pay for exchanging vectors: a link between them.

A message takes a latency and its bytes at a bandwidth (Hockney, Parallel Computing 20, 1994); a
collective takes the messages of the algorithm that MPI libraries choose by its size (Thakur,
Rabenseifner and Gropp, "Optimization of Collective Communication Operations in MPICH",
International Journal of High Performance Computing Applications 19, 2005, sections 4.1 and 4.2):
the logarithm of the number of ranks for short vectors, a ring for long ones. Open MPI's thresholds
differ little from these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

#: Bytes of a gathered vector up to which it is passed on in doubling parts, where the number of
#: ranks is a power of two and where it is not (MPIR_CVAR_ALLGATHER_LONG_MSG_SIZE and
#: MPIR_CVAR_ALLGATHER_SHORT_MSG_SIZE of MPICH).
LONG, SHORT = 524288, 81920


def doublings(ranks: int) -> int:
    """Steps in which what one rank has reaches all, when those that have it double: ceil(log2)."""
    return (ranks - 1).bit_length()


@dataclass(frozen=True)
class Link:
    """Between any two ranks.

    latency_s: seconds of a message without bytes, one way, MPI's part included. bytes_per_s: of one
    rank, each way. is_local: whether all ranks are on one machine, whose cores and memory they then
    share. gathers: number of ranks -> bytes of a whole vector, rising, and the measured seconds of
    gathering it; between them is a straight line.
    """

    name: str
    latency_s: float
    bytes_per_s: float
    is_local: bool = False
    gathers: Mapping[int, tuple[tuple[int, ...], tuple[float, ...]]] = field(default_factory=dict)

    def message_s(self, nbytes: float) -> float:
        """Seconds from one rank to another."""
        return self.latency_s + nbytes / self.bytes_per_s

    def allgather_s(self, nbytes: float, ranks: int) -> float:
        """Seconds until each of `ranks` has all `nbytes` of a vector of which each had its part."""
        if ranks in self.gathers:
            sizes, seconds = self.gathers[ranks]
            if nbytes <= sizes[-1]:
                return float(np.interp(nbytes, sizes, seconds))
        return self._steps(nbytes, ranks) * self.latency_s + self._sent(nbytes, ranks)

    def gather_s(self, nbytes: float, ranks: int) -> float:
        """Seconds until one of `ranks` has all `nbytes`, by a binomial tree."""
        return doublings(ranks) * self.latency_s + self._sent(nbytes, ranks)

    def broadcast_s(self, nbytes: float, ranks: int) -> float:
        """Seconds until each of `ranks` has the few bytes of one, by a binomial tree."""
        return doublings(ranks) * self.message_s(nbytes)

    def _steps(self, nbytes: float, ranks: int) -> int:
        is_power = ranks & (ranks - 1) == 0
        return doublings(ranks) if nbytes < (LONG if is_power else SHORT) else ranks - 1

    def _sent(self, nbytes: float, ranks: int) -> float:
        """Seconds of the bytes alone: every rank receives what it has not."""
        return nbytes * (ranks - 1) / ranks / self.bytes_per_s
