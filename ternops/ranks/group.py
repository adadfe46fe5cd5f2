"""How the process that talks to the user leads those that decode with it.

It sends them commands, int64 numbers in messages of one form, and no objects: a pass of some
tokens, a copied page, the end. Pages of keys and values go by the addresses that they have in the
first process, and each has its own heads in a page of its own for such an address.
"""

from __future__ import annotations

import ctypes
import heapq
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ternops.kernels.attention import POSITIONS
from ternops.ranks.split import Split, split_of
from ternops.ranks.world import Communicator, host, mpi

if TYPE_CHECKING:
    from ternops.decoder.config import Config

Words = npt.NDArray[np.int64]

#: Words of a message; what does not fit comes in a second one.
_WORDS = 128
#: What a message begins with: one of these, the number of words that follow, those of `_FREED`.
PASS, FINISH, DROP, COPY, CONTENT, RESTORE, ROWS, MEASURE, LOAD, END = range(1, 11)
_HEAD = 3
#: Tags: of passes by their slots, below the least limit that MPI may have; of parts of what an
#: order asks for.
_TAGS, _PARTS = 1 << 14, 1 << 14
#: Bytes of the name of a machine.
_NAME = 256
#: Gathers that are timed.
_MEASURED = 15
#: Seconds for which a command is waited for busily, and between two looks from then on.
_BEFORE_SLEEP, _SLEEP = 0.02, 0.0005


class Order(NamedTuple):
    """A message. freed: addresses of pages that are gone."""

    kind: int
    freed: Words
    words: Words


class Group:
    """All processes. link: how those of a stage gather what each has computed."""

    def __init__(self) -> None:
        found = mpi()
        self._mpi = found
        # Its own messages cannot meet those of other libraries, nor gathers the commands.
        self._commands = found.COMM_WORLD.Dup()
        self._commands.Set_errhandler(found.ERRORS_ARE_FATAL)
        self._relayed = found.COMM_WORLD.Dup()
        self._relayed.Set_errhandler(found.ERRORS_ARE_FATAL)
        self.rank, self.ranks = self._commands.rank, self._commands.size
        self.arrange(())
        #: The machine of each process.
        self.hosts = self.tell_all(host(), _NAME)
        self._freed: list[int] = []
        # Numbers of owners of passes: that are free, that nobody has any more, how many there were;
        # and the slots of passes that have begun and not ended.
        self._free: list[int] = []
        self._left: list[int] = []
        self._owners = 0
        self._under_way: set[int] = set()

    @property
    def leads(self) -> bool:
        """Whether this process is the one that the others follow."""
        return self.rank == 0

    def arrange(self, bounds: Sequence[int]) -> None:
        """Let layers be shared out so, see `split_of`; called in all processes together. Raises
        ValueError for a number of stages that does not divide that of processes."""
        stages = max(1, len(bounds) - 1)
        if self.ranks % stages:
            raise ValueError(f"layout: pp={stages}, expected a divisor of {self.ranks} ranks")
        self._bounds, self._width = tuple(bounds), self.ranks // stages
        #: The place of this process in the pipeline.
        self.stage = self.rank // self._width
        self.communicator = Communicator(self._mpi.COMM_WORLD.Split(self.stage, self.rank))

    def gather_s(self, stages: int, floats: int) -> float:
        """Seconds in which processes gather a vector, those of each of so many stages, at the
        slowest of them; called in all processes together."""
        width = self.ranks // stages
        members = self._mpi.COMM_WORLD.Split(self.rank // width, self.rank)
        vector = np.zeros(floats, np.float32)
        bounds = [floats * each // width for each in range(width + 1)]
        counts = np.diff(bounds).tolist()
        found = []
        for _ in range(_MEASURED):
            members.Barrier()
            start = time.perf_counter()
            members.Allgatherv(self._mpi.IN_PLACE, [vector, counts, bounds[:-1], self._mpi.FLOAT])
            found.append(time.perf_counter() - start)
        slowest = np.zeros(1)
        own = np.array([np.median(found)])
        self._commands.Allreduce(own, slowest, self._mpi.MAX)
        members.Free()
        return float(slowest[0])

    @property
    def part(self) -> tuple[int, int, tuple[int, ...]]:
        """What `split_of` takes for this process, beside the config."""
        return self.rank, self.ranks, self._bounds

    def every(self, config: Config) -> list[Split]:
        """What each of all processes has."""
        return [split_of(config, rank, self.ranks, self._bounds) for rank in range(self.ranks)]

    def give_to(self, rank: int, array: npt.NDArray[Any]) -> None:
        """Send an array, as part of what an order asks for."""
        self._relayed.Send(_bytes(array), rank, _PARTS)

    def take_from(self, rank: int, array: npt.NDArray[Any]) -> None:
        """Receive one of that size."""
        self._relayed.Recv(_bytes(array), rank, _PARTS)

    def splits(self, config: Config) -> list[Split]:
        """What each process of this stage has."""
        first = self.stage * self._width
        numbers = range(first, first + self._width)
        return [split_of(config, number, self.ranks, self._bounds) for number in numbers]

    def new_slots(self, owner: Any) -> int:
        """The first of as many numbers of passes as there are stages, for an owner as long as it
        lives: in a pipeline those of two owners may be under way together, and each process has a
        workspace for each."""
        stages = self.ranks // self._width
        if stages == 1:
            return 0
        self._drop()
        number = heapq.heappop(self._free) if self._free else self._owners
        self._owners = max(self._owners, number + 1)
        weakref.finalize(owner, self._left.append, number).atexit = False
        return number * stages

    def _drop(self) -> None:
        """Take what has become of passes that nobody will end, and have their numbers again."""
        stages = self.ranks // self._width
        while self._left:
            number = self._left.pop()
            for slot in self._under_way & set(range(number * stages, (number + 1) * stages)):
                self._drop_pass(slot)
            heapq.heappush(self._free, number)

    def _drop_pass(self, slot: int) -> None:
        with uninterrupted():
            self.send(DROP, np.array([slot], np.int64))
            self._under_way.discard(slot)
            self.discard(slot)

    def discard(self, slot: int) -> None:
        """Receive x of the last stage, and forget it, in the first one."""
        if self.stage:
            return
        source, status = (self.rank - self._width) % self.ranks, self._mpi.Status()
        self._relayed.Probe(source, slot % _TAGS, status)
        found = np.empty(status.Get_count(self._mpi.BYTE), np.uint8)
        self._relayed.Recv(found, source, slot % _TAGS)

    def hand_on(self, x: npt.NDArray[np.float32], slot: int) -> Any:
        """Begin to send x to the next stage; the request."""
        return self._relayed.Isend(x, (self.rank + self._width) % self.ranks, slot % _TAGS)

    def take(self, x: npt.NDArray[np.float32], slot: int) -> None:
        """Wait for x of the stage before."""
        self._relayed.Recv(x, (self.rank - self._width) % self.ranks, slot % _TAGS)

    def noted(self, new_page: Callable[[], Any]) -> Callable[[], Any]:
        """A maker of pages that has the others let go of theirs with each."""

        def make() -> Any:
            page = new_page()
            weakref.finalize(page, self._freed.append, page.ctypes.data).atexit = False
            return page

        return make if self.leads else new_page

    def copy(self, target: npt.NDArray[np.uint8], source: npt.NDArray[np.uint8]) -> None:
        """Copy a page, here and in the others."""
        with uninterrupted():
            self.send(COPY, np.array([target.ctypes.data, source.ctypes.data], np.int64))
            target[:] = source

    def tell(
        self,
        slot: int,
        tokens: npt.NDArray[np.intp],
        outputs: npt.NDArray[np.int64],
        call: Sequence[int],
    ) -> None:
        """Let the others begin a pass. slot: its number among those under way together.

        tokens: (tokens, 4), a TOKEN each, outputs: for which of them, call: numbers that
        `Workspace.follow` takes.
        """
        tables, of = np.unique(tokens[:, 2], return_inverse=True)
        parts = [np.array([slot, *call, len(tokens), len(outputs), len(tables)], np.int64), outputs]
        rows = tokens.astype(np.int64)
        rows[:, 2] = of.reshape(-1)
        parts.append(rows[:, :3].reshape(-1))
        for number, table in enumerate(tables.tolist()):
            last = int(rows[rows[:, 2] == number, 1].max())
            pages = pages_at(table, last)
            parts += [np.array([len(pages)], np.int64), pages]
        if self.ranks > self._width:
            self._under_way.add(slot)
        self.send(PASS, np.concatenate(parts))

    def tell_end(self, slot: int) -> None:
        """Let the others end a pass."""
        self._under_way.discard(slot)
        self.send(FINISH, np.array([slot], np.int64))

    def send(self, kind: int, words: Words) -> None:
        """To all others."""
        freed, self._freed = self._freed, []
        body = np.concatenate([np.array(freed, np.int64), words])
        message = np.zeros(_WORDS, np.int64)
        message[:_HEAD] = kind, len(body), len(freed)
        first = body[: _WORDS - _HEAD]
        message[_HEAD : _HEAD + len(first)] = first
        self._commands.Ibcast(message, 0).Wait()
        if len(body) > len(first):
            self._commands.Ibcast(np.ascontiguousarray(body[len(first) :]), 0).Wait()

    def tell_all(self, text: str, most: int) -> list[str]:
        """A text of at most so many bytes of every process, in all of them."""
        own = np.frombuffer(text.encode().ljust(most), np.uint8)
        every = np.empty((self.ranks, most), np.uint8)
        self._commands.Allgather(own, every)
        return [each.tobytes().decode().rstrip() for each in every]

    def end(self) -> None:
        """Let the others end."""
        for slot in list(self._under_way):
            self._drop_pass(slot)
        self.send(END, np.empty(0, np.int64))

    def receive(self) -> Order:
        """The next message."""
        message = np.zeros(_WORDS, np.int64)
        _await(self._commands.Ibcast(message, 0))
        kind, count, freed = message[:_HEAD].tolist()
        body = message[_HEAD : _HEAD + count]
        if count > len(body):
            rest = np.empty(count - len(body), np.int64)
            self._commands.Ibcast(rest, 0).Wait()
            body = np.concatenate([body, rest])
        return Order(kind, body[:freed], body[freed:])


def _bytes(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    return array.reshape(-1).view(np.uint8)


def _await(request: Any) -> None:
    """Wait for what may take long: whoever waits for a user's words leaves the CPU to others."""
    since = time.perf_counter()
    while not request.Test():
        if time.perf_counter() - since > _BEFORE_SLEEP:
            time.sleep(_SLEEP)


def pages_at(table: int, position: int) -> Words:
    """The addresses in a table of pages up to that of a position."""
    count = position // POSITIONS + 1
    return np.array((ctypes.c_int64 * count).from_address(table), np.int64)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Keep Ctrl-C until what all processes do together is done: those that wait for this one
    would meet another message."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept: list[Any] = []
    before = signal.signal(signal.SIGINT, lambda *given: kept.append(given))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if kept and callable(before):
            before(*kept[0])
