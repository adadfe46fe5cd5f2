"""The thread that owns the model: it decodes all requests in one batch, step after step.

Handlers of HTTP requests, which run in an event loop, put commands into its queue, and it puts
tokens into theirs, for all of them at once, and those of short steps together. Nothing else
touches the batch.
"""

from __future__ import annotations

import asyncio
import functools
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from ternops.decoder.batch import Batch, Emitted, RequestError
from ternops.serve.errors import ApiError, logger
from ternops.serve.limits import Limits
from ternops.serve.metrics import Metrics
from ternops.serve.stream import EngineDied, Events, Tokens, late

Result = TypeVar("Result")
#: Of one sequence: the prompt's tokens, and the settings that `Batch.add` takes.
Wanted = tuple[Sequence[int], dict[str, Any]]

_MAX_RETRY_AFTER = 60
_NOBODY = None, 0
#: Seconds before the engine starts again.
_PAUSE = 0.1
#: How much the latest request counts in the mean of their durations.
_LATEST = 0.2
#: Tokens wait for those of the next step, if these come within so many seconds from the latest
#: event: each event takes its reader and this server about a millisecond of CPU, which the steps of
#: a small model lack. The first and the last token of a sequence wait for nothing.
_TOGETHER = 1 / 40


class Engine:
    """Runs `make_batch()`, and another one when that has failed.

    limits: how many sequences may be under way, more are a 429, and for how long, then a 503.
    """

    def __init__(self, make_batch: Callable[[], Batch], limits: Limits, metrics: Metrics) -> None:
        self._make_batch, self._limits, self._metrics = make_batch, limits, metrics
        self._batch = make_batch()
        self._commands: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._calls: deque[tuple[Callable[[], Any], asyncio.Future[Any]]] = deque()
        self._running: dict[int, tuple[Tokens, int]] = {}
        #: What the event loop has not been told; when it was told last, and of which sequences.
        self._held: dict[Tokens, Events] = {}
        self._told = 0.0
        self._begun: set[int] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._load = 0
        self._mean = 1.0
        #: Since when the latest step runs; 0 between steps.
        self._step_began = 0.0
        metrics.watch("ternops_sequences", "Running or waiting", lambda: self._load)
        metrics.watch(
            "ternops_kv_bytes", "Keys and values in use", lambda: self._batch.kv_bytes_used
        )
        metrics.watch(
            "ternops_kv_kept_bytes", "Keys and values kept for requests that begin alike",
            lambda: self._batch.kv_bytes_kept,
        )  # fmt: skip

    def start(self) -> None:
        """Begin; in the event loop that the handlers run in."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="ternops engine", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """End after the step that runs, if it does end."""
        self._commands.put(None)
        if self._thread:
            await asyncio.to_thread(self._thread.join, self._limits.grace)

    @property
    def stalled(self) -> bool:
        """Whether a step takes longer than a request may, or none can be made at all."""
        began = self._step_began
        dead = self._thread is None or not self._thread.is_alive()
        return dead or bool(began and time.monotonic() - began > self._limits.timeout)

    # Of the event loop's thread.

    def submit(self, wanted: Sequence[Wanted]) -> Tokens:
        """Decode these sequences; ApiError 429 if there are too many already."""
        self._take(len(wanted))
        tokens = Tokens(len(wanted), self._limits.timeout, self._got, self._stop)
        self._commands.put(lambda: self._add(tokens, wanted))
        return tokens

    async def call(self, works: Sequence[Callable[[], Result]]) -> list[Result]:
        """What each of them gives, run by the engine's thread between two steps, in their order."""
        self._take(1)
        try:
            found: list[Result] = []
            async with asyncio.timeout(self._limits.timeout):
                for work in works:
                    future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
                    self._commands.put(functools.partial(self._calls.append, (work, future)))
                    found.append(await future)
            return found
        except TimeoutError:
            raise late(self._limits.timeout) from None
        finally:
            self._load -= 1

    def _stop(self, tokens: Tokens, choice: int | None) -> None:
        """Decode no more of one sequence of a request, or of all; those that have ended stay."""
        self._commands.put(lambda: self._cancel(tokens, choice))

    def _got(self, tokens: Tokens, is_first: bool, ended: int) -> None:
        """A request has got tokens, or given up; so many of its sequences have ended."""
        if is_first:
            self._metrics.first_token.observe(tokens.seconds)
        self._load -= ended
        if ended and not tokens.left:
            self._mean += _LATEST * (tokens.seconds - self._mean)

    def _take(self, count: int) -> None:
        most = self._limits.parallel + self._limits.queue
        if count > most:
            raise ApiError(400, f"n: {count} sequences, expected at most {most}", "n")
        if self._load + count > most:
            rounds = -(-self._load // self._limits.parallel)
            seconds = min(_MAX_RETRY_AFTER, max(1, round(self._mean * rounds)))
            raise ApiError(
                429, f"{self._load} sequences are under way, expected at most {most} with "
                f"the {count} of this request: try again in {seconds} s",
                code="busy", headers={"Retry-After": str(seconds)},
            )  # fmt: skip
        self._load += count

    # Of the engine's thread.

    def _run(self) -> None:
        """Decode, and after a failure begin again: if this ended, requests would wait in vain."""
        has_failed = False
        while True:
            try:
                if has_failed:
                    self._batch, has_failed = self._make_batch(), False
                return self._decode()
            except BaseException:
                logger.exception("the engine has failed and starts again")
                self._metrics.restarts.inc()
                self._fail()
                has_failed = True
                time.sleep(_PAUSE)

    def _decode(self) -> None:
        while True:
            self._step_began = 0.0
            idle = not (len(self._batch) or self._calls)
            if idle and not self._obey(self._commands.get()):
                return
            while True:
                try:
                    command = self._commands.get_nowait()
                except queue.Empty:
                    break
                if not self._obey(command):
                    return
            self._step_began = time.monotonic()
            if self._calls:
                self._answer(*self._calls.popleft())
            if len(self._batch):
                try:
                    self._deliver(self._batch.step())
                except RequestError as error:
                    self._refuse(error)
                self._metrics.steps.observe(time.monotonic() - self._step_began)

    def _obey(self, command: Callable[[], None] | None) -> bool:
        if command is None:
            self._fail()
            return False
        command()
        return True

    def _add(self, tokens: Tokens, wanted: Sequence[Wanted]) -> None:
        try:
            for choice, (prompt, settings) in enumerate(wanted):
                number = self._batch.add(prompt, **settings)
                self._running[number] = tokens, choice
                tokens.numbers[choice] = number
        except (ValueError, TypeError) as error:
            self._forget(tokens, None)
            self._tell(tokens.put, ApiError(400, " ".join(str(error).split())))
        except BaseException:  # `_fail` knows of what runs alone
            self._forget(tokens, None)
            self._tell(tokens.put, EngineDied())
            raise

    def _cancel(self, tokens: Tokens, choice: int | None) -> None:
        self._release()
        ended = [
            (each, Emitted(number, None, True)) for each, number in self._forget(tokens, choice)
        ]
        if ended:
            # A single one has been stopped by its text.
            self._metrics.cancelled.inc(len(ended) if choice is None else 0)
            self._tell(tokens.put, ended)

    def _forget(self, tokens: Tokens, choice: int | None) -> list[tuple[int, int]]:
        """Cancel what still runs of a request: choices and their numbers."""
        found = [
            (each, number)
            for each, number in tokens.numbers.items()
            if choice in (None, each) and self._running.get(number, _NOBODY)[0] is tokens
        ]
        for _, number in found:
            self._end(number)
            self._batch.cancel(number)
        return found

    def _end(self, number: int) -> None:
        del self._running[number]
        self._begun.discard(number)

    def _deliver(self, emitted: Sequence[Emitted]) -> None:
        """To each request what steps have given it, with one message to the event loop."""
        urgent, count = False, 0
        for each in emitted:
            number = each.request
            if number not in self._running:  # cancelled in the meantime
                continue
            tokens, choice = self._running[number]
            self._held.setdefault(tokens, []).append((choice, each))
            count += each.token is not None
            urgent |= each.last or number not in self._begun
            self._begun.add(number)
            if each.last:
                self._end(number)
        self._metrics.generated_tokens.inc(count)
        now = time.monotonic()
        following = now + (now - self._step_began)  # the next step's end, if it takes as long
        if urgent or following - self._told >= _TOGETHER:
            self._release()

    def _release(self) -> None:
        """Tell the event loop what it has not been told."""
        if self._held:
            self._told = time.monotonic()
            self._tell(_put_all, list(self._held.items()))
            self._held = {}

    def _refuse(self, error: RequestError) -> None:
        """Tell a request that one of its sequences cannot go on; it gives up the others."""
        tokens, _ = self._running.get(error.request, _NOBODY)
        if tokens:
            self._end(error.request)
            self._release()  # what it has said comes before
            words = " ".join(str(error.__cause__).split())
            self._tell(tokens.put, ApiError(400, words, code="no_token"))

    def _answer(self, work: Callable[[], Any], future: asyncio.Future[Any]) -> None:
        if future.cancelled():
            return
        try:
            result, error = work(), None
        except Exception as raised:
            result, error = None, raised
        self._tell(_settle, future, result, error)

    def _fail(self) -> None:
        """Tell all who wait that there is nothing to wait for."""
        self._release()
        for tokens in dict.fromkeys(tokens for tokens, _ in self._running.values()):
            self._tell(tokens.put, EngineDied())
        self._running.clear()
        self._begun.clear()
        for _, future in self._calls:
            self._tell(_settle, future, None, EngineDied())
        self._calls.clear()

    def _tell(self, receive: Callable[..., None], *arguments: Any) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(receive, *arguments)
        except RuntimeError:  # the loop is closed: nobody is there
            logger.debug("an answer came after the end")


def _put_all(found: list[tuple[Tokens, Events]]) -> None:
    for tokens, events in found:
        tokens.put(events)


def _settle(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
