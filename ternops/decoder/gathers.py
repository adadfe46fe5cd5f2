"""The GATHER records of a workspace: who has which elements of which vector, as MPI counts them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ternops.decoder.records import GATHER, GATHERED
from ternops.ranks.split import Span

if TYPE_CHECKING:
    from ternops.ranks.world import Communicator


class Gathers:
    """Those of vectors of so many floats, by the names of GATHERED; spans: what each process has of
    them.

    fields: of a forward pass's record.
    """

    def __init__(
        self,
        communicator: Communicator,
        lengths: Mapping[str, int],
        spans: Mapping[str, Sequence[Span]],
    ) -> None:
        self._communicator = communicator
        self._table: Any = np.zeros(len(GATHERED), GATHER)
        self._lengths = [lengths[name] for name in GATHERED]
        # MPI counts in the largest units in which all have whole ones.
        self._units = [
            math.gcd(*(bound for span in spans[name] for bound in span)) or 1 for name in GATHERED
        ]
        self._kept = []
        for row, name, unit in zip(self._table, GATHERED, self._units, strict=True):
            counts = np.array([span.size // unit for span in spans[name]], np.int32)
            starts = np.array([span.first // unit for span in spans[name]], np.int32)
            self._kept += [counts, starts]
            row["counts"], row["displacements"] = counts.ctypes.data, starts.ctypes.data
        self._rows = (0, 0)
        self.fields = {**communicator.fields, "gather_table": self._table.ctypes.data}

    def use(self, tokens: int, outputs: int) -> None:
        """Let them be of so many tokens, and of so many with logits."""
        if (tokens, outputs) == self._rows:
            return
        for at, name in enumerate(GATHERED):
            rows = outputs if name in ("peaks", "logits") else tokens
            if rows:
                unit, length = self._units[at], self._lengths[at]
                self._table["type"][at] = self._communicator.type(rows, unit, length)
        self._rows = tokens, outputs
