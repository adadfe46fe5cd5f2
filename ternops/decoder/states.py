"""What the gated delta nets of a model keep of one sequence: it changes with each token.

Of a layer the inputs of its convolution at the last TAPS - 1 positions, the oldest first, and of
each head its state, (delta_key_dim, delta_value_dim), in chunks of 16 columns.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ternops.decoder.architectures import TAPS
from ternops.decoder.config import Config
from ternops.memory import HoldsAddresses, aligned_zeros

_LANES = 16


def row_floats(count: int) -> int:
    """Floats of a row of a state, whole vectors."""
    return -(-count // _LANES) * _LANES


def layer_bytes(config: Config) -> int:
    """Of the states of a layer with a delta net."""
    inputs = row_floats((TAPS - 1) * config.sizes["delta_mixed"])
    matrices = config.delta_heads * config.delta_key_dim * row_floats(config.delta_value_dim)
    return 4 * (inputs + matrices)


def states_bytes(config: Config) -> int:
    """Of all states of a sequence and their copy; 0 for a model without delta nets."""
    return 2 * sum(config.delta_layers) * layer_bytes(config) if config.delta_layers else 0


class States(HoldsAddresses):
    """Those of one sequence, and a copy of them from before, to which one can go back.

    position: after how many tokens they are; None while a pass changes them, and after one that
    was interrupted.
    """

    def __init__(self, config: Config) -> None:
        self._now = aligned_zeros(sum(config.delta_layers) * layer_bytes(config), np.uint8)
        self._before = np.zeros(0, np.uint8)
        self._position_before = 0
        self.position: int | None = 0
        self.address = self._now.ctypes.data

    @property
    def nbytes(self) -> int:
        """Of what `content` gives."""
        return self._now.nbytes

    def content(self) -> npt.NDArray[np.uint8]:
        """A copy of them."""
        return self._now.copy()

    def restore(self, position: int, content: npt.NDArray[np.uint8]) -> None:
        """Be what `content` gave after so many tokens."""
        self.position, self._position_before = None, 0
        self._now[:] = content
        self.position = position

    def keep(self) -> None:
        """Copy them, in place of the copy that there is."""
        if self.position is None or self.position == self._position_before:
            return
        if not len(self._before):
            self._before = np.empty_like(self._now)
        self._position_before = 0  # until all is copied, should an interrupt come in between
        self._before[:] = self._now
        self._position_before = self.position

    def go_back(self, position: int) -> int:
        """Make them those of no more tokens than this; gives of how many: what they were, what was
        copied, or none."""
        if self.position is not None and self.position <= position:
            return self.position
        if 0 < self._position_before <= position:
            self._now[:] = self._before
            self.position = self._position_before
        else:
            self._now[:] = 0
            self.position = self._position_before = 0
        return self.position
