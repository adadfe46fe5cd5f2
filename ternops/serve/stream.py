"""The tokens of one request, between the engine's thread that finds them and its handler."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from ternops.decoder.batch import Emitted
from ternops.serve.errors import ApiError

#: What sequences have got, each by its number in the request.
Events = list[tuple[int, Emitted]]


class EngineDied(ApiError):
    """The engine has failed with this request under way; it starts again."""

    def __init__(self) -> None:
        super().__init__(
            503, "the engine has failed and starts again, expected to work soon",
            code="engine_died", headers={"Retry-After": "1"},
        )  # fmt: skip


def late(seconds: float) -> ApiError:
    """What a request is told that has had its time."""
    return ApiError(503, f"not done after {seconds:g} s, the limit of a request", code="timeout")


class Tokens:
    """Tokens of so many sequences as they come: ``async for events in tokens``, all that are there,
    until the last token of each. An error of the engine is raised there, and so is that `seconds`
    are over.

    got: called with whether these are the first tokens, and how many sequences have ended. stop:
    called with the number of a sequence of which no more is wanted, or None for all of them.
    """

    def __init__(
        self, count: int, seconds: float, got: Callable[[Tokens, bool, int], None],
        stop: Callable[[Tokens, int | None], None],
    ) -> None:  # fmt: skip
        self._got, self._stop = got, stop
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(seconds, self.put, late(seconds))
        self._events: Events = []
        self._error: Exception | None = None
        self._wake = asyncio.Event()
        self._began = time.monotonic()
        self._has_begun = False
        #: Sequences without their last token.
        self.left = count
        #: The numbers that the batch knows them by; the engine's thread alone looks at it.
        self.numbers: dict[int, int] = {}

    @property
    def seconds(self) -> float:
        """Since it was made."""
        return time.monotonic() - self._began

    def __aiter__(self) -> Tokens:
        return self

    async def __anext__(self) -> Events:
        while not self._events:
            if self._error:
                raise self._error
            if self.left == 0:
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()
        found, self._events = self._events, []
        return found

    def put(self, found: Events | Exception) -> None:
        """Add what the engine has found; to be called by the event loop."""
        is_first = False
        if isinstance(found, Exception):
            self._error = self._error or found
            ended = self.left
        else:
            # One that is cancelled, or ends at once, has none.
            has_token = any(emitted.token is not None for _, emitted in found)
            is_first = has_token and not self._has_begun
            self._has_begun |= has_token
            self._events += found
            # They may have been given up before.
            ended = min(self.left, sum(emitted.last for _, emitted in found))
        self.left -= ended
        self._got(self, is_first, ended)
        self._wake.set()

    def close(self, choice: int | None = None) -> None:
        """No more is wanted of one sequence, whose text has ended, or of all of them."""
        if choice is None:
            self._timer.cancel()
        self._stop(self, choice)
