"""A workspace's passes, where several processes share a model out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ternops.decoder.gathers import Gathers
from ternops.decoder.loaded import LoadedModel
from ternops.kernels.screen import ROWS
from ternops.ranks.relay import Relay
from ternops.ranks.split import Span, Split


class Together:
    """What this process does of them.

    record: the workspace's MODEL; x: float32 (tokens, hidden), its vectors between layers; peaks:
    how many floats a token's have; slot: the number of a pass among those under way together.
    """

    def __init__(
        self, model: LoadedModel, record: Any, x: npt.NDArray[np.float32], peaks: int, slot: int
    ) -> None:
        assert model.group is not None
        self._group, self._record, self._slot = model.group, record, slot
        self._gathers = _gathers_of(model, peaks)
        for name, value in self._gathers.fields.items():
            record[name] = value
        self._relay = Relay(model.group, record, x, slot) if model.split.stages > 1 else None

    def tell(
        self, tokens: npt.NDArray[np.intp], outputs: npt.NDArray[np.int64], call: Sequence[int]
    ) -> None:
        """Let the others begin, see `Workspace.follow`."""
        self._group.tell(self._slot, tokens, outputs, call)

    def tell_end(self) -> None:
        """Let them end what they have begun."""
        if self._relay is not None:
            self._group.tell_end(self._slot)

    def begin(self, run: Callable[[int], None]) -> None:
        """A pass, or what comes before its last layers are through. run: runs the record, of so
        many tokens."""
        tokens, outputs = int(self._record["tokens"]), int(self._record["outputs"])
        if self._relay is None:
            self._gathers.use(tokens, outputs)
            run(tokens)
        else:
            self._gathers.use(tokens, 0)
            self._relay.take_and_hand_on(tokens, run)

    def end(self, run: Callable[[int], None]) -> None:
        """What comes behind the layers, in the processes that have the head."""
        if self._relay is not None and self._relay.is_first:
            self._gathers.use(0, int(self._record["outputs"]))
            self._relay.take_back(int(self._record["tokens"]), run)


def fields_of(split: Split) -> dict[str, int]:
    """Fields of a MODEL: what a process has of a model."""
    spans = {
        "hidden": split.hidden, "ffn": split.ffn, "queries": split.queries, "kv": split.keys,
        "head": split.vocabulary,
    }  # fmt: skip
    return {
        f"{name}_{bound}": value
        for name, span in spans.items()
        for bound, value in zip(("first", "last"), span, strict=True)
    }


def _gathers_of(model: LoadedModel, peaks: int) -> Gathers:
    """peaks: floats of a token's."""
    assert model.group is not None
    c, splits = model.config, model.splits
    # A block of rows that is not full is gathered with what follows it.
    blocks = [
        Span(each.vocabulary.first // ROWS, -(-each.vocabulary.last // ROWS)) for each in splits
    ]
    lengths = {
        "queries": c.heads * c.head_dim, "hidden": c.hidden, "ffn": c.ffn, "peaks": peaks,
        "logits": model.head.padded,
    }  # fmt: skip
    return Gathers(model.group.communicator, lengths, {
        "queries": [Span(*(c.head_dim * each for each in one.queries)) for one in splits],
        "hidden": [each.hidden for each in splits],
        "ffn": [each.ffn for each in splits],
        "peaks": blocks,
        "logits": [Span(*(ROWS * each for each in block)) for block in blocks],
    })  # fmt: skip
