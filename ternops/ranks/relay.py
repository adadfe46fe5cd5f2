"""A pass through a pipeline: each process has some layers, and hands on what they make of tokens.

The first stage has embedding and head as well, so that x comes back to it in the end: it takes
fewer bytes than logits, and tokens are drawn where the head is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ternops.ranks.group import Group

# Fields of a forward pass's record that tell a part of it from all.
_OUTPUTS = ("outputs", "states")


class Relay:
    """Those parts of passes of one workspace that this process has.

    record: the workspace's MODEL; x: float32 (tokens, hidden), its vectors between layers; slot:
    the number of its passes among those that are under way together.
    """

    def __init__(self, group: Group, record: Any, x: npt.NDArray[np.float32], slot: int) -> None:
        self.group, self.is_first = group, group.stage == 0
        self._record, self._x, self._slot = record, x, slot
        self._layers = int(record["layers"])
        self._sent: Any = None

    def take_and_hand_on(self, tokens: int, run: Callable[[int], None]) -> None:
        """Look the tokens up, or take what the stage before has made of them; run the layers; hand
        it on to the next stage."""
        self._wait()
        if not self.is_first:
            self.group.take(self._x[:tokens], self._slot)
        wanted = [int(self._record[name]) for name in _OUTPUTS]
        self._set(self._layers, [0, 0])
        run(tokens)
        for name, value in zip(_OUTPUTS, wanted, strict=True):
            self._record[name] = value
        self._sent = self.group.hand_on(self._x[:tokens], self._slot)

    def take_back(self, tokens: int, run: Callable[[int], None]) -> None:
        """Take what the last stage has made of the tokens, and run what comes behind layers."""
        self._wait()
        self.group.take(self._x[:tokens], self._slot)
        self._set(0, [int(self._record[name]) for name in _OUTPUTS])
        run(tokens)

    def _set(self, layers: int, outputs: list[int]) -> None:
        self._record["layers"], self._record["embeds"] = layers, int(self.is_first and layers > 0)
        for name, value in zip(_OUTPUTS, outputs, strict=True):
            self._record[name] = value

    def _wait(self) -> None:
        """Until x may be written again."""
        if self._sent is not None:
            self._sent.Wait()
            self._sent = None
