"""How much of waiting prompts a step may read, so that sequences hardly wait for their tokens."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

#: A step with prompts takes this many times one without: twice is promised, and where machines are
#: shared 19 of 20 then keep it.
_LONGEST = 1.6
# Steps without prompts that are timed for a number of sequences; the shorter one counts.
_TIMED = 2
# Steps with prompts after which one without is timed again.
_FRESH = 64


class Pace:
    """Learns what a token of a prompt costs beside so many sequences' next ones, and what these
    cost alone, from the time of steps.

    A step's time is about linear in its tokens (a prompt's are products of matrices like the
    others), so that one number describes it; it is what steps of late have taken.
    """

    def __init__(self) -> None:
        self._alone: dict[int, deque[float]] = {}
        self._each = 0.0
        self._since = 0

    def most(self, decoding: int, limit: int) -> int:
        """Prompt tokens that may be read beside `decoding` sequences, one or more, at most `limit`;
        0 where a step without any must be timed."""
        timed = self._alone.get(decoding, ())
        if len(timed) < _TIMED or self._since >= _FRESH:
            return 0
        alone = min(timed)
        return max(1, min(limit, int((_LONGEST - 1) * alone / (self._each or alone))))

    def took(self, decoding: int, read: int, seconds: float) -> None:
        """A step of `decoding` sequences and `read` tokens of prompts took so long."""
        if not decoding:
            return
        if not read:
            self._since = 0
            self._alone.setdefault(decoding, deque(maxlen=_TIMED)).append(seconds)
            return
        self._since += 1
        if timed := self._alone.get(decoding):
            # At first as much as a step, which reads all weights; from there on step by step, so
            # that one that was disturbed does not count for much.
            each = self._each or min(timed)
            found = (seconds - min(timed)) / read
            self._each = (each + min(max(found, each / 2), 2 * each)) / 2


def shares(most: int, wanted: Sequence[int]) -> list[int]:
    """Of `most` tokens equal shares, none larger than is wanted; what cannot be divided goes to the
    first ones."""
    given = [0] * len(wanted)
    while most and (short := [i for i, count in enumerate(wanted) if given[i] < count]):
        equal = max(1, most // len(short))
        for i in short:
            count = min(equal, wanted[i] - given[i], most)
            given[i] += count
            most -= count
    return given
