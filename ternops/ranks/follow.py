"""What a process does that does not lead: what it is told."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ternops.decoder.loaded import LoadedModel
from ternops.decoder.session import WorkspacePool
from ternops.decoder.whole_pages import give_pages, give_rows, take_pages
from ternops.decoder.workspace import Workspace
from ternops.memory import mapped_zeros
from ternops.ranks.group import (
    CONTENT,
    COPY,
    DROP,
    END,
    FINISH,
    LOAD,
    MEASURE,
    PASS,
    RESTORE,
    ROWS,
    Group,
    Words,
)

_CALL = 5


class Follower:
    """Decodes with a part of a model until it is told that all is over.

    load: what makes the model of an order, and tells whether it could. model: that which it has a
    part of, None before.
    """

    def __init__(
        self, group: Group, load: Callable[[bytes], LoadedModel | None] | None = None
    ) -> None:
        self._group, self._load = group, load
        self.use(None)

    def use(self, model: LoadedModel | None) -> None:
        """Decode with this one from now on."""
        self.model = model
        self._pages: dict[int, npt.NDArray[np.uint8]] = {}
        self._started: dict[int, Workspace] = {}
        if model is not None:
            self._pool = WorkspacePool(model)

    def run(self) -> None:
        """Follow orders; returns at the end."""
        while True:
            order = self._group.receive()
            for address in order.freed.tolist():
                self._pages.pop(address, None)
            if order.kind == PASS:
                self._pass(order.words)
            elif order.kind == FINISH:
                self._started.pop(int(order.words[0])).end_following()
            elif order.kind == DROP:
                self._started.pop(int(order.words[0]))
                self._group.discard(int(order.words[0]))
            elif order.kind == COPY:
                target, source = order.words.tolist()
                self._page(target)[:] = self._page(source)
            elif order.kind in (CONTENT, RESTORE):
                pages = [self._page(each) for each in order.words.tolist()]
                (give_pages if order.kind == CONTENT else take_pages)(self._group, pages)
            elif order.kind == ROWS:
                assert self.model is not None
                give_rows(self._group, self.model.weights)
            elif order.kind == MEASURE:
                self._group.gather_s(*order.words.tolist())
            elif order.kind == LOAD and self._load is not None:
                self.use(self._load(order.words.tobytes()))
            else:
                assert order.kind == END, order.kind
                return

    def _page(self, address: int) -> npt.NDArray[np.uint8]:
        if address not in self._pages:
            assert self.model is not None
            self._pages[address] = mapped_zeros(self.model.page_bytes)
        return self._pages[address]

    def _pass(self, words: Words) -> None:
        (slot, *call), words = words[: 1 + _CALL].tolist(), words[1 + _CALL :]
        (tokens, outputs, count), words = words[:3].tolist(), words[3:]
        chosen, words = words[:outputs], words[outputs:]
        rows, words = words[: 3 * tokens].reshape(tokens, 3), words[3 * tokens :]
        tables = []
        for _ in range(count):
            pages = words[1 : 1 + words[0]].tolist()
            tables.append(np.array([self._page(each).ctypes.data for each in pages], np.int64))
            words = words[1 + len(pages) :]
        placed = np.zeros((tokens, 4), np.int64)
        placed[:, :2] = rows[:, :2]
        placed[:, 2] = np.array([each.ctypes.data for each in tables])[rows[:, 2]]
        workspace = self._started[slot] = self._pool(tokens, slot)
        workspace.follow(placed, chosen, call)
